"""Gold that grows until a threshold of trust is found: how often is its promise broken?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.validity.claim import Claim
from steelyard.calibrators.abstention import (
    STARTS,
    binomial_tail,
    confidence_of,
    growth,
    lowest,
    new_wealth,
    thresholds_of,
)
from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.folds import grouped_folds
from steelyard.calibrators.looks import Asked, Looks, PairsToTest, split_gold, take_look
from steelyard.calibrators.methods import METHODS, Curve
from steelyard.core.schemas import Bool, Float64, UInt64
from steelyard.statistics.logistic import logit
from support.trust_data import JUDGES

ASKED = Asked("temperature", 0.9, 0.95)
ALLOWED = 0.05
FOUND = 0.8
LOOKS = 8
POOL = 20_000  # pairs that show how good a threshold is
# Pairs per instruction, instructions that each look adds, and the judge.
CASES = [(1, 75, "just too bad"), (1, 75, "rising"), (4, 60, "just too bad")]
GOOD = (1, 75, "good")


@dataclass(frozen=True)
class Drawn:
    """n pairs of a judge whose errors are those of whole instructions."""

    score: Float64
    right: Bool
    instructions: UInt64

    def until(self, instructions: int) -> Drawn:
        """Return the pairs of the first instructions."""
        rows = self.instructions < instructions
        return Drawn(self.score[rows], self.right[rows], self.instructions[rows])

    @property
    def features(self) -> Features:
        """What a calibrator sees."""
        return Features(self.score)

    @property
    def gold(self) -> Gold:
        """One vote per pair."""
        a = (self.score > 0) == self.right
        return Gold(np.stack([a, ~a, 0 * a], axis=1).astype(float), self.instructions.astype(int))


def draw_pairs(seed: int, instructions: int, each: int, judge: str) -> Drawn:
    draw = np.random.default_rng(seed)
    ids = np.repeat(np.arange(instructions, dtype=np.uint64), each)
    p = draw.beta(0.7, 0.7, len(ids))
    wrong = JUDGES[judge](confidence_of(p), 1 - ASKED.agreement)
    return Drawn(logit(p), draw.random(instructions)[ids] >= wrong, ids)


def simulate(draws: int) -> Iterator[Claim]:
    """Look again and again at growing gold, and stop at the first threshold."""
    for each, step, judge in CASES:
        before, after = outcomes(each, step, judge, draws)[1]
        name = f"gold grows from {step} to {LOOKS * step} instructions of {each}, {judge}"
        yield Claim(name, "broken promises", before, after, 0, ALLOWED, draws)
    each, step, judge = GOOD
    before, after = outcomes(each, step, judge, draws)[0]
    name = f"gold grows from {step} to {LOOKS * step} instructions of {each}, {judge}"
    yield Claim(name, "thresholds found", before, after, FOUND, 1, draws)


def outcomes(each: int, step: int, judge: str, draws: int) -> tuple[list[float], list[float]]:
    """Return the shares of draws with a threshold and with a broken one: afresh, and going on."""
    pool = np.random.default_rng(10**6).beta(0.7, 0.7, POOL)
    wrong = np.minimum(JUDGES[judge](confidence_of(pool), 1 - ASKED.agreement), 1)
    found, broken = np.zeros((draws, 2)), np.zeros((draws, 2))
    for seed in range(draws):
        drawn = draw_pairs(seed, LOOKS * step, each, judge)
        parts = [drawn.until(step * (look + 1)) for look in range(LOOKS)]
        for column, search in enumerate((afresh, going_on)):
            if (rule := search(parts)) is not None:
                curve, threshold = rule
                sure = confidence_of(curve.preference(Features(logit(pool)))) >= threshold
                found[seed, column] = 1
                broken[seed, column] = wrong[sure].mean() > 1 - ASKED.agreement
    return found.mean(axis=0).tolist(), broken.mean(axis=0).tolist()


def afresh(parts: list[Drawn]) -> tuple[Curve, float] | None:
    """Halve, fit and test anew at each look, as if it were the only one."""
    for seed, part in enumerate(parts):
        fit = grouped_folds(part.gold.groups, 2, seed) == 0
        curve = METHODS[ASKED.method].fit(part.features.take(fit), part.gold.take(fit))
        made = curve.preference(part.features)
        certainty, thresholds = confidence_of(made[~fit]), thresholds_of(made[fit])
        wrong, groups = ~part.right[~fit], part.gold.groups[~fit]
        level, risk = (1 - ASKED.confidence) / len(STARTS), 1 - ASKED.agreement
        wealth = new_wealth(len(thresholds))
        largest = int(part.gold.sizes.max())
        if largest > 1:
            wealth[:, 1:] += growth(
                certainty, wrong, groups, thresholds, risk=risk, largest=largest
            )
        else:
            for row, threshold in enumerate(thresholds.tolist()):
                errors = wrong[certainty >= threshold]
                wealth[row, 0] = -np.log(binomial_tail(int(errors.sum()), len(errors), risk))
        if (threshold := lowest(wealth, thresholds, level)) is not None:
            return curve, threshold
    return None


def going_on(parts: list[Drawn]) -> tuple[Curve, float] | None:
    """Go on with the test of the look before."""
    before: Looks | None = None
    curve, thresholds = METHODS["none"].fit(parts[0].features, parts[0].gold), np.empty(0)
    for seed, part in enumerate(parts):
        split = split_gold(part.gold, part.instructions, seed, before, same=True)
        if not split.kept:
            fit = split.fit
            curve = METHODS[ASKED.method].fit(part.features.take(fit), part.gold.take(fit))
            thresholds = thresholds_of(curve.preference(part.features.take(fit)))
        made = curve.preference(part.features)
        test = split.test
        pairs = PairsToTest(made[test], part.right[test], part.instructions[test])
        result, before = take_look(
            pairs, thresholds, ASKED, split=split, fitted=part.instructions[split.fit],
            largest=int(part.gold.sizes.max()), seed=seed, before=before,
        )  # fmt: skip
        if result.threshold is not None:
            return curve, result.threshold
    return None
