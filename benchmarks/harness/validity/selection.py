"""Best against worst of several responses: is the chosen one better as often as is claimed?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from harness.validity.claim import Claim
from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.methods import METHODS
from steelyard.export.pairing import Chosen, VerdictColumns, choose, measure_noise
from steelyard.export.shrinkage import NoiseSums, estimate_noise
from steelyard.statistics.logistic import logit, sigmoid

INSTRUCTIONS, RESPONSES, GOLD_PAIRS = 400, 6, 4000
CLOSE = 0.04  # a claim holds if its mean is this close to the truth
# Name -> (who meets whom, deviation of a verdict's noise, of that of each order, calibrated).
JUDGES = {
    "raw, all pairs": (tuple(combinations(range(RESPONSES), 2)), 2.0, 0.0, False),
    "raw, against a baseline": (tuple((i, 0) for i in range(1, RESPONSES)), 0.0, 2.0, False),
    "calibrated, all pairs": (tuple(combinations(range(RESPONSES), 2)), 2.0, 0.0, True),
    "calibrated, against a baseline": (tuple((i, 0) for i in range(1, RESPONSES)), 0.0, 2.8, True),
}


def simulate(draws: int) -> Iterator[Claim]:
    """Count the draws in which selected pairs are not right as often as their probabilities say."""
    for name, (met, noise, by_order, calibrated) in JUDGES.items():
        off = np.zeros(2)
        for seed in range(draws):
            judged, strength = _judged(
                np.random.default_rng(seed), met, noise, by_order, calibrated=calibrated
            )
            sums = NoiseSums()
            measure_noise(judged, sums)
            shrinkage = estimate_noise(sums, calibrated=calibrated)
            for after in (0, 1):
                chosen = choose(judged, "best-worst", shrinkage if after else None)
                claim = chosen.probability.mean()
                off[after] += abs(claim - _truth(judged, chosen, strength)) > CLOSE
        before, after = (float(share) for share in off / draws)
        title = f"best of {RESPONSES} against worst, {name}"
        yield Claim(title, f"claims off by over {CLOSE:.0%}", before, after, 0, 0.05, draws)


def _judged(
    draw: np.random.Generator,
    met: tuple[tuple[int, int], ...],
    noise: float,
    by_order: float,
    *,
    calibrated: bool,
) -> tuple[VerdictColumns, np.ndarray]:
    """Return verdicts, and the strengths of responses by their number."""
    a, b = np.array(met).T
    strength = draw.normal(0, 1, (INSTRUCTIONS, RESPONSES))
    first, second = (np.arange(INSTRUCTIONS)[:, None] * RESPONSES + side for side in (a, b))
    raw, gap = _read(draw, strength[:, a] - strength[:, b], noise, by_order)
    preference = sigmoid(raw)
    if calibrated:
        theirs = draw.normal(0, 1, (GOLD_PAIRS, 2)) @ (1, -1)
        score, _ = _read(draw, theirs, noise, by_order)
        won = (draw.random(GOLD_PAIRS) < sigmoid(theirs)).astype(np.float64)
        votes = np.stack([won, 1 - won, np.zeros(GOLD_PAIRS)], axis=1)
        curve = METHODS["platt"].fit(Features(score), Gold(votes, np.arange(GOLD_PAIRS)))
        preference = curve.preference(Features(logit(preference).ravel())).reshape(raw.shape)
    instruction = np.repeat(np.arange(INSTRUCTIONS, dtype=np.uint64), len(met))
    sides = (side.ravel().astype(np.uint64) for side in (first, second))
    columns = (values.ravel() for values in (preference, sigmoid(raw), gap))
    return VerdictColumns(instruction, *sides, *columns), strength.ravel()


def _read(
    draw: np.random.Generator, truth: np.ndarray, noise: float, by_order: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the logits of both orders, and half of their difference."""
    base = truth + draw.normal(0, noise, truth.shape)
    ab, ba = (base + draw.normal(0, by_order, truth.shape) for _ in range(2))
    return (ab + ba) / 2, (ab - ba) / 2


def _truth(judged: VerdictColumns, chosen: Chosen, strength: np.ndarray) -> float:
    """Return how often people prefer the better response of the chosen pairs."""
    better, worse = (
        np.where(side == 0, judged.first[row], judged.second[row]).astype(np.int64)
        for row, side in (
            (chosen.better, chosen.better_side),
            (chosen.worse, chosen.worse_side),
        )
    )
    return float(sigmoid(strength[better] - strength[worse]).mean())
