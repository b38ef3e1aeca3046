"""A mean over rows, with its standard error over clusters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Bool, Float64
from steelyard.statistics.clusters import (
    MIN_FOR_INTERVAL,
    Codes,
    cluster_sums,
    cluster_warning,
    clustered_covariance,
)
from steelyard.statistics.intervals import (
    RESTS_ON_COUNT,
    rate_interval,
    rests_on_count,
    t_quantile,
)

SHARE = (0.0, 1.0)  # bounds of what a rate is the mean of


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its clustered standard error, which is None for a single cluster."""

    value: float
    standard_error: float | None
    rows: int
    clusters: int
    effective_clusters: float  # how many equally heavy ones would say as much (Kish): 1 to clusters
    bounds: tuple[float, float] | None = None  # what no value can leave

    def interval(self, level: float = 0.95) -> tuple[float | None, float | None]:
        """Return bounds of the mean; None for fewer than MIN_FOR_INTERVAL clusters.

        By Student's t, with one degree of freedom less than there are effective clusters; between
        `bounds`, if there are any, by `rate_interval`.
        """
        error, clusters = self.standard_error, self.effective_clusters
        if error is None or self.clusters < MIN_FOR_INTERVAL:
            return None, None
        if self.bounds is None:
            margin = t_quantile(level, clusters - 1) * error
            return self.value - margin, self.value + margin
        least, span = self.bounds[0], self.bounds[1] - self.bounds[0]
        lower, upper = rate_interval(*self._as_rate(error), clusters, level)
        return least + span * lower, least + span * upper

    def note(self) -> str | None:
        """Return what a reader has to know about the uncertainty; None where it is as usual."""
        if self.standard_error is None or self.clusters < MIN_FOR_INTERVAL:
            return cluster_warning(self.clusters)
        alike = rests_on_count(*self._as_rate(self.standard_error), self.effective_clusters)
        return RESTS_ON_COUNT if alike else None

    def _as_rate(self, error: float) -> tuple[float, float]:
        """Return value and standard error on the scale from 0 to 1; without bounds, amid it."""
        if self.bounds is None:
            return 0.5, error
        span = self.bounds[1] - self.bounds[0]
        return (self.value - self.bounds[0]) / span, error / span


def mean(
    values: Float64,
    cluster: Codes,
    weight: Float64 | None = None,
    *,
    bounds: tuple[float, float] | None = None,
) -> Mean:
    """Return a (weighted) mean with its standard error by linearisation over clusters.

    The variance is G/(G-1) times the sum over the G clusters of (sum of w (y - mean))**2, over
    (sum of w)**2 (Cochran, "Sampling Techniques", 1977, section 6.5); with one row per cluster that
    is the textbook variance of a mean. The effective number of clusters is (sum of W)**2 over the
    sum of W**2, W being a cluster's weight (Kish, "Survey Sampling", 1965).

    Args:
        values: [n], n > 0.
        cluster: [n], whole numbers.
        weight: [n], not negative and not all zero; None: each is 1.
        bounds: least and greatest possible value, such as SHARE; None: there are none.
    """
    w = np.ones(len(values)) if weight is None else weight
    total = w.sum()
    value = float((w * values).sum() / total)
    columns = np.stack([w * (values - value), w], axis=1) / total
    influence, share = np.split(cluster_sums(columns, cluster), 2, axis=1)
    groups = len(influence)
    variance = float(clustered_covariance(influence)[0, 0])
    error = math.sqrt(variance) if groups > 1 else None
    return Mean(value, error, len(values), groups, float(1 / (share**2).sum()), bounds)


def matched_difference(
    values: Float64,
    side: Bool,
    stratum: Codes,
    cluster: Codes,
    weight: Float64,
    *,
    bounds: tuple[float, float],
) -> Mean | None:
    """Return the mean over rows of a side less that over the others, within the same strata.

    Strata count by the harmonic mean of both sides' weights (Mantel and Haenszel, Journal of the
    National Cancer Institute 22, 1959). Those with fewer than two rows on a side are left out, as
    their spread is unknown; None if that leaves none.

    Args:
        values: [n].
        side: [n].
        stratum: [n], whole numbers.
        cluster: [n], whole numbers.
        weight: [n], positive.
        bounds: least and greatest possible difference.
    """
    _, code = np.unique(stratum, return_inverse=True)
    cell = 2 * code + side
    count = np.bincount(cell, minlength=2 * int(code.max()) + 2).reshape(-1, 2)
    kept = (count.min(axis=1) > 1)[code]
    if not kept.any():
        return None
    values, side, cell, w = values[kept], side[kept], cell[kept], weight[kept]
    sums, heavy = (np.bincount(cell, x, count.size).reshape(-1, 2) for x in (w * values, w))
    both = count.min(axis=1) > 1
    average = sums / np.where(heavy > 0, heavy, 1)
    share = np.where(both, heavy.prod(axis=1) / np.where(both, heavy.sum(axis=1), 1), 0)
    share /= share.sum()
    own = w / heavy.ravel()[cell]  # of the row in its cell, whose mean it has drawn to itself
    residual = (values - average.ravel()[cell]) / np.sqrt(1 - own)
    moved = np.where(side, 1.0, -1.0) * share[cell // 2] * own
    influence, of_cluster = np.split(
        cluster_sums(np.stack([moved * residual, np.abs(moved) / 2], axis=1), cluster[kept]),
        2,
        axis=1,
    )
    groups = len(influence)
    return Mean(
        value=float(share @ (average[:, 1] - average[:, 0])),
        standard_error=math.sqrt(clustered_covariance(influence)[0, 0]) if groups > 1 else None,
        rows=len(values),
        clusters=groups,
        effective_clusters=float(1 / (of_cluster**2).sum()),
        bounds=bounds,
    )


def decided(preference: Float64) -> Float64:
    """Return each preference as a decision: 1 above one half, 0 below, 0.5 for an exact half."""
    return np.asarray((preference > 0.5) + 0.5 * (preference == 0.5))
