"""Selective prediction: trust a verdict only where its confidence is high enough.

A threshold on the confidence max(p, 1 - p) is fitted on gold, so that agreement with people above
it is at least what was asked for, at the confidence level asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from steelyard.core.schemas import Bool, Float64, Int64

STEPS = 20  # thresholds that are tested, at coverages 5%, 10%, ..., 100%
STARTS = (5, 10, 15, 20)  # steps at which a sequence of tests begins
BETS = 20  # sizes of bets, up to the largest that cannot end in debt


@dataclass(frozen=True, slots=True)
class TrustThreshold:
    """A fitted threshold; None where no threshold can keep the promise on this gold."""

    agreement: float  # asked for
    confidence: float  # of the promise
    threshold: float | None
    coverage: float  # share of gold pairs that are trusted
    observed: float | None  # agreement among them
    pairs: int  # gold pairs that it was fitted on


def confidence_of(preference: Float64) -> Float64:
    """Return max(p, 1 - p): the probability of the side that is named."""
    return np.maximum(preference, 1 - preference)


def thresholds_of(preference: Float64) -> Float64:
    """Return the thresholds to test, at coverages 5%, 10%, ..., 100% of these pairs; falling.

    They come from other gold than the gold that tests them: a threshold that is fixed beforehand
    takes the same part of every draw of gold, whatever instructions are drawn.
    """
    ranked = -np.sort(-confidence_of(preference))
    # Halfway to the next pair, so that rounding moves none across; nothing is below the last.
    between = np.append((ranked[:-1] + ranked[1:]) / 2, 0.5)
    return np.asarray(between[_ends(ranked) - 1])


def fit_trust_threshold(
    preference: Float64,
    agrees: Bool,
    groups: Int64,
    agreement: float,
    confidence: float,
    *,
    thresholds: Float64,
    largest: int,
) -> TrustThreshold:
    """Find the lowest threshold that keeps the promise, by fixed-sequence testing.

    "Agreement among the trusted is below `agreement`" is tested at one coverage after the other
    until a test does not reject (Angelopoulos et al., "Learn then test", 2021, with several
    starts; for LLM judges Jung et al., "Trust or escalate", 2024). Sequences start at a quarter, a
    half, three quarters and all of the pairs and share the level 1 - confidence: for any judge,
    the threshold breaks the promise with a probability of at most 1 - confidence over draws of
    gold.

    The instructions of gold are assumed to be independent draws from those that the promise is
    for, none of which has more pairs than `largest`. Pairs of one instruction may depend on each
    other in any way.

    Args:
        preference: n, calibrated on other gold than this.
        agrees: n, whether the verdict names what gold names; a gold tie never agrees.
        groups: n, the pairs' instructions, from 0.
        agreement: wanted, in (0, 1).
        confidence: wanted, in (0, 1).
        thresholds: falling, made from other gold (`thresholds_of`).
        largest: most pairs of an instruction; 1: the pairs are independent.
    """
    certainty = confidence_of(preference)
    level = (1 - confidence) / len(STARTS)
    tests = []
    for threshold in thresholds.tolist():
        rows = certainty >= threshold
        tests.append((threshold, p_value(~agrees[rows], groups[rows], 1 - agreement, largest)))
    passed = [
        threshold
        for start in STARTS
        for threshold, _ in takewhile(lambda test: test[1] <= level, tests[start - 1 :])
    ]
    threshold = min(passed, default=None)
    trusted = certainty >= (np.inf if threshold is None else threshold)
    return TrustThreshold(
        agreement,
        confidence,
        threshold,
        float(trusted.mean()) if len(trusted) else 0.0,
        float(agrees[trusted].mean()) if trusted.any() else None,
        len(certainty),
    )


def p_value(wrong: Bool, groups: Int64, risk: float, largest: int) -> float:
    """Return a p-value of the hypothesis that more than `risk` of such pairs are wrong.

    With one pair per instruction it is the exact binomial tail. Otherwise the pairs of an
    instruction are one observation, x = (wrong pairs - risk x pairs) / largest in
    [-risk, 1 - risk]: the share of wrong pairs is above `risk` if and only if the mean of x is
    above 0. The test bets against that (Waudby-Smith and Ramdas, "Estimating means of bounded
    random variables by betting", JRSS B 2024): under the hypothesis the wealth prod (1 - bet x)
    has an expectation of at most 1 for every bet in [0, 1 / (1 - risk)], and so has its mean over
    bets. Its inverse is a p-value (Markov), whatever the order of instructions.

    Args:
        wrong: n pairs.
        groups: n, their instructions, from 0. Those without a pair here do not change the wealth.
        risk: in (0, 1).
        largest: most pairs that any instruction has, among these or not.
    """
    if largest == 1:
        return binomial_tail(int(wrong.sum()), len(wrong), risk)
    if not len(wrong):
        return 1.0
    x = np.bincount(groups, weights=wrong - risk) / largest
    with np.errstate(divide="ignore"):  # all is lost where a bet of everything was wrong
        wealth = [np.log(np.maximum(1 - bet * x, 0)).sum() for bet in _bets(risk).tolist()]
    return min(1.0, math.exp(-_log_mean(np.array(wealth))))


def instructions_needed(sizes: Int64, agreement: float, confidence: float, largest: int) -> int:
    """Return how many instructions of these sizes prove the promise if every verdict is right."""
    level, risk = (1 - confidence) / len(STARTS), 1 - agreement
    if largest == 1:
        return math.ceil(math.log(level) / math.log(agreement))
    growth = np.array([np.log1p(bet * risk * sizes / largest).mean() for bet in _bets(risk)])
    low, high = 0, 1
    while _log_mean(high * growth) < -math.log(level):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = _log_mean(middle * growth) >= -math.log(level)
        low, high = (low, middle) if enough else (middle, high)
    return high


def _bets(risk: float) -> Float64:
    return np.arange(1, BETS + 1) / BETS / (1 - risk)


def _log_mean(logs: Float64) -> float:
    return float(np.logaddexp.reduce(logs)) - math.log(len(logs))


def binomial_tail(successes: int, trials: int, probability: float) -> float:
    """Return P(X <= successes) for a binomial X, exact up to rounding."""
    if successes >= trials:
        return 1.0
    fewer = np.arange(successes, dtype=np.float64)
    odds = math.log(probability) - math.log1p(-probability)
    steps = np.log(trials - fewer) - np.log(fewer + 1) + odds
    logs = np.concatenate([[0.0], np.cumsum(steps)]) + trials * math.log1p(-probability)
    return float(min(1.0, np.exp(np.logaddexp.reduce(logs))))


def coverage_risk(preference: Float64, agrees: Bool) -> list[dict[str, float]]:
    """Return the coverage-risk curve: per coverage, the threshold and the disagreement above it."""
    certainty = confidence_of(preference)
    order = np.argsort(-certainty, kind="stable")
    wrong = np.cumsum(~agrees[order])
    takes = np.unique(_ends(certainty[order]))
    return [
        {
            "coverage": take / len(order),
            "threshold": float(certainty[order][take - 1]),
            "risk": float(wrong[take - 1] / take),
        }
        for take in takes.tolist()
    ]


def _ends(ranked: Float64) -> Int64:
    """Return how many pairs each step trusts: of equally certain pairs all, or none.

    Few pairs give the same number twice.
    """
    takes = np.ceil(np.arange(1, STEPS + 1) / STEPS * len(ranked)).astype(np.int64)
    takes = takes[takes > 0]
    return np.searchsorted(-ranked, -ranked[takes - 1], side="right").astype(np.int64)
