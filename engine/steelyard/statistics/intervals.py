"""Student's t, and an interval of a rate that never leaves [0, 1]: the only users of SciPy.

SciPy is imported where it is called: it takes longer to load than most commands take to run.
"""

from __future__ import annotations

import math
from typing import overload

import numpy as np

from steelyard.core.schemas import Float64

NO_SPREAD = 1e-9  # of a standard error: what rounding leaves of 0
RESTS_ON_COUNT = (  # the note of every report
    "the values are equal, or nearly all are at one end: the interval rests on the number of"
    " clusters, as their spread says nothing"
)


@overload
def t_quantile(level: float, df: float) -> float: ...


@overload
def t_quantile(level: float, df: Float64) -> Float64: ...


def t_quantile(level: float, df: float | Float64) -> float | Float64:
    """Return how many standard errors an interval reaches to either side: 1.96 for many clusters.

    Args:
        level: the probability between the two bounds, in (0, 1).
        df: degrees of freedom, whole or not; infinite where nothing was known from 0 or fewer.
    """
    from scipy.special import stdtrit

    known = np.asarray(df, np.float64)
    quantile = np.where(
        known > 0, stdtrit(np.where(known > 0, known, 1.0), 0.5 + level / 2), np.inf
    )
    return float(quantile) if np.isscalar(df) else quantile


@overload
def t_p_value(statistic: float, df: float) -> float: ...


@overload
def t_p_value(statistic: Float64, df: float | Float64) -> Float64: ...


def t_p_value(statistic: float | Float64, df: float | Float64) -> float | Float64:
    """Return the two-sided p-value of estimate / standard error, in [0, 1].

    `df` are degrees of freedom, whole or not; with 0 or fewer nothing is known, and it is 1.
    """
    from scipy.special import stdtr

    known = np.asarray(df, np.float64)
    tail = stdtr(np.where(known > 0, known, 1.0), -np.abs(np.asarray(statistic, np.float64)))
    p_value = np.where(known > 0, 2 * tail, 1.0)
    return float(p_value) if np.isscalar(statistic) else p_value


def rests_on_count(rate: float, standard_error: float, clusters: float) -> bool:
    """Return whether the spread of clusters says nothing about the uncertainty of a rate.

    That is where less than one cluster's worth of preference is for the rarer side, so that the
    spread of the others cannot show how rare it is, and where there is no spread at all.
    """
    return min(rate, 1 - rate) * clusters < 1 or standard_error <= NO_SPREAD


def rate_interval(
    rate: float, standard_error: float, clusters: float, level: float = 0.95
) -> tuple[float, float]:
    """Return bounds of a rate: Wilson's interval with an effective number of observations.

    The rate counts as one of p (1 - p) / standard_error**2 independent decisions (Wilson, Journal
    of the American Statistical Association 22, 1927; Korn and Graubard, "Analysis of Health
    Surveys", 1999, 3.2), and Student's t takes the place of the normal quantile. Where the spread
    says nothing (`rests_on_count`), there are no more decisions than clusters: 40 of 40 are
    [0.91, 1].

    Args:
        rate: a mean of values in [0, 1].
        standard_error: over clusters.
        clusters: how many there are, or their effective number where some weigh more.
        level: of the interval, in (0, 1).

    Returns:
        Lower and upper bound, in [0, 1] and never equal.
    """
    p = min(max(rate, 0.0), 1.0)
    decisions = p * (1 - p) / standard_error**2 if standard_error > NO_SPREAD else clusters
    if rests_on_count(p, standard_error, clusters):
        decisions = min(decisions, clusters)
    share = decisions / t_quantile(level, clusters - 1) ** 2
    half = math.sqrt(p * (1 - p) * share + 0.25) / (share + 1)
    centre = (p * share + 0.5) / (share + 1)
    return max(min(centre - half, p), 0.0), min(max(centre + half, p), 1.0)
