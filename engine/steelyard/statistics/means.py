"""A mean over rows, with its standard error over clusters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Float64
from steelyard.statistics.clusters import (
    MIN_FOR_INTERVAL,
    Codes,
    cluster_sums,
    clustered_covariance,
)
from steelyard.statistics.intervals import rate_interval, t_quantile

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
        ends = rate_interval((self.value - least) / span, error / span, clusters, level)
        return least + span * ends[0], least + span * ends[1]


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


def decided(preference: Float64) -> Float64:
    """Return each preference as a decision: 1 above one half, 0 below, 0.5 for an exact half."""
    return np.asarray((preference > 0.5) + 0.5 * (preference == 0.5))
