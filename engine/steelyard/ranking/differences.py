"""Which differences between ratings are significant, and which ranks are possible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Bool, Float64, Int64
from steelyard.ranking.bradley_terry import Ratings
from steelyard.statistics.intervals import t_p_value
from steelyard.statistics.small_clusters import step_down

NO_SPREAD = 1e-6  # points: what rounding leaves of 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """All pairs of K competitors, in the order of the ratings they come from."""

    difference: Float64  # [K, K] rating of the row less that of the column
    standard_error: Float64  # [K, K]
    p_value: Float64  # [K, K] two-sided, adjusted for all pairs; NaN if untested
    better: Bool  # [K, K] the row is better than the column, at the level
    best_rank: Int64  # [K] 1 + how many are better
    worst_rank: Int64  # [K] K less how many are worse


def compare(ratings: Ratings, level: float = 0.95, tested: Bool | None = None) -> Comparison:
    """Test differences, and derive each competitor's range of ranks.

    P-values are those of Student's t with each difference's own degrees of freedom, adjusted by a
    step-down (`statistics.small_clusters`), so that all claims together are right with probability
    `level`; then so are all ranges of ranks (Mogstad, Romano, Shaikh and Wilhelm, "Inference for
    Ranks", Review of Economic Studies 91, 2024). A difference without any spread is not tested:
    equal verdicts do not say how far others would be from them.

    Args:
        ratings: of K competitors.
        level: of all claims together.
        tested: [K, K], symmetric: which differences can be tested; None: all.
    """
    covariance, size = ratings.spread.covariance, len(ratings.rating)
    spread = np.diag(covariance)
    error = np.sqrt(np.maximum(spread[:, None] + spread[None, :] - 2 * covariance, 0))
    difference = ratings.rating[:, None] - ratings.rating[None, :]
    known = np.triu(error >= NO_SPREAD, 1)
    first, second = np.nonzero(known if tested is None else known & tested)
    pairs = (first, second)
    p_value = np.full((size, size), np.nan)
    single = t_p_value(difference[pairs] / error[pairs], ratings.spread.degrees[pairs])
    # By rank, so that the draws do not depend on the order of names.
    order = np.argsort(-ratings.rating, kind="stable")
    rank = np.argsort(order).astype(np.int32)
    joint = ratings.spread.joint[np.ix_(order, order)]
    p_value[pairs] = step_down(single, (rank[first], rank[second]), joint)
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
