"""An ensemble weighted by gold: is it worse than its best judge, or than equal weights?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.validity.claim import Claim
from steelyard.calibrators.features import Features, Gold, Member
from steelyard.calibrators.methods import METHODS, Curve
from steelyard.statistics.logistic import log_loss, sigmoid

LATER_PAIRS, EACH = 2000, 2  # pairs that losses are measured on; pairs per instruction
PANELS = {  # what judges see of the truth, and the deviation of their noise
    "three alike": ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    "one good, two guess": ((1.0, 0.0, 0.0), (0.7, 2.0, 2.0)),
    "good, mediocre, loud": ((1.0, 0.6, 0.2), (0.5, 1.5, 3.0)),
}
SIZES = {200: 0.02, 1000: 0.005}  # pairs of gold, and nats that a fit to them may cost
ALLOWED = 0.05  # share of draws in which it costs more


def simulate(draws: int) -> Iterator[Claim]:
    """Count the draws in which held-out log loss is above that of equal weights or the best judge.

    Truth is known, so losses are expected ones. The best judge is the one that is best on the pairs
    that losses are measured on, which nobody can know. `before` are equal weights, calibrated.
    """
    for name, (slopes, noise) in PANELS.items():
        for pairs, tolerance in SIZES.items():
            worse = np.zeros(2)
            for seed in range(draws):
                draw = np.random.default_rng(seed)
                worse += _behind(draw, pairs, slopes, noise) > tolerance
            before, after = (float(share) for share in worse / draws)
            yield Claim(
                f"stacked judges, {name}, {pairs:,} pairs of gold",
                f"log loss over {tolerance:g} above the best simple way",
                before, after, 0, ALLOWED, draws,
            )  # fmt: skip


def _behind(
    draw: np.random.Generator, pairs: int, slopes: tuple[float, ...], noise: tuple[float, ...]
) -> np.ndarray:
    """Return by how much equal weights and stacked ones are worse than the best simple way."""
    features, judges, truth = _read(draw, pairs, slopes, noise)
    a = (draw.random(pairs) < sigmoid(truth)).astype(np.float64)
    gold = Gold(np.stack([a, 1 - a, np.zeros(pairs)], axis=1), np.arange(pairs) // EACH)
    later, later_judges, later_truth = _read(draw, LATER_PAIRS, slopes, noise)
    target = sigmoid(later_truth)

    def loss(curve: Curve, reads: Features) -> float:
        return float(log_loss(curve.preference(reads), target).mean())

    fit = METHODS["platt"].fit
    equal = loss(fit(features, gold), later)
    alone = [loss(fit(x, gold), y) for x, y in zip(judges, later_judges, strict=True)]
    stacked = loss(METHODS["stacked"].fit(features, gold), later)
    best = min(equal, *alone)
    return np.array([equal - best, stacked - best])


def _read(
    draw: np.random.Generator, pairs: int, slopes: tuple[float, ...], noise: tuple[float, ...]
) -> tuple[Features, list[Features], np.ndarray]:
    """Return the reads of all judges, of each alone, and people's logits.

    Errors have a part that all judges share; the second order is noisier, and each order is biased.
    """
    truth, shared = draw.normal(0, 1.5, pairs), 0.5 * draw.normal(0, 1, pairs)
    members: dict[Member, np.ndarray] = {}
    means = []
    for number, (slope, deviation) in enumerate(zip(slopes, noise, strict=True), 1):
        seen = slope * truth + shared
        ab = seen + 0.5 + draw.normal(0, 0.7 * deviation, pairs)
        ba = seen - 0.5 + draw.normal(0, 1.3 * deviation, pairs)
        members |= {Member(number, "logit_ab"): ab, Member(number, "logit_ba"): ba}
        means.append((ab + ba) / 2)
    score = np.mean(means, axis=0)
    return Features(score, members=members), [Features(x) for x in means], truth
