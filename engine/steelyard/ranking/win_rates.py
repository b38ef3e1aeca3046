"""How often each competitor beats a baseline, raw and with length or style held equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from steelyard.core.schemas import Bool, Float64
from steelyard.ranking.length_control import (
    LEARNABLE,
    Controlled,
    learned_difficulty,
    length_controlled,
    others_mean,
    style_controlled,
)
from steelyard.ranking.length_slope import Slope, length_feature, length_slope
from steelyard.statistics.clusters import Codes
from steelyard.statistics.logistic import FitFailed
from steelyard.statistics.means import Mean, decided, mean

FEW_CROSS = 0.05  # of rows not longer, or not shorter: with fewer, equal length was hardly seen


@dataclass(frozen=True, slots=True)
class BaselineComparisons:
    """Comparisons with a baseline; columns of length n, seen from the competitor's side."""

    competitor: tuple[str, ...]  # names
    code: Codes  # into `competitor`
    preference: Float64  # P(the competitor is better) + half of P(tie)
    cluster: Codes
    weight: Float64  # or empty
    length: Float64 | None  # characters, the competitor's less the baseline's
    difficulty: Float64 | None
    baseline_length: Float64 | None  # characters, where `length` is known
    style: Mapping[str, Float64]  # feature -> (a - b) / (a + b)


@dataclass(frozen=True, slots=True)
class WinRate:
    """One competitor against the baseline; rates in [0, 1]."""

    competitor: str
    win_rate: Mean
    discrete: float
    difference: float | None  # mean difference of lengths, in characters
    one_sided: bool  # whether it is (nearly) always longer, or always shorter: see FEW_CROSS
    length_controlled: Controlled | None
    style_controlled: Controlled | None
    problem: str | None  # why a controlled rate is missing though its columns are there


def win_rates(rows: BaselineComparisons) -> list[WinRate]:
    """Win rates of all competitors, the best first (by length-controlled rate where there is one).

    Without a given difficulty, that of an instruction is learned from the other competitors'
    preferences on it; where these are too few, the baseline's length stands in. A regression
    without a maximum, as where one side wins always, leaves that competitor's controlled rate out
    and says so.
    """
    difficulty, slope = rows.difficulty, None
    if (length := rows.length) is not None and len(rows.code):
        _, codes = np.unique(rows.cluster, return_inverse=True)
        rows = replace(rows, cluster=codes)
        if difficulty is None:
            difficulty = learned_difficulty(rows.preference, rows.code, rows.cluster)
        if difficulty is None:
            difficulty = _baseline_length_proxy(rows)
        slope = _slope(rows, length, difficulty)
    found = [_one(rows, difficulty, slope, at) for at in range(len(rows.competitor))]
    return sorted(found, key=sort_key)


def _baseline_length_proxy(rows: BaselineComparisons) -> Float64 | None:
    """The baseline's length, standardised: instructions ask for more or less, hard ones for more.

    Without it what an instruction is like would count as length: a short answer of the baseline
    makes every competitor the longer one.
    """
    length = rows.baseline_length
    if length is None or not length.std() > 0:
        return None
    return np.asarray((length - length.mean()) / length.std())


def _slope(rows: BaselineComparisons, difference: Float64, difficulty: Float64 | None) -> Slope:
    """What length is worth to the judge, from all competitors' rows."""
    length = np.zeros(len(difference))
    for at in range(len(rows.competitor)):
        mine = rows.code == at
        length[mine] = length_feature(difference[mine])
    own = [np.ones(len(length))]
    if difficulty is not None:
        own.append(difficulty)
        if rows.difficulty is None and len(rows.competitor) >= LEARNABLE:
            # Who faces a short answer is longer than it and wins more, and so are the others: a
            # learned difficulty holds their length too, and would take the slope for itself.
            own.append(others_mean(length, rows.code, rows.cluster))
    return length_slope(
        rows.preference, length, np.stack(own, axis=1), rows.code,
        cluster=rows.cluster, weight=rows.weight,
    )  # fmt: skip


def sort_key(one: WinRate) -> float:
    """What win rates are sorted by."""
    return -(one.length_controlled.win_rate if one.length_controlled else one.win_rate.value)


def _one(
    rows: BaselineComparisons, difficulty: Float64 | None, slope: Slope | None, at: int
) -> WinRate:
    mine = rows.code == at
    y, cluster = rows.preference[mine], rows.cluster[mine]
    weight = rows.weight[mine] if len(rows.weight) else None
    by_length = by_style = problem = None
    try:
        if rows.length is not None and len(y) > 1:
            hard = None if difficulty is None else difficulty[mine]
            by_length = length_controlled(y, rows.length[mine], hard, cluster, weight, slope=slope)
        if rows.style and len(y) > 1:
            differences = {key: values[mine] for key, values in rows.style.items()}
            by_style = style_controlled(y, differences, cluster, weight)
    except FitFailed as error:
        problem = error.cause
    w = np.ones(len(y)) if weight is None else weight
    return WinRate(
        competitor=rows.competitor[at],
        win_rate=mean(y, cluster, weight),
        discrete=float((w * decided(y)).sum() / w.sum()),
        difference=None if rows.length is None else float(rows.length[mine].mean()),
        one_sided=by_length is not None and _one_sided(rows.length, mine),
        length_controlled=by_length,
        style_controlled=by_style,
        problem=problem,
    )


def _one_sided(difference: Float64 | None, mine: Bool) -> bool:
    if difference is None:
        return False
    own = difference[mine]
    return bool(min((own <= 0).mean(), (own >= 0).mean()) < FEW_CROSS)
