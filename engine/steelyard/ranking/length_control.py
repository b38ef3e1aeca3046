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
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Float64, Int64
from steelyard.ranking.length_slope import Slope, length_feature, length_slope
from steelyard.statistics.clusters import (
    MIN_FOR_INTERVAL,
    Codes,
    cluster_sums,
    clustered_covariance,
)
from steelyard.statistics.intervals import t_quantile
from steelyard.statistics.logistic import FitFailed, LogisticFit, fit, logit, sigmoid

# The baseline against itself with other lengths, as rows of a fifth of the weight: they keep the
# coefficients of length and difficulty from explaining quality (the paper's regularisation).
BASELINE_WEIGHT = 0.2
LEARNABLE = 3  # competitors, from which difficulties can be learned
ONE_WAY = 1e-6  # a controlled win rate this near to 0 or 1 has no finite log-odds
RIDGE = 1.0  # on standardised differences of style: one unit of information
NOMINAL = 1e-9  # a ridge that only settles what the rows leave open
# What equal length (or style) has to have for a prediction there not to be an extrapolation: rows
# within half a standard deviation of it. With a share of 2% intervals hold the truth in 80 to 90%
# of draws, with none in 3 to 70% (benchmarks/harness/validity/length_control.py).
NEAR, NEAR_SHARE = 0.5, 0.05
SEPARATED = 0.98  # P(a won row is longer than a lost one), or shorter: from here on a step


@dataclass(frozen=True, slots=True)
class Controlled:
    """A win rate with the features held equal."""

    win_rate: float  # (0, 1)
    standard_error: float  # by the delta method, over instructions
    coefficients: dict[str, float]  # in log-odds per unit of the feature
    effective_clusters: float  # as of a `Mean`

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return bounds in [0, 1], symmetric in log-odds: an uncertain slope can be far off."""
        p, quantile = self.win_rate, t_quantile(level, self.effective_clusters - 1)
        margin = quantile * self.standard_error / (p * (1 - p))
        lower, upper = sigmoid(logit(np.array(p)) + np.array([-margin, margin])).tolist()
        return lower, upper


def length_controlled(
    preference: Float64,
    difference: Float64,
    difficulty: Float64 | None,
    cluster: Codes,
    weight: Float64 | None = None,
    *,
    slope: Slope | None = None,
) -> Controlled:
    """Return the win rate at equal length, of n comparisons with the baseline.

    Args:
        preference: [n], P(the competitor beats the baseline), in [0, 1].
        difference: [n], its length less the baseline's, in characters.
        difficulty: [n], of the instruction, in log-odds, higher where more competitors beat the
            baseline; None: unknown.
        cluster: [n], the instruction, from 0 on; with a slope, those of its influence.
        weight: [n]; None: each 1.
        slope: what length is worth to the judge; None: it is fitted to these rows.

    Raises:
        FitFailed: the rows do not determine it, or the regression has no maximum.
    """
    check_identified("length", preference, difference)
    length = length_feature(difference)
    known = {} if difficulty is None else {"difficulty": difficulty}
    w = np.ones(len(preference)) if weight is None else weight
    names, x = _features({"length": length, **known}, len(preference))
    if slope is None:
        alone = np.zeros(len(length), dtype=np.int64)
        slope = length_slope(preference, length, x[:, 1:], alone, cluster=cluster, weight=w)
    twin = x.copy()
    twin[:, names.index("intercept")] = 0.0  # the baseline is as good as itself
    itself = sigmoid(slope.value * length)
    outcome, both = np.append(preference, itself), np.append(cluster, cluster)
    weights, ridge = np.append(w, BASELINE_WEIGHT * w), np.full(len(names), NOMINAL)
    fitted = fit(np.vstack([x, twin]), outcome, weights, both, ridge)
    # How the gradient moves with the slope, which every instruction had its influence on.
    pull = twin.T @ (BASELINE_WEIGHT * w * itself * (1 - itself) * length)
    scores = cluster_sums(fitted.scores, both, len(slope.influence))
    scores += slope.influence[:, None] * pull
    return _at_zero(
        names, x, fitted, ("length",), scores=scores, cluster=cluster, weight=w,
        hidden=math.sqrt(slope.unknown) * pull,
    )  # fmt: skip


def check_identified(name: str, preference: Float64, difference: Float64) -> None:
    """Raise FitFailed if a rate at a difference of 0 cannot be determined from these rows.

    Args:
        name: of what is to be equal, for the message.
        preference: [n], P(the competitor beats the baseline).
        difference: [n], of lengths or of another feature.
    """
    near = np.abs(difference) <= NEAR * difference.std()
    reason = None
    if near.sum() < max(NEAR_SHARE * len(near), min(MIN_FOR_INTERVAL, len(near))):
        reason = "hardly any rows are near it"
    if separates(preference, difference):
        reason = "it separates wins from losses, and where between them is unknown"
    if reason:
        raise FitFailed(
            f"equal {name} cannot be determined: {reason}",
            remedy="collect comparisons of responses that are about equal in it",
        )


def separates(preference: Float64, difference: Float64) -> bool:
    """Return whether nearly every won row has a larger difference than a lost one, or a smaller.

    Then wins and losses say at most where between them the judge turns, not how fast.
    """
    if not np.ptp(difference) > 0 or not 0 < preference.mean() < 1:
        return False
    _, place = np.unique(difference, return_inverse=True)
    won, lost = np.bincount(place, preference), np.bincount(place, 1 - preference)
    longer_won = won @ (np.cumsum(lost) - lost / 2) / (won.sum() * lost.sum())
    return bool(max(longer_won, 1 - longer_won) > SEPARATED)


def style_controlled(
    preference: Float64,
    differences: Mapping[str, Float64],
    cluster: Codes,
    weight: Float64 | None = None,
) -> Controlled:
    """Return the win rate at equal style (the features of LMArena's style control).

    `differences` holds `relative_difference` of each feature's counts, [n].

    Raises:
        FitFailed: the rows do not determine it, or the regression has no maximum.
    """
    for key, x in differences.items():
        check_identified(f"style ({key})", preference, x)
    # Not about the mean: equal style is where a difference is 0.
    columns = {key: x / x.std() for key, x in differences.items() if x.std() > 0}
    w = np.ones(len(preference)) if weight is None else weight
    names, x = _features(columns, len(preference))
    ridge = np.array([NOMINAL if name == "intercept" else RIDGE for name in names])
    fitted = fit(x, preference, w, cluster, ridge)
    scores = cluster_sums(fitted.scores, cluster, int(cluster.max()) + 1)
    return _at_zero(
        names, x, fitted, tuple(columns), scores=scores, cluster=cluster, weight=w,
        hidden=np.zeros(len(names)),
    )  # fmt: skip


def relative_difference(a: Float64, b: Float64) -> Float64:
    """Return (a - b) / (a + b), in [-1, 1]; 0 where both are 0."""
    total = a + b
    return np.asarray((a - b) / np.where(total > 0, total, 1))


def learned_difficulty(preference: Float64, competitor: Codes, cluster: Codes) -> Float64 | None:
    """Return how often others beat the baseline on each row's instruction, in log-odds [n].

    Their mean is 0; a tie is added, so that none is infinite. None: fewer than LEARNABLE
    competitors, which leave too little to learn it from.
    """
    if len(np.unique(competitor)) < LEARNABLE:
        return None
    won, count = _of_others(preference, competitor, cluster)
    odds = logit((won + 0.5) / (count + 1))
    return np.asarray(odds - odds.mean())  # what all have in common is the competitors', not its


def others_mean(values: Float64, competitor: Codes, cluster: Codes) -> Float64:
    """Return [n]: the mean of other competitors' values on each row's instruction, or 0."""
    total, count = _of_others(values, competitor, cluster)
    return np.asarray(total / np.maximum(count, 1))


def _of_others(values: Float64, competitor: Codes, cluster: Codes) -> tuple[Float64, Int64]:
    """Return the sum and number of other competitors' values on each row's instruction, [n]."""
    _, codes = np.unique(cluster, return_inverse=True)
    cells = competitor.astype(np.int64) * (int(codes.max()) + 1) + codes
    _, own = np.unique(cells, return_inverse=True)
    total = np.bincount(codes, values)[codes] - np.bincount(own, values)[own]
    return np.asarray(total, np.float64), np.bincount(codes)[codes] - np.bincount(own)[own]


def _features(columns: Mapping[str, Float64], rows: int) -> tuple[list[str], Float64]:
    names = [*columns, "intercept"]
    return names, np.stack([*columns.values(), np.ones(rows)], axis=1)


def _at_zero(
    names: list[str],
    x: Float64,
    fitted: LogisticFit,
    held: tuple[str, ...],
    *,
    scores: Float64,
    cluster: Codes,
    weight: Float64,
    hidden: Float64,
) -> Controlled:
    """Return the mean prediction with the held features at 0, with its delta-method error.

    Instructions are a sample, so each moves the mean by its own predictions as well as by the
    coefficients.

    Args:
        names: F features.
        x: [n, F].
        fitted: their coefficients.
        held: which features are equal.
        scores: [G, F], the gradient of each cluster.
        cluster: [n], from 0 to G - 1.
        weight: [n].
        hidden: [F], a gradient that no cluster shows.
    """
    equal = x.copy()
    equal[:, [names.index(name) for name in held]] = 0.0
    p = sigmoid(equal @ fitted.coefficients)
    share = weight / weight.sum()
    win_rate = float(share @ p)
    if min(win_rate, 1 - win_rate) < ONE_WAY:
        raise FitFailed(
            "the regression has no finite maximum: all preferences are for one side",
            remedy="collect comparisons that this competitor wins and loses",
        )
    along = fitted.inverse @ ((share * p * (1 - p)) @ equal)
    influence = scores @ along + np.bincount(cluster, share * (p - win_rate), len(scores))
    heavy = np.bincount(cluster, share)
    variance = clustered_covariance(influence[:, None], int(np.count_nonzero(heavy)))[0, 0]
    return Controlled(
        win_rate=win_rate,
        standard_error=math.sqrt(variance + float(hidden @ along) ** 2),
        coefficients=dict(zip(names, fitted.coefficients.tolist(), strict=True)),
        effective_clusters=float(1 / (heavy**2).sum()),
    )
