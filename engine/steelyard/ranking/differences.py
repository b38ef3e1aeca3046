"""Which differences between ratings are significant, and which ranks are possible."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Bool, Float64, Int64
from steelyard.ranking.bradley_terry import Ratings


@dataclass(frozen=True, slots=True)
class Comparison:
    """All pairs of K competitors, in the order of the ratings they come from."""

    difference: Float64  # [K, K] rating of the row less that of the column
    standard_error: Float64  # [K, K]
    p_value: Float64  # [K, K] two-sided, adjusted for all pairs (Holm); NaN if untested
    better: Bool  # [K, K] the row is better than the column, at the level
    best_rank: Int64  # [K] 1 + how many are better
    worst_rank: Int64  # [K] K less how many are worse


def compare(ratings: Ratings, level: float = 0.95, tested: Bool | None = None) -> Comparison:
    """Test differences, and derive each competitor's range of ranks.

    P-values are those of a normal distribution, adjusted by Holm's procedure (Scandinavian
    Journal of Statistics 6, 1979), so that all claims together are right with probability
    `level`; then so are all ranges of ranks (Mogstad, Romano, Shaikh and Wilhelm, "Inference for
    Ranks", Review of Economic Studies 91, 2024).

    Args:
        ratings: of K competitors.
        level: of all claims together.
        tested: [K, K], symmetric: which differences can be tested; None: all.
    """
    spread = np.diag(ratings.covariance)
    variance = spread[:, None] + spread[None, :] - 2 * ratings.covariance
    error = np.sqrt(np.maximum(variance, 0))
    difference = ratings.rating[:, None] - ratings.rating[None, :]
    size = len(spread)
    upper = np.nonzero(np.triu(np.ones((size, size)) if tested is None else tested, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(difference[upper]) / error[upper]
    z[np.isnan(z)] = 0  # no difference, and none possible
    p_value = np.full((size, size), np.nan)
    p_value[upper] = holm(np.array([math.erfc(x / math.sqrt(2)) for x in z]))
    p_value = np.fmin(p_value, p_value.T)
    better = (p_value < 1 - level) & (difference > 0)
    return Comparison(
        difference=difference,
        standard_error=error,
        p_value=p_value,
        better=better,
        best_rank=1 + better.sum(axis=0),
        worst_rank=size - better.sum(axis=1),
    )


def holm(p_values: Float64) -> Float64:
    """Adjust p-values for their number by Holm's procedure, and keep their order."""
    order = np.argsort(p_values)
    steps = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps * p_values[order]))
    return adjusted
