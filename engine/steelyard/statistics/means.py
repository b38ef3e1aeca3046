"""A mean over rows, and its standard error over instructions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from steelyard.core.schemas import Float64
from steelyard.statistics.clusters import MIN_FOR_INTERVAL

Codes = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Mean:
    """An estimate and how sure it is; `standard_error` is None for a single cluster."""

    value: float
    standard_error: float | None
    rows: int
    clusters: int

    def interval(self, level: float = 0.95) -> tuple[float | None, float | None]:
        """Bounds of the interval by the normal distribution; None for fewer than 5 clusters."""
        if self.standard_error is None or self.clusters < MIN_FOR_INTERVAL:
            return None, None
        wide = NormalDist().inv_cdf(0.5 + level / 2) * self.standard_error
        return self.value - wide, self.value + wide


def mean(values: Float64, cluster: Codes, weight: Float64 | None = None) -> Mean:
    """A (weighted) mean and its standard error by linearisation over clusters.

    The variance is G/(G-1) times the sum over the G clusters of (sum of w (y - mean))**2, over
    (sum of w)**2 (Cochran, "Sampling Techniques", 1977, section 6.5); with one row a cluster that
    is the variance of a mean as it is taught.

    Args:
        values: float64 [n], n > 0.
        cluster: whole numbers [n].
        weight: float64 [n], not negative and not all zero; None: each is 1.
    """
    w = np.ones(len(values)) if weight is None or not len(weight) else weight
    total = w.sum()
    value = float((w * values).sum() / total)
    _, codes = np.unique(cluster, return_inverse=True)
    sums = np.bincount(codes, weights=w * (values - value))
    groups = len(sums)
    error = None
    if groups > 1:
        error = math.sqrt(groups / (groups - 1) * float((sums**2).sum())) / float(total)
    return Mean(value, error, len(values), groups)


def decided(preference: Float64) -> Float64:
    """Each preference as a decision: 1 above one half, 0 below, 0.5 for an exact half."""
    return np.asarray((preference > 0.5) + 0.5 * (preference == 0.5))
