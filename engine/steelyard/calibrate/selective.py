"""Selective judging: trust a verdict only where enough of its like agree with people.

A threshold on the confidence max(p, 1 - p) is fitted on gold, so that agreement above it is at
least what was asked for, at the confidence level asked for.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from steelyard.records import Bool, Float64, Int64

STEPS = 20  # thresholds that are tried, at coverages 5%, 10%, ..., 100%
STARTS = (5, 10, 15, 20)  # steps at which a sequence of tests begins


@dataclass(frozen=True, slots=True)
class Selective:
    """A fitted threshold; None where no threshold can keep the promise on this gold."""

    agreement: float  # asked for
    confidence: float  # of the promise
    threshold: float | None
    coverage: float  # share of gold pairs that are trusted
    observed: float | None  # agreement among them
    pairs: int  # gold pairs that it was fitted on

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def confidence_of(preference: Float64) -> Float64:
    """max(p, 1 - p): the probability of the side that is named."""
    return np.maximum(preference, 1 - preference)


def fit_threshold(
    preference: Float64, agrees: Bool, groups: Int64, agreement: float, confidence: float
) -> Selective:
    """The lowest threshold that keeps the promise, by fixed-sequence testing.

    "Agreement among the trusted is below `agreement`" is tested with an exact binomial tail, at
    one coverage after the other until a test does not reject (Angelopoulos et al., "Learn then
    test", 2021, with several starts; for LLM judges Jung et al., "Trust or escalate", 2024).
    Sequences start at a quarter, a half, three quarters and all of the pairs and share the level
    1 - confidence: whatever the judge is like, the threshold breaks the promise with a probability
    of at most 1 - confidence over draws of the gold pairs. Where instructions have several pairs,
    counts are divided by the design effect (Korn and Graubard, 1998), which is approximate.

    Args:
        preference: n, calibrated on other gold than this.
        agrees: n, whether the verdict names what gold names; a gold tie never agrees.
        groups: n, the pairs' instructions.
        agreement: wanted, in (0, 1).
        confidence: wanted, in (0, 1).
    """
    certainty = confidence_of(preference)
    order = np.argsort(-certainty, kind="stable")
    ranked, wrong, group = certainty[order], ~agrees[order], groups[order]
    ends = _ends(ranked, _steps(len(ranked))).tolist()
    level = (1 - confidence) / len(STARTS)
    found = 0
    for start in STARTS:
        for take in ends[start - 1 :]:
            effect = design_effect(wrong[:take], group[:take])
            missed = math.ceil(int(wrong[:take].sum()) / effect)
            if binomial_tail(missed, math.floor(take / effect), 1 - agreement) > level:
                break
            found = max(found, take)
    return Selective(
        agreement,
        confidence,
        _between(ranked, found) if found else None,
        found / len(ranked) if len(ranked) else 0.0,
        float(1 - wrong[:found].mean()) if found else None,
        len(ranked),
    )


def binomial_tail(successes: int, trials: int, probability: float) -> float:
    """P(X <= successes) for X binomial; exact up to rounding."""
    if successes >= trials:
        return 1.0
    at = np.arange(successes, dtype=np.float64)
    odds = math.log(probability) - math.log1p(-probability)
    steps = np.log(trials - at) - np.log(at + 1) + odds
    logs = np.concatenate([[0.0], np.cumsum(steps)]) + trials * math.log1p(-probability)
    return float(min(1.0, np.exp(np.logaddexp.reduce(logs))))


def design_effect(wrong: Bool, groups: Int64) -> float:
    """Variance of a share over groups against that of independent rows, at least 1."""
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n, share = len(wrong), float(wrong.mean()) if len(wrong) else 0.0
    if len(sizes) == n:
        return 1.0
    kish = float(np.sum(sizes.astype(np.float64) ** 2) / n)  # full dependence: nothing else known
    if share in {0.0, 1.0} or len(sizes) < 2:
        return kish
    sums = np.bincount(inverse, weights=wrong - share)
    spread = float(np.sum(sums**2)) * len(sizes) / (len(sizes) - 1)
    return min(max(1.0, spread / (n * share * (1 - share))), kish)


def coverage_risk(preference: Float64, agrees: Bool) -> list[dict[str, float]]:
    """The coverage-risk curve: at each coverage, the threshold and the disagreement above it."""
    certainty = confidence_of(preference)
    order = np.argsort(-certainty, kind="stable")
    wrong = np.cumsum(~agrees[order])
    takes = np.unique(_ends(certainty[order], _steps(len(order))))
    return [
        {
            "coverage": take / len(order),
            "threshold": float(certainty[order][take - 1]),
            "risk": float(wrong[take - 1] / take),
        }
        for take in takes.tolist()
    ]


def _steps(count: int) -> Int64:
    """How many pairs are trusted at each step; the same number twice where there are few."""
    return np.ceil(np.arange(1, STEPS + 1) / STEPS * count).astype(np.int64)


def _ends(ranked: Float64, takes: Int64) -> Int64:
    """Each count moved on to the end of pairs that are equally certain: all of them or none."""
    takes = takes[takes > 0]
    return np.searchsorted(-ranked, -ranked[takes - 1], side="right").astype(np.int64)


def _between(ranked: Float64, take: int) -> float:
    """A threshold halfway to the next pair, so that rounding moves none over it."""
    if take == len(ranked):
        return float(ranked[-1])
    return float((ranked[take - 1] + ranked[take]) / 2)
