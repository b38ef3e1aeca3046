"""Intervals of shares, agreement, kappa and AUC, which stay in range and are never of zero width.

The standard error is the jackknife over groups of instructions (Efron and Stein, Annals of
Statistics 9, 1981): every metric is a formula over sums, so leaving out a group is a subtraction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Float64
from steelyard.evaluation.metrics import formulas
from steelyard.evaluation.metrics.sums import block
from steelyard.statistics.clusters import MIN_FOR_INTERVAL
from steelyard.statistics.intervals import (
    NO_SPREAD,
    rate_interval,
    rests_on_count,
    t_quantile,
)
from steelyard.statistics.logistic import logit, sigmoid

Column = Callable[[Float64], Float64]
Spread = tuple[float, float]  # standard error, and effective number of groups


@dataclass(frozen=True, slots=True)
class Bounds:
    """An interval; None: too few groups, or a metric that one of them alone defines."""

    low: float | None = None
    high: float | None = None
    rests_on_count: bool = False  # on the number of groups, as their spread says nothing


def _number(name: str) -> Column:
    return lambda sums: block(sums, name)[..., 0]


def _rarer(sums: Float64) -> Float64:
    """Return the pairs of each group of the gold side that fewer groups have."""
    sides = block(sums, "auc")[..., (0, 2)]
    return np.asarray(sides[..., np.argmin((sides > 0).sum(axis=0))])


# How many pairs of a group count for a metric in [0, 1].
RATES: dict[str, Column] = {
    "mse": _number("squared"),
    "agreement": _number("pairs"),
    "decided_agreement": lambda sums: block(sums, "confusion")[..., (0, 1, 3, 4)].sum(axis=-1),
    "vote_agreement": _number("vote_share"),
    "macro_f1": _number("pairs"),
    "share_a": _number("binary"),
    "brier": _number("brier"),
    "both_orders": _number("both_orders"),
    "consistency": _number("consistent"),
    "mean_deviation": _number("deviation"),
    "first_position": _number("first"),
    "longer_preferred": _number("longer"),
    "longer_gold": _number("longer_gold"),
    "mass_shortfall": _number("shortfall"),
    "annotator_agreement": _number("annotators"),
}
LOSSES = {"vote_log_loss": _number("vote_loss"), "log_loss": _number("log_loss")}  # from 0 on
# Agreement beyond chance: the agreement, chance, and how many pairs count.
KAPPAS = {
    "kappa": (formulas.agreement, formulas.chance, _number("pairs")),
    "fleiss_kappa": (
        formulas.METRICS["annotator_agreement"], formulas.annotators_chance, _number("annotators"),
    ),
}  # fmt: skip


def bounds(name: str, sums: Float64) -> Bounds | None:
    """Return the 95% interval of a metric of sums by group [G, WIDTH]; None: not one of these."""
    metric, total = formulas.METRICS[name], sums.sum(axis=0)

    def spread(column: Column) -> Spread | None:
        counted = column(sums)
        used = counted > 0
        return _jackknife(metric(total - sums[used]), counted[used])

    if name in RATES:
        return _of_rate(float(metric(total)), spread(RATES[name]))
    if name in KAPPAS:
        agreement, by_chance, column = KAPPAS[name]
        return _of_kappa(float(agreement(total)), float(by_chance(total)), spread(column))
    if name == "auc":
        return _of_area(float(metric(total)), spread(_number("pairs")), _effective(_rarer(sums)))
    if name in LOSSES:
        return _of_loss(float(metric(total)), spread(LOSSES[name]))
    return None


def share_bounds(number: Float64, total: Float64) -> Bounds:
    """Return the 95% interval of a share, from numbers [G] and what has a property of them [G]."""
    used = number > 0
    left = number.sum() - number[used]
    without = (total.sum() - total[used]) / np.where(left > 0, left, np.nan)
    spread = _jackknife(without, number[used])
    return _of_rate(float(total.sum() / number.sum()), spread) if spread else Bounds()


def _jackknife(without: Float64, counted: Float64) -> Spread | None:
    """Return the standard error, and the effective number of groups.

    Args:
        without: [G], the metric without each group.
        counted: [G], its pairs.
    """
    groups = len(without)
    if groups < MIN_FOR_INTERVAL or not np.isfinite(without).all():
        return None
    variance = (groups - 1) / groups * ((without - without.mean()) ** 2).sum()
    return math.sqrt(variance), _effective(counted)


def _effective(counted: Float64) -> float:
    return float(counted.sum() ** 2 / (counted**2).sum())


def _of_rate(rate: float, spread: Spread | None) -> Bounds:
    if spread is None:
        return Bounds()
    error, effective = spread
    return Bounds(*rate_interval(rate, error, effective), rests_on_count(rate, error, effective))


def _of_kappa(agreement: float, chance: float, spread: Spread | None) -> Bounds:
    """Scale the interval of the agreement that kappa's standard error implies."""
    if spread is None:
        return Bounds()
    above = 1 - chance
    raw = agreement, spread[0] * above, spread[1]
    low, high = (max((end - chance) / above, -1.0) for end in rate_interval(*raw))
    return Bounds(low, high, rests_on_count(*raw))


def _of_area(area: float, spread: Spread | None, rarer: float) -> Bounds:
    """Return an interval that is symmetric in log-odds; of a share of groups where that fails."""
    if spread is None:
        return Bounds()
    error, effective = spread
    if error <= NO_SPREAD or not 0 < area < 1:
        return Bounds(*rate_interval(area, error, rarer), rests_on_count=True)
    margin = t_quantile(0.95, effective - 1) * error / (area * (1 - area))
    low, high = sigmoid(logit(np.array(area)) + np.array([-margin, margin])).tolist()
    return Bounds(low, high)


def _of_loss(loss: float, spread: Spread | None) -> Bounds:
    if spread is None or spread[0] <= NO_SPREAD:
        return Bounds()
    margin = t_quantile(0.95, spread[1] - 1) * spread[0]
    return Bounds(max(loss - margin, 0.0), loss + margin)
