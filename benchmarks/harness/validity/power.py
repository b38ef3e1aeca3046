"""Plans and paired tests: is a difference found as often as planned, and no more by chance?

`before` counts rows as independent, and uses the normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np

from harness.validity.claim import Claim
from steelyard.statistics.paired import paired_test
from steelyard.statistics.power import Spread, assumed_spread, labels_for_width, spread_of
from steelyard.statistics.prediction_powered import prediction_powered_mean
from steelyard.statistics.small_clusters import holm

POWER, LEVEL = 0.8, 0.05
DEVIATION = 0.5
Draw = Callable[[int], tuple[np.ndarray, np.ndarray]]  # instructions -> values and clusters


def simulate(draws: int) -> Iterator[Claim]:
    rng = np.random.default_rng(4)
    yield from designs(draws, rng)
    yield from pilot(draws, rng)
    for instructions in (10, 30, 200):
        yield level(draws, instructions, rng)
    yield families(draws, rng)
    yield widths(draws, rng)


def normal_p(values: np.ndarray) -> float:
    error = values.std(ddof=1) / math.sqrt(len(values))
    return 2 * NormalDist().cdf(-abs(values.mean()) / error) if error > 0 else 0.0


def finds(values: np.ndarray, cluster: np.ndarray) -> bool:
    p_value = paired_test(values, cluster).p_value
    return p_value is not None and p_value < LEVEL


def designs(draws: int, rng: np.random.Generator) -> Iterator[Claim]:
    """Plan by assumptions, then draw runs of that size with the difference in them."""
    plain = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(POWER)
    for rows, correlation, difference in ((1, 0.0, 0.06), (1, 0.0, 0.25), (6, 0.3, 0.06)):

        def drawn(
            count: int, rows: int = rows, correlation: float = correlation, gap: float = difference
        ) -> tuple[np.ndarray, np.ndarray]:
            shared = rng.standard_normal((count, 1)) * math.sqrt(correlation)
            own = rng.standard_normal((count, rows)) * math.sqrt(1 - correlation)
            return gap + DEVIATION * (shared + own).ravel(), np.repeat(np.arange(count), rows)

        needed = assumed_spread(DEVIATION, rows, correlation).for_difference(
            difference, level=1 - LEVEL, power=POWER
        )
        alone = math.ceil((plain * DEVIATION / difference) ** 2 / rows)
        found = np.mean([finds(*drawn(needed)) for _ in range(draws)])
        before = np.mean([finds(*drawn(alone)) for _ in range(draws)])
        name = f"{needed} instructions of {rows} pairs for a difference of {difference:g}"
        yield Claim(name, "found (planned: 80%)", float(before), float(found), 0.76, 0.84, draws)


def pilot(draws: int, rng: np.random.Generator) -> Iterator[Claim]:
    """Plan by a finished run of 300 instructions, each draw by another one."""

    def hard(count: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
        rates = np.clip(rng.beta(1.2, 1.2, count) + gap, 0, 1)
        values = (rng.random((count, 4)) < rates[:, None]).astype(float)
        return values.ravel() - 0.5, np.repeat(np.arange(count), 4)

    gap = 0.07
    true = float(np.clip(np.random.default_rng(0).beta(1.2, 1.2, 10**6) + gap, 0, 1).mean()) - 0.5
    found = []
    for _ in range(draws):
        spread = spread_of(*hard(300, 0.0))
        assert isinstance(spread, Spread)
        needed = spread.for_difference(true, level=1 - LEVEL, power=POWER)
        found.append(finds(*hard(needed, gap)))
    name = "planned by a run of 300 instructions with 4 hard verdicts each"
    yield Claim(name, "found (planned: 80%)", None, float(np.mean(found)), 0.76, 0.84, draws)


def level(draws: int, instructions: int, rng: np.random.Generator) -> Claim:
    """Draw two equally good judges whose log losses are skewed, and alike within instructions."""
    ours, plain = [], []
    cluster = np.repeat(np.arange(instructions), 5)
    for _ in range(draws):
        hardness = rng.gamma(2.0, 0.5, instructions)[cluster]
        shared = rng.standard_normal((instructions, 2))[cluster] * 0.5
        losses = np.exp(-hardness[:, None] + shared + 0.4 * rng.standard_normal((len(cluster), 2)))
        values = losses[:, 1] - losses[:, 0]
        ours.append(finds(values, cluster))
        plain.append(normal_p(values) < LEVEL)
    name = f"two equal judges, log loss on {instructions} instructions of 5 pairs"
    return Claim(
        name, "false findings at 5%", float(np.mean(plain)), float(np.mean(ours)), 0, LEVEL, draws
    )


def families(draws: int, rng: np.random.Generator) -> Claim:
    """Draw twenty competitors, none of whom two judges see differently."""
    ours, plain = [], []
    cluster = np.arange(40)
    for _ in range(draws):
        values = rng.standard_normal((20, 40)) * 0.2 + rng.standard_normal((1, 40)) * 0.1
        p_values = [paired_test(row, cluster).p_value or 1.0 for row in values]
        ours.append(bool((holm(np.array(p_values)) < LEVEL).any()))
        plain.append(any(normal_p(row) < LEVEL for row in values))
    return Claim(
        "two equal judges, 20 competitors", "family-wise error",
        float(np.mean(plain)), float(np.mean(ours)), 0, LEVEL, draws,
    )  # fmt: skip


def widths(draws: int, rng: np.random.Generator) -> Claim:
    """Plan labels for a width of 0.12, and see how often the interval is at most a tenth wider."""
    count, kept = 3000, []
    big = rng.random(200_000) < 0.5
    judge = np.clip(0.25 + 0.5 * big + 0.3 * rng.standard_normal(len(big)), 0, 1)
    correlation = float(np.corrcoef(big, judge)[0, 1])
    labels = labels_for_width(0.12, 0.5, correlation, count, level=0.95)
    assert labels is not None
    rows = np.arange(count)
    for _ in range(draws):
        some = rng.integers(0, len(big), count)
        known = np.where(rows < labels, big[some], np.nan)
        tuned = prediction_powered_mean(known, judge[some], rows)
        assert tuned is not None
        lower, upper = tuned.interval()
        kept.append(upper - lower <= 1.1 * 0.12)
    name = f"{labels} labels planned for a corrected interval of 0.12"
    return Claim(name, "at most a tenth wider", None, float(np.mean(kept)), 0.9, 1, draws)
