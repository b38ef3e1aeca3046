"""How often each competitor beats a baseline, raw and with length or style held equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

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
from steelyard.statistics.means import SHARE, Mean, decided, mean

LENGTH, STYLE = "length_controlled", "style_controlled"
UNLEARNED = (
    "equal length cannot be determined without the difficulty of instructions: learning it takes"
    f" {LEARNABLE} competitors, or give it with --difficulty"
)
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
    problems: dict[
        str, str
    ]  # LENGTH or STYLE -> why a rate is missing though its columns are there


def win_rates(rows: BaselineComparisons) -> list[WinRate]:
    """Compute win rates of all competitors, best first (`best_first`).

    Without a given difficulty, that of an instruction is learned from the other competitors'
    preferences on it. A controlled rate is left out, with the reason, where the comparisons do not
    determine it: where difficulties are unknown, hardly any row has equal length (or style), or
    length alone decides.
    """
    difficulty, slope = rows.difficulty, None
    rows = replace(rows, cluster=np.unique(rows.cluster, return_inverse=True)[1])
    if (length := rows.length) is not None and len(rows.code):
        if difficulty is None:
            difficulty = learned_difficulty(rows.preference, rows.code, rows.cluster)
        if difficulty is not None:
            slope = _slope(rows, length, difficulty)
    rates = [_win_rate(rows, difficulty, slope, code) for code in range(len(rows.competitor))]
    return best_first(rates)


def _slope(rows: BaselineComparisons, difference: Float64, difficulty: Float64) -> Slope:
    """Fit what length is worth to the judge to all competitors' rows."""
    length = np.zeros(len(difference))
    for code in range(len(rows.competitor)):
        mine = rows.code == code
        length[mine] = length_feature(difference[mine])
    own = [np.ones(len(length)), difficulty]
    if rows.difficulty is None:
        # All competitors are longer than a short answer of the baseline and win more: a learned
        # difficulty also reflects their length, and would absorb the slope.
        own.append(others_mean(length, rows.code, rows.cluster))
    return length_slope(
        rows.preference, length, np.stack(own, axis=1), rows.code,
        cluster=rows.cluster, weight=rows.weight,
    )  # fmt: skip


def best_first(rates: list[WinRate]) -> list[WinRate]:
    """Sort by length-controlled rates if all have them, which raw ones do not compare with."""
    comparable = all(rate.length_controlled for rate in rates)

    def height(rate: WinRate) -> float:
        held = rate.length_controlled if comparable else None
        return held.win_rate if held else rate.win_rate.value

    return sorted(rates, key=height, reverse=True)


def _win_rate(
    rows: BaselineComparisons, difficulty: Float64 | None, slope: Slope | None, code: int
) -> WinRate:
    mine = rows.code == code
    y, cluster, weight = rows.preference[mine], rows.cluster[mine], rows.weight[mine]
    difference = None if rows.length is None else rows.length[mine]
    hard = None if difficulty is None else difficulty[mine]
    controls: dict[str, Callable[[], Controlled]] = {}
    controlled: dict[str, Controlled] = {}
    problems: dict[str, str] = {}
    if difference is not None and hard is None and difference.any():
        problems[LENGTH] = UNLEARNED
    elif difference is not None:
        controls[LENGTH] = partial(
            length_controlled, y, difference, hard, cluster, weight, slope=slope
        )
    if rows.style:
        style = {key: values[mine] for key, values in rows.style.items()}
        controls[STYLE] = partial(style_controlled, y, style, cluster, weight)
    for kind, fitted in controls.items():
        try:
            controlled[kind] = fitted()
        except FitFailed as error:
            problems[kind] = error.cause
    return WinRate(
        competitor=rows.competitor[code],
        win_rate=mean(y, cluster, weight, bounds=SHARE),
        discrete=float((weight * decided(y)).sum() / weight.sum()),
        difference=None if difference is None else float(difference.mean()),
        one_sided=LENGTH in controlled and difference is not None and _one_sided(difference),
        length_controlled=controlled.get(LENGTH),
        style_controlled=controlled.get(STYLE),
        problems=problems,
    )


def _one_sided(difference: Float64) -> bool:
    return bool(min((difference <= 0).mean(), (difference >= 0).mean()) < FEW_CROSS)
