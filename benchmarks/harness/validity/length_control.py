"""Win rates at equal length: intervals, and no number where there is nothing to rest it on.

Before: the same regression, with the error of its coefficients alone, and a number in any case.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.validity.claim import Claim
from steelyard.ranking.length_control import (
    BASELINE_WEIGHT,
    LEARNABLE,
    learned_difficulty,
    others_mean,
)
from steelyard.ranking.length_slope import length_feature, length_slope
from steelyard.ranking.win_rates import BaselineComparisons, win_rates
from steelyard.statistics.clusters import cluster_sums, clustered_covariance
from steelyard.statistics.logistic import fit, sigmoid

SPREAD = 600.0  # characters, of most competitors' differences
INSTRUCTIONS = 150
HARD, NOISE = 1.5, 0.5  # log-odds: how far instructions differ, and verdicts on one
POPULATION = np.random.default_rng(0).normal(
    0, np.hypot(HARD, NOISE), 50_000
)  # of all instructions


def simulate(draws: int) -> Iterator[Claim]:
    """Draw competitors whose lengths cross the baseline's, then what cannot be determined."""
    for slope in (-1.0, 0.0, 1.25, 2.0):
        for learned in (False, True):
            yield _coverage(slope, draws, learned=learned)
    for name, (slope, others, focal) in UNDETERMINED.items():
        yield _wrong_numbers(name, slope, others, focal, draws)


def _coverage(slope, draws, *, learned):
    rng, before, after, count = np.random.default_rng([7, learned]), 0, 0, 0
    for _ in range(draws):
        shifts = rng.normal(0, 0.6, 4) * SPREAD
        difference = [rng.normal(shift, SPREAD, INSTRUCTIONS) for shift in shifts]
        hard = rng.normal(size=INSTRUCTIONS)
        truth, rows = _verdicts(rng, difference, hard, slope, learned=learned)
        for rate in win_rates(rows):
            if rate.length_controlled is None:
                continue
            code = int(rate.competitor)
            low, high = _plain(rows, code)
            before += low <= truth[code] <= high
            low, high = rate.length_controlled.interval()
            after += low <= truth[code] <= high
            count += 1
    kind = "learned" if learned else "given"
    name = f"equal length, slope {slope:g}, difficulties {kind}"
    return Claim(name, "coverage", before / count, after / count, 0.93, 0.97, draws)


# slope of the judge, number of others, lengths of an equally good competitor
UNDETERMINED = {
    "always a little longer": (3.0, 3, lambda rng, hard: rng.normal(60, 12, len(hard))),
    "always longer": (1.25, 3, lambda rng, hard: rng.normal(600, 150, len(hard))),
    # longer where it is better: on easy instructions
    "alone": (1.25, 0, lambda rng, hard: 500 + 450 * hard + rng.normal(0, 200, len(hard))),
    "length decides": (60.0, 3, lambda rng, hard: rng.normal(300, 600, len(hard))),
}


def _wrong_numbers(name, slope, others, focal, draws):
    rng, before, after = np.random.default_rng(11), 0, 0
    for _ in range(draws):
        hard = rng.normal(size=INSTRUCTIONS)
        difference = [focal(rng, hard), *rng.normal(0, SPREAD, (others, INSTRUCTIONS))]
        truth, rows = _verdicts(
            rng, difference, hard, slope, learned=True, turn=90.0 * (slope > 10)
        )
        low, high = _plain(rows, 0)
        before += not low <= truth[0] <= high
        held = next(r for r in win_rates(rows) if r.competitor == "0").length_controlled
        low, high = held.interval() if held else (0.0, 1.0)
        after += not low <= truth[0] <= high
    title = f"equal length, {name}"
    return Claim(title, "wrong numbers", before / draws, after / draws, 0, 0.05, draws)


def _verdicts(rng, difference, hard, slope, *, learned, turn=0.0):
    """Return truths at equal length, and soft verdicts; competitor 0 equals the baseline.

    The judge weighs characters; where it weighs those of competitor 0, it turns at `turn` of them.
    """
    size, count = len(difference), len(hard)
    quality = np.append(0.0, rng.normal(0, 0.5, size - 1))
    code, cluster = np.repeat(np.arange(size), count), np.tile(np.arange(count), size)
    characters = np.concatenate(difference)
    length = np.tanh((characters - turn * (code == 0)) / SPREAD)
    odds = quality[code] + HARD * hard[cluster] + slope * length
    y = sigmoid(odds + rng.normal(0, NOISE, len(odds)))
    rows = BaselineComparisons(
        tuple(map(str, range(size))), code, y, cluster, np.ones(len(y)), characters,
        None if learned else HARD * hard[cluster], {},
    )  # fmt: skip
    quality[0] += slope * np.tanh(-turn / SPREAD)
    return [float(sigmoid(q + POPULATION).mean()) for q in quality], rows


def _plain(rows, code):
    """Return the interval that version 0.1 gave: delta method on the coefficients, normal."""
    difficulty, own = rows.difficulty, [np.ones(len(rows.code))]
    length = np.zeros(len(rows.code))
    for k in range(len(rows.competitor)):
        length[rows.code == k] = length_feature(rows.length[rows.code == k])
    if difficulty is None and len(rows.competitor) >= LEARNABLE:
        difficulty = learned_difficulty(rows.preference, rows.code, rows.cluster)
        own.append(others_mean(length, rows.code, rows.cluster))
    if difficulty is not None:
        own.append(difficulty)
    slope = length_slope(
        rows.preference, length, np.stack(own, axis=1), rows.code, cluster=rows.cluster
    )
    mine = rows.code == code
    columns = [length[mine], np.ones(mine.sum())]
    if difficulty is not None:
        columns.append(difficulty[mine])
    x, cluster = np.stack(columns, axis=1), rows.cluster[mine]
    twin = x * np.array([1.0, 0.0, 1.0])[: x.shape[1]]
    itself = sigmoid(slope.value * x[:, 0])
    weight = np.append(np.ones(len(x)), np.full(len(x), BASELINE_WEIGHT))
    both = np.append(cluster, cluster)
    fitted = fit(
        np.vstack([x, twin]), np.append(rows.preference[mine], itself), weight, both,
        np.full(x.shape[1], 1e-9),
    )  # fmt: skip
    pull = twin.T @ (BASELINE_WEIGHT * itself * (1 - itself) * x[:, 0])
    scores = cluster_sums(fitted.scores, both, len(slope.influence))
    scores += slope.influence[:, None] * pull
    equal = x * np.array([0.0, 1.0, 1.0])[: x.shape[1]]
    p = sigmoid(equal @ fitted.coefficients)
    along = fitted.inverse @ ((p * (1 - p)) @ equal / len(p))
    variance = clustered_covariance((scores @ along)[:, None], len(x))[0, 0]
    variance += slope.unknown * (pull @ along) ** 2
    rate = p.mean()
    odds, margin = np.log(rate / (1 - rate)), 1.959964 * np.sqrt(variance) / (rate * (1 - rate))
    return sigmoid(np.array(odds - margin)), sigmoid(np.array(odds + margin))
