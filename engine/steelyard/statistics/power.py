"""How many clusters, rows or labels a question needs: from a sample, or from assumptions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Float64
from steelyard.statistics.clusters import MIN_FOR_INTERVAL, Codes
from steelyard.statistics.intervals import NO_SPREAD, t_quantile
from steelyard.statistics.means import mean
from steelyard.statistics.paired import detectable
from steelyard.statistics.prediction_powered import FEWEST, FITTED

MOST = 10**9  # clusters or labels: with more nobody comes back


@dataclass(frozen=True, slots=True)
class Spread:
    """How much the mean of a cluster varies, and what it consists of."""

    variance: float  # of a cluster's mean: over G clusters the mean's variance is a G-th of it
    rows: float  # per cluster
    design_effect: float  # the mean's variance over that of as many independent rows

    def detectable(self, clusters: float, *, level: float, power: float) -> float:
        """Return the difference that this many clusters find (`paired.detectable`)."""
        error = math.sqrt(self.variance / clusters)
        return detectable(error, clusters - 1, level=level, power=power)

    def width(self, clusters: float, *, level: float) -> float:
        """Return the distance between the bounds of the mean's interval."""
        return 2 * t_quantile(level, clusters - 1) * math.sqrt(self.variance / clusters)

    def for_difference(self, difference: float, *, level: float, power: float) -> int:
        """Return how many clusters find this difference."""
        return least(
            lambda clusters: self.detectable(clusters, level=level, power=power) <= difference,
            MIN_FOR_INTERVAL,
        )

    def for_width(self, width: float, *, level: float) -> int:
        """Return how many clusters give an interval of at most this width."""
        return least(lambda clusters: self.width(clusters, level=level) <= width, MIN_FOR_INTERVAL)


def spread_of(values: Float64, cluster: Codes, weight: Float64 | None = None) -> Spread | None:
    """Measure the spread of n rows; None without any, or with fewer than MIN_FOR_INTERVAL.

    That many clusters would have to count alike: weights may leave less of them.
    """
    clustered = mean(values, cluster, weight)
    alone = mean(values, np.arange(len(values)), weight)
    error = clustered.standard_error or 0.0
    if clustered.effective_clusters < MIN_FOR_INTERVAL or error <= NO_SPREAD:
        return None
    assert alone.standard_error  # noqa: S101 - there are as many rows as clusters, and they differ
    variance = error**2
    return Spread(
        variance * clustered.clusters,
        len(values) / clustered.clusters,
        variance / alone.standard_error**2,
    )


def assumed_spread(deviation: float, rows: float, correlation: float) -> Spread:
    """Return the spread of clusters of equal size.

    Args:
        deviation: standard deviation of a row.
        rows: per cluster.
        correlation: between two rows of a cluster, from 0 to 1 (Kish, "Survey Sampling", 1965).
    """
    design = 1 + (rows - 1) * correlation
    return Spread(deviation**2 * design / rows, rows, design)


def labels_for_width(
    width: float, deviation: float, correlation: float, pairs: int, *, level: float
) -> int | None:
    """Return how many of the pairs need a label for a prediction-powered interval of this width.

    With n labels among M pairs the variance of PPI++ at its best weight is s^2 / n times
    1 - r^2 (M - n) / M.

    Args:
        width: between both bounds.
        deviation: s, of a label, times the root of its design effect.
        correlation: r, of the judge's preference with the label; 0: the labels alone.
        pairs: M, at least FEWEST.
        level: of the interval.

    Returns:
        The number; None if labels for all pairs do not suffice.
    """

    def enough(labels: int) -> bool:
        unknown = 1 - correlation**2 * (pairs - labels) / pairs
        error = deviation * math.sqrt(unknown / labels)
        return 2 * t_quantile(level, labels - FITTED) * error <= width

    return least(enough, FEWEST) if enough(pairs) else None


def least(enough: Callable[[int], bool], start: int) -> int:
    """Return the least number from `start` on that is enough, if all larger ones are as well."""
    low, high = start - 1, start
    while high < MOST and not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
