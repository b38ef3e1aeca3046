"""Win rates at equal length or equal style: what the judge would say if only content differed.

Dubois, Galambosi, Liang and Hashimoto, "Length-Controlled AlpacaEval", 2024 (arXiv 2404.04475):
logit P(win) = a + b * difficulty + c * tanh(difference of lengths / its standard deviation), and
the controlled win rate is the mean prediction at a difference of 0. `docs/statistics.md` says
where this fit differs from the published one, and what that changes: rows in which the baseline
meets itself have the slope that this judge shows (`length_slope`), not a measured one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from steelyard.core.schemas import Float64
from steelyard.ranking.length_slope import Slope, length_feature, length_slope
from steelyard.statistics.logistic import LogisticFit, fit, sandwich, sigmoid
from steelyard.statistics.means import Codes

# The baseline against itself with other lengths, as rows of a fifth of the weight: they keep the
# coefficients of length and difficulty from explaining quality (the paper's regularisation).
BASELINE_WEIGHT = 0.2
LEARNABLE = 3  # competitors, from which difficulties can be learned
TINY = 1e-12  # a win rate this near to 0 or 1 is as good as there
RIDGE = 1.0  # on standardised differences of style: one unit of information


@dataclass(frozen=True, slots=True)
class Controlled:
    """A win rate with the features held equal."""

    win_rate: float  # [0, 1]
    standard_error: float  # by the delta method, over instructions
    coefficients: dict[str, float]  # in log-odds a unit of the feature

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Bounds in [0, 1]: symmetric in log-odds, in which a slope hardly known is far off."""
        p = min(max(self.win_rate, TINY), 1 - TINY)
        wide = NormalDist().inv_cdf(0.5 + level / 2) * self.standard_error / (p * (1 - p))
        ends = sigmoid(math.log(p / (1 - p)) + np.array([-wide, wide]))
        return float(ends[0]), float(ends[1])


def length_controlled(
    preference: Float64,
    difference: Float64,
    difficulty: Float64 | None,
    cluster: Codes,
    weight: Float64 | None = None,
    *,
    slope: Slope | None = None,
) -> Controlled:
    """The win rate at equal length.

    Args:
        preference: float64 [n], P(the competitor beats the baseline), in [0, 1].
        difference: float64 [n], its length less the baseline's, in characters.
        difficulty: float64 [n], of the instruction, in log-odds, higher where more competitors
            beat the baseline, or what stands in for it; None: unknown.
        cluster: whole numbers [n], the instruction, from 0 on; with a slope, those of its
            influence.
        weight: float64 [n]; None: each 1.
        slope: what length is worth to the judge; None: as these rows tell it.

    Raises:
        FitFailed: the regression has no maximum.
    """
    length = length_feature(difference)
    columns = {"length": length}
    if difficulty is not None:
        columns["difficulty"] = difficulty
    w = np.ones(len(preference)) if weight is None or not len(weight) else weight
    names, x = _features(columns, len(preference))
    if slope is None:
        alone = np.zeros(len(length), dtype=np.int64)
        slope = length_slope(preference, length, x[:, 1:], alone, cluster=cluster, weight=w)
    twin = x.copy()
    twin[:, names.index("intercept")] = 0.0  # the baseline is as good as itself
    itself = sigmoid(slope.value * length)
    found = fit(
        np.vstack([x, twin]),
        np.concatenate([preference, itself]),
        np.concatenate([w, BASELINE_WEIGHT * w]),
        np.concatenate([cluster, cluster]),
        np.full(len(names), 1e-9),
    )
    pull = twin.T @ (BASELINE_WEIGHT * w * itself * (1 - itself) * length)
    found = _with_slope(found, slope, pull, np.concatenate([cluster, cluster]))
    return _at_zero(names, x, found, w, ("length",))


def _with_slope(found: LogisticFit, slope: Slope, pull: Float64, cluster: Codes) -> LogisticFit:
    """The regression, its covariance with how sure the slope is that its rows were given.

    Args:
        found: the regression at that slope.
        slope: with each instruction's influence on it.
        pull: float64 [F], how the gradient moves with the slope.
        cluster: whole numbers [n], of the regression's rows.
    """
    own = [np.bincount(cluster, column, len(slope.influence)) for column in found.scores.T]
    sums = np.stack(own, axis=1) + slope.influence[:, None] * pull
    moved = found.inverse @ pull
    covariance = sandwich(found.inverse, sums, len(np.unique(cluster)))
    return replace(found, covariance=covariance + slope.unknown * np.outer(moved, moved))


def style_controlled(
    preference: Float64,
    differences: Mapping[str, Float64],
    cluster: Codes,
    weight: Float64 | None = None,
) -> Controlled:
    """The win rate at equal style (the features of LMArena's style control).

    Args:
        preference: float64 [n], of the competitor, in [0, 1].
        differences: feature -> float64 [n], (a - b) / (a + b) of its counts, 0 where both are 0.
        cluster: whole numbers [n].
        weight: float64 [n]; None: each 1.

    Raises:
        FitFailed: the regression has no maximum.
    """
    columns = {}
    for name, values in differences.items():
        spread = values.std()
        if spread > 0:  # about 0, not about the mean: equal style is where it is 0
            columns[name] = values / spread
    w = np.ones(len(preference)) if weight is None or not len(weight) else weight
    names, x = _features(columns, len(preference))
    ridge = np.array([1e-9 if name == "intercept" else RIDGE for name in names])
    found = fit(x, preference, w, cluster, ridge)
    return _at_zero(names, x, found, w, tuple(columns))


def relative_difference(one: Float64, other: Float64) -> Float64:
    """(one - other) / (one + other), in [-1, 1]; 0 where both are 0."""
    total = one + other
    return np.asarray((one - other) / np.where(total > 0, total, 1))


def published_win_rate(intercept: float, slope: float, difficulty: Float64) -> float:
    """The mean over instructions of a published fit at equal length, in [0, 1]."""
    return float(sigmoid(intercept + slope * difficulty).mean())


def learned_difficulty(preference: Float64, competitor: Codes, cluster: Codes) -> Float64 | None:
    """How often the other competitors beat the baseline on each row's instruction, in log-odds.

    Args:
        preference: float64 [n], of each row's competitor against the baseline.
        competitor: whole numbers [n].
        cluster: whole numbers [n].

    Returns:
        float64 [n], mean 0; one tie is added, so that none is infinite. None: fewer than three
        competitors, which leave too little to learn it from.
    """
    if len(np.unique(competitor)) < LEARNABLE:
        return None
    won, count = _of_others(preference, competitor, cluster)
    share = (won + 0.5) / (count + 1)
    odds = np.log(share / (1 - share))
    return np.asarray(odds - odds.mean())  # what all have in common is the competitors', not its


def others_mean(values: Float64, competitor: Codes, cluster: Codes) -> Float64:
    """[n]: mean of the other competitors' values on each row's instruction; 0 without others."""
    total, count = _of_others(values, competitor, cluster)
    return np.asarray(total / np.maximum(count, 1))


def _of_others(
    values: Float64, competitor: Codes, cluster: Codes
) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Sum and number of the other competitors' values on each row's instruction; each [n]."""
    _, codes = np.unique(cluster, return_inverse=True)
    one = competitor.astype(np.int64) * (int(codes.max()) + 1) + codes
    _, own = np.unique(one, return_inverse=True)
    total = np.bincount(codes, values)[codes] - np.bincount(own, values)[own]
    return np.asarray(total, np.float64), np.bincount(codes)[codes] - np.bincount(own)[own]


def _features(columns: Mapping[str, Float64], rows: int) -> tuple[list[str], Float64]:
    names = [*columns, "intercept"]
    return names, np.stack([*columns.values(), np.ones(rows)], axis=1)


def _at_zero(
    names: list[str], x: Float64, found: LogisticFit, weight: Float64, held: tuple[str, ...]
) -> Controlled:
    """Mean prediction with the held features at 0, and its error by the delta method."""
    at = x.copy()
    at[:, [names.index(name) for name in held]] = 0.0
    p = sigmoid(at @ found.coefficients)
    share = weight / weight.sum()
    slope = (share * p * (1 - p)) @ at
    return Controlled(
        win_rate=float(share @ p),
        standard_error=math.sqrt(max(float(slope @ found.covariance @ slope), 0.0)),
        coefficients=dict(zip(names, found.coefficients.tolist(), strict=True)),
    )
