"""How often each competitor beats a baseline, raw and with length or style held equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from steelyard.core.schemas import Float64
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

FEW_CROSS = 0.05  # share of rows not longer, or not shorter: with fewer, equal length is unseen


@dataclass(frozen=True, slots=True)
class BaselineComparisons:
    """Comparisons with a baseline; columns of length n, seen from the competitor's side."""

    competitor: tuple[str, ...]  # names
    code: Codes  # into `competitor`
    preference: Float64  # P(the competitor is better) + half of P(tie)
    cluster: Codes
    weight: Float64
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
    one_sided: bool  # whether it is (nearly) always longer, or always shorter (FEW_CROSS)
    length_controlled: Controlled | None
    style_controlled: Controlled | None
    problem: str | None  # why a controlled rate is missing though its columns are there


def win_rates(rows: BaselineComparisons) -> list[WinRate]:
    """Compute win rates of all competitors, best first (by length-controlled rate if there is one).

    Without a given difficulty, that of an instruction is learned from the other competitors'
    preferences on it; if these are too few, the baseline's length is used instead. A regression
    without a maximum, as if one side always wins, leaves out that competitor's controlled rate and
    gives the reason.
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
    rates = [_win_rate(rows, difficulty, slope, code) for code in range(len(rows.competitor))]
    return sorted(rates, key=sort_key)


def _baseline_length_proxy(rows: BaselineComparisons) -> Float64 | None:
    """Return the baseline's length, standardised: hard instructions ask for longer answers.

    Without it the instruction's influence would count as that of length: a short answer of the
    baseline makes every competitor longer.
    """
    length = rows.baseline_length
    if length is None or not length.std() > 0:
        return None
    return np.asarray((length - length.mean()) / length.std())


def _slope(rows: BaselineComparisons, difference: Float64, difficulty: Float64 | None) -> Slope:
    """Fit what length is worth to the judge to all competitors' rows."""
    length = np.zeros(len(difference))
    for code in range(len(rows.competitor)):
        mine = rows.code == code
        length[mine] = length_feature(difference[mine])
    own = [np.ones(len(length))]
    if difficulty is not None:
        own.append(difficulty)
        if rows.difficulty is None and len(rows.competitor) >= LEARNABLE:
            # All competitors are longer than a short answer of the baseline and win more: a learned
            # difficulty also reflects their length, and would absorb the slope.
            own.append(others_mean(length, rows.code, rows.cluster))
    return length_slope(
        rows.preference, length, np.stack(own, axis=1), rows.code,
        cluster=rows.cluster, weight=rows.weight,
    )  # fmt: skip


def sort_key(rate: WinRate) -> float:
    """Return what win rates are sorted by."""
    return -(rate.length_controlled.win_rate if rate.length_controlled else rate.win_rate.value)


def _win_rate(
    rows: BaselineComparisons, difficulty: Float64 | None, slope: Slope | None, code: int
) -> WinRate:
    mine = rows.code == code
    y, cluster, weight = rows.preference[mine], rows.cluster[mine], rows.weight[mine]
    difference = None if rows.length is None else rows.length[mine]
    by_length = by_style = problem = None
    try:
        if difference is not None and len(y) > 1:
            hard = None if difficulty is None else difficulty[mine]
            by_length = length_controlled(y, difference, hard, cluster, weight, slope=slope)
        if rows.style and len(y) > 1:
            style = {key: values[mine] for key, values in rows.style.items()}
            by_style = style_controlled(y, style, cluster, weight)
    except FitFailed as error:
        problem = error.cause
    return WinRate(
        competitor=rows.competitor[code],
        win_rate=mean(y, cluster, weight),
        discrete=float((weight * decided(y)).sum() / weight.sum()),
        difference=None if difference is None else float(difference.mean()),
        one_sided=by_length is not None and difference is not None and _one_sided(difference),
        length_controlled=by_length,
        style_controlled=by_style,
        problem=problem,
    )


def _one_sided(difference: Float64) -> bool:
    return bool(min((difference <= 0).mean(), (difference >= 0).mean()) < FEW_CROSS)
