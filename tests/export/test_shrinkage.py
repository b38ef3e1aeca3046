"""Noise and what it adds to the claims of selected pairs, by hand and against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest

from steelyard.export.pairing import VerdictColumns, choose, measure_noise
from steelyard.export.shrinkage import NoiseSums, Shrinkage, estimate_noise


def verdicts(rows, gaps=None):
    """Verdicts from (instruction, first, second, preference); responses are numbers."""
    instruction, first, second, p = (np.array(side) for side in zip(*rows, strict=True))
    gap = np.full(len(p), np.nan) if gaps is None else np.array(gaps)
    codes = (side.astype(np.uint64) for side in (instruction, first, second))
    return VerdictColumns(*codes, p.astype(float), p.astype(float), gap)


def sums(**values):
    return NoiseSums(decided=False, **{"verdicts": 100, "square": 400.0, **values})


def test_noise_by_contradictions():
    """Variance 4, of which 60 / 60 is noise: a quarter."""
    found = estimate_noise(sums(residual=60.0, freedom=60), calibrated=False)
    assert found == Shrinkage(0.75, 1.0, 1.0, "verdicts")
    assert found.ridge == pytest.approx(2 / 3)


def test_noise_by_orders():
    """Gaps of 1 +- 1, a variance of 50 / 49; calibration halves log-odds, and so the noise."""
    given = sums(orders=50, gap=50.0, gap_square=100.0, raw_square=1600.0, cross=800.0, freedom=29)
    found = estimate_noise(given, calibrated=False)
    assert (found.source, found.signal) == ("orders", pytest.approx(1 - 50 / 49 / 4 / 4))


@pytest.mark.parametrize(
    "given",
    [
        NoiseSums(),
        sums(residual=20.0, freedom=29, orders=29),
        NoiseSums(verdicts=100, square=400.0, residual=60.0, freedom=60),  # decisions only
    ],
)
def test_noise_that_is_not_known(given):
    assert estimate_noise(given, calibrated=True) is None


def test_sums_over_verdicts():
    """Three responses whose verdicts contradict each other: x > y > z > x, all by log-odds of 1."""
    p = 1 / (1 + np.exp(-1))
    found = NoiseSums()
    measure_noise(verdicts([(1, 1, 2, p), (1, 2, 3, p), (1, 3, 1, p)], [1.0, np.nan, -3.0]), found)
    # equal strengths explain nothing of 3, and leave one degree of freedom
    assert (found.verdicts, found.freedom, found.orders) == (3, 1, 2)
    values = (found.square, found.residual, found.cross, found.raw_square)
    assert values == pytest.approx((3.0, 3.0, 3.0, 3.0))
    assert (found.gap, found.gap_square) == (-2.0, 10.0)
    assert not found.decided


def test_a_calibrated_verdict_alone_keeps_its_probability():
    shrinkage = estimate_noise(sums(residual=60.0, freedom=60), calibrated=True)
    found = choose(verdicts([(1, 1, 2, 0.8)]), "best-worst", shrinkage)
    assert found.probability == pytest.approx([0.8], abs=1e-9)
    assert found.claimed == pytest.approx([0.8])


def test_a_raw_verdict_alone_loses_its_noise():
    """ln 4 x 3/4 = 1.0397; its error has variance 3/4; over sqrt(1 + pi/8 x 3/4) it is 0.9139."""
    shrinkage = estimate_noise(sums(residual=60.0, freedom=60), calibrated=False)
    found = choose(verdicts([(1, 1, 2, 0.8)]), "best-worst", shrinkage)
    assert found.probability == pytest.approx([1 / (1 + np.exp(-0.9139))], abs=1e-4)


def test_the_posterior_of_a_tournament_is_that_of_dense_algebra():
    """Prior variance 1.5 and noise 1 are what a ridge of 2/3 stands for."""
    odds = {(1, 2): 1.0, (2, 3): 2.0, (3, 1): 0.5, (4, 1): -1.0}
    rows = [(1, a, b, 1 / (1 + np.exp(-x))) for (a, b), x in odds.items()]
    shrinkage = Shrinkage(0.75, 1.0, 1.0, "verdicts")
    found = choose(verdicts(rows), "best-worst", shrinkage)
    design = np.zeros((4, 4))
    for row, (a, b) in enumerate(odds):
        design[row, a - 1], design[row, b - 1] = 1, -1
    covariance = np.linalg.inv(design.T @ design + np.eye(4) / 1.5)
    mean = covariance @ design.T @ np.array(list(odds.values()))
    best, worst = mean.argmax(), mean.argmin()
    contrast = np.eye(4)[best] - np.eye(4)[worst]
    gap = contrast @ mean / np.sqrt(1 + np.pi / 8 * contrast @ covariance @ contrast)
    assert found.probability == pytest.approx([1 / (1 + np.exp(-gap))], abs=1e-12)


def test_selected_claims_of_noisy_verdicts_come_true():
    """The best of six by noisy log-odds: what is expected is what happens, and claims are above."""
    draw = np.random.default_rng(0)
    strength = draw.normal(0, 1, (2000, 6))
    a, b = np.triu_indices(6, 1)
    odds = strength[:, a] - strength[:, b] + draw.normal(0, 2, (2000, len(a)))
    instruction = np.repeat(np.arange(2000), len(a))
    responses = [(np.arange(2000)[:, None] * 6 + side).ravel() for side in (a, b)]
    p = 1 / (1 + np.exp(-odds.ravel()))
    given = verdicts(list(zip(instruction, *responses, p, strict=True)))
    total = NoiseSums()
    measure_noise(given, total)
    shrinkage = estimate_noise(total, calibrated=False)
    assert shrinkage.signal == pytest.approx(2 / 6, abs=0.03)  # 1 + 1 of 1 + 1 + 4
    found = choose(given, "best-worst", shrinkage)
    picked = [
        np.where(side == 0, given.first[row], given.second[row]).astype(int)
        for row, side in ((found.better, found.better_side), (found.worse, found.worse_side))
    ]
    gap = strength.ravel()[picked[0]] - strength.ravel()[picked[1]]
    truth = (1 / (1 + np.exp(-gap))).mean()
    assert found.probability.mean() == pytest.approx(truth, abs=0.01)
    assert found.claimed.mean() > truth + 0.04
