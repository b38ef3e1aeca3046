"""Tests that hold with few clusters: degrees of freedom, and the step-down over many differences.

Standard errors come from CR2 (`steelyard_kernels.sandwich`). What is left is that they are
themselves estimated from few clusters, and that many differences are tested at once.
"""

from __future__ import annotations

import numpy as np

from steelyard.core.schemas import Float64, Int32
from steelyard_kernels.step_down import Differences, count_exceedances

REPLICATES = 2000  # of the step-down: an adjusted p-value of 0.05 is known to 0.005
SEED = 0  # of its draws
_NUGGET = 1e-9  # relative: keeps the root of a covariance real


def degrees_of_freedom(variance: Float64, overlap: Float64) -> Float64:
    """Return Satterthwaite's degrees of freedom of the variances of differences.

    Each estimate's variance is a sum over the clusters that hold it. It has 1 / overlap - 1 degrees
    of freedom, which are n - 1 for n equal clusters; a difference has those of Welch (Biometrika
    34, 1947), and fewer where both estimates rest on the same clusters. This is the working model
    of Bell and McCaffrey (Survey Methodology 28, 2002) without the noise of other competitors,
    which is spread over many clusters and adds degrees.

    Args:
        variance: float64 [K], of the estimates, up to a common factor.
        overlap: float64 [K, K], sum over clusters of both estimates' shares of information in it.

    Returns:
        float64 [K, K], not negative; an estimate's own on the diagonal.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = overlap / np.maximum(1 - overlap, 0)
        own = variance**2 * np.diag(lost)
        below = own[:, None] + own[None, :] + 2 * np.outer(variance, variance) * lost
        degrees = (variance[:, None] + variance[None, :]) ** 2 / below
    return np.asarray(np.nan_to_num(degrees, nan=0.0, posinf=np.inf))


def holm(p_values: Float64) -> Float64:
    """Adjust p-values for their number by Holm's procedure, and keep their order."""
    order = np.argsort(p_values)
    steps = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps * p_values[order]))
    return adjusted


def step_down(p_value: Float64, pairs: tuple[Int32, Int32], covariance: Float64) -> Float64:
    """Adjust p-values of differences by the step-down of Romano and Wolf (JASA 100, 2005).

    A p-value is compared with the smallest of all that are not smaller than it, where no difference
    is real: differences of normal estimates with this covariance, which brings in that two
    differences of one competitor vary together. The result is from the p-value to Holm's.

    Args:
        p_value: float64 [M], two-sided, of single tests.
        pairs: int32 [M] and [M], the two members of each difference, from 0 to K - 1.
        covariance: float64 [K, K] of the estimates; only its correlations count.

    Returns:
        float64 [M], adjusted.
    """
    from scipy.special import ndtri

    if not len(p_value):
        return p_value
    size = len(covariance)
    level = np.diag(covariance).mean() * _NUGGET
    root = np.linalg.cholesky(covariance + level * np.eye(size))
    draws = np.random.default_rng(SEED).standard_normal((REPLICATES, size)) @ root.T
    order = np.argsort(-p_value, kind="stable")
    first, second = (side[order] for side in pairs)
    variance = np.diag(covariance) + level
    apart = variance[first] + variance[second] - 2 * covariance[first, second]
    statistic = np.asarray(-ndtri(p_value[order] / 2), np.float64)
    differences = Differences(first, second, 1 / np.sqrt(apart), statistic)
    counts = count_exceedances(draws, differences)
    shares = (1 + counts) / (1 + REPLICATES)
    adjusted = np.empty(len(p_value))
    adjusted[order] = np.maximum.accumulate(shares[::-1])[::-1]
    return np.clip(adjusted, p_value, holm(p_value))
