"""A mean over rows, with its standard error over clusters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from steelyard.core.schemas import Float64
from steelyard.statistics.clusters import (
    MIN_FOR_INTERVAL,
    Codes,
    cluster_sums,
    clustered_covariance,
)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its clustered standard error, which is None for a single cluster."""

    value: float
    standard_error: float | None
    rows: int
    clusters: int

    def interval(self, level: float = 0.95) -> tuple[float | None, float | None]:
        """Return normal bounds of the mean; None for fewer than MIN_FOR_INTERVAL clusters."""
        if self.standard_error is None or self.clusters < MIN_FOR_INTERVAL:
            return None, None
        margin = NormalDist().inv_cdf(0.5 + level / 2) * self.standard_error
        return self.value - margin, self.value + margin


def mean(values: Float64, cluster: Codes, weight: Float64 | None = None) -> Mean:
    """Return a (weighted) mean with its standard error by linearisation over clusters.

    The variance is G/(G-1) times the sum over the G clusters of (sum of w (y - mean))**2, over
    (sum of w)**2 (Cochran, "Sampling Techniques", 1977, section 6.5); with one row per cluster that
    is the textbook variance of a mean. All arguments are [n], n > 0; weights are not negative and
    not all zero; None: each is 1.
    """
    w = np.ones(len(values)) if weight is None else weight
    total = w.sum()
    value = float((w * values).sum() / total)
    influence = cluster_sums((w * (values - value) / total)[:, None], cluster)
    groups = len(influence)
    variance = float(clustered_covariance(influence)[0, 0])
    return Mean(value, math.sqrt(variance) if groups > 1 else None, len(values), groups)


def decided(preference: Float64) -> Float64:
    """Return each preference as a decision: 1 above one half, 0 below, 0.5 for an exact half."""
    return np.asarray((preference > 0.5) + 0.5 * (preference == 0.5))
