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
ROUNDING = 1e-9  # what is won covers what rounding takes off
FIRST_SHARE = 0.75  # of the level for the first rule


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
    """Find the lowest threshold that keeps the promise at a first look at gold.

    "Agreement among the trusted is below `agreement`" is tested at one coverage after the other
    until a test does not reject (Angelopoulos et al., "Learn then test", 2021, with several
    starts; for LLM judges Jung et al., "Trust or escalate", 2024). Sequences start at a quarter, a
    half, three quarters and all of the pairs and share the level: for any judge, the threshold
    breaks the promise with a probability of at most 1 - confidence over draws of gold, however
    often gold grows and is looked at again (`looks`).

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
    level, certainty = level_of(confidence, 0), confidence_of(preference)
    wrong, risk = ~agrees, 1 - agreement
    wealth = first_wealth(certainty, wrong, thresholds, risk=risk, level=level, largest=largest)
    wealth[:, 1:] += growth(certainty, wrong, groups, thresholds, risk=risk, largest=largest)
    threshold = lowest(wealth, thresholds, level)
    return describe_threshold(preference, agrees, agreement, confidence, threshold)


def describe_threshold(
    preference: Float64, agrees: Bool, agreement: float, confidence: float, threshold: float | None
) -> TrustThreshold:
    """Return a threshold with its coverage and agreement on n pairs."""
    trusted = confidence_of(preference) >= (np.inf if threshold is None else threshold)
    return TrustThreshold(
        agreement,
        confidence,
        threshold,
        float(trusted.mean()) if len(trusted) else 0.0,
        float(agrees[trusted].mean()) if trusted.any() else None,
        len(preference),
    )


def level_of(confidence: float, rule: int) -> float:
    """Return the level at which each sequence of tests of a rule, counted from 0, rejects.

    Later rules have 1/2, 1/6, 1/12, ... of what the first leaves, which sum up to all of it.
    """
    share = (1 - FIRST_SHARE) / (rule * (rule + 1)) if rule else FIRST_SHARE
    return (1 - confidence) * share / len(STARTS)


def new_wealth(thresholds: int) -> Float64:
    """Return the logs [T, 1 + BETS] of what is staked on each threshold: 1, on bets alone."""
    wealth = np.full((thresholds, 1 + BETS), -math.log(BETS))
    wealth[:, 0] = -np.inf
    return wealth


def first_wealth(
    certainty: Float64,
    wrong: Bool,
    thresholds: Float64,
    *,
    risk: float,
    level: float,
    largest: int,
) -> Float64:
    """Return `new_wealth` for a first look, the exact test of which may have been won.

    With one pair per instruction, half is staked on the exact binomial test at half the level. If
    it rejects, it pays 2 / level, just enough to reject for good. No later look has such a test:
    its number of pairs may follow from what was seen before.
    """
    wealth = new_wealth(len(thresholds))
    if largest == 1:
        wealth -= math.log(2)
        for row, threshold in enumerate(thresholds.tolist()):
            errors = wrong[certainty >= threshold]
            if binomial_tail(int(errors.sum()), len(errors), risk) <= level / 2:
                wealth[row, 0] = -math.log(level) + ROUNDING
    return wealth


def growth(
    certainty: Float64,
    wrong: Bool,
    groups: Int64,
    thresholds: Float64,
    *,
    risk: float,
    largest: int,
) -> Float64:
    """Return the logs [T, BETS] of how n pairs multiply each bet on each threshold.

    The pairs of an instruction are one observation, x = (wrong pairs - risk x pairs) / largest in
    [-risk, 1 - risk]: the share of wrong pairs is above `risk` if and only if the mean of x is
    above 0. The test bets against that (Waudby-Smith and Ramdas, "Estimating means of bounded
    random variables by betting", JRSS B 2024): under the hypothesis the product of 1 - bet x over
    instructions has an expectation of at most 1 for every bet in [0, 1 / (1 - risk)], and stays
    below 1 / level for ever with a probability of 1 - level at least (Ville 1939), whatever comes
    after another and whenever one stops.

    Args:
        certainty: n.
        wrong: n.
        groups: n, their instructions, from 0. Those without a trusted pair change nothing.
        thresholds: T.
        risk: in (0, 1).
        largest: most pairs that any instruction has, among these or not.
    """
    logs = np.zeros((len(thresholds), BETS))
    for row, threshold in enumerate(thresholds.tolist()):
        rows = certainty >= threshold
        if rows.any():
            x = np.bincount(groups[rows], weights=wrong[rows] - risk) / largest
            x, times = np.unique(x, return_counts=True)
            with np.errstate(divide="ignore"):  # all is lost where a bet of everything was wrong
                logs[row] = np.log(np.maximum(1 - np.outer(_bets(risk), x), 0)) @ times
    return logs


def lowest(wealth: Float64, thresholds: Float64, level: float) -> float | None:
    """Return the lowest threshold that a sequence of tests reaches; None if none does.

    `wealth` [T, 1 + BETS] are logs, `thresholds` [T] fall; a test rejects if the sum of its wealth
    is 1 / level.
    """
    rejects = np.logaddexp.reduce(wealth, axis=1) >= -math.log(level)
    passed = [
        threshold
        for start in STARTS
        for threshold, _ in takewhile(
            lambda test: test[1],
            zip(thresholds[start - 1 :].tolist(), rejects[start - 1 :], strict=True),
        )
    ]
    return min(passed, default=None)


def instructions_needed(sizes: Int64, agreement: float, confidence: float, largest: int) -> int:
    """Return how many instructions of these sizes prove the promise if every verdict is right."""
    level, risk = level_of(confidence, 0), 1 - agreement
    if largest == 1:
        return math.ceil(math.log(level / 2) / math.log(agreement))
    rates = np.array([np.log1p(bet * risk * sizes / largest).mean() for bet in _bets(risk)])
    low, high = 0, 1
    while _log_mean(high * rates) < -math.log(level):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = _log_mean(middle * rates) >= -math.log(level)
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
