"""Drift: how far scored pairs are from those that the calibrator was fitted on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Float64, Int64
from steelyard.statistics.clusters import cluster_sums, clustered_covariance

BINS = 10
POINTS = 500  # order statistics kept; a larger set is known to 1/500
PSI_LIMIT = 0.2  # by custom, a shift above it matters
# Without drift the index is (1/n + 1/m) times a chi-square of BINS - 1 degrees of freedom
# (Yurdakul, "Statistical properties of population stability index", 2018): its 99% quantile.
CHI_SQUARE = 21.67
KS_LIMIT, P_LIMIT = 0.1, 0.01  # a distance that matters and is significant
CRITICAL = 1.6276  # Kolmogorov's 99% quantile
NOTICED = 0.8416  # normal quantile of 80%: how often the smallest shift that is reported is noticed


@dataclass(frozen=True, slots=True)
class Reference:
    """Raw preferences of the calibration set: all of them, or POINTS of their quantiles."""

    quantiles: tuple[float, ...]  # rising
    pairs: int
    effective: float | None = None  # number of independent pairs that say as much; None: not known

    @classmethod
    def of(cls, preference: Float64, groups: Int64 | None = None) -> Reference:
        """Summarise n raw preferences of these instructions; None: pairs are independent."""
        points = min(POINTS, len(preference))
        middles = (np.arange(points) + 0.5) / points
        quantiles = np.quantile(preference, middles, method="inverted_cdf")
        effective = effective_pairs(preference, groups)
        return cls(tuple(quantiles.tolist()), len(preference), effective)


@dataclass(frozen=True, slots=True)
class Drift:
    """How far n scored pairs are from the calibration set."""

    psi: float  # population stability index over ten bins, from 0
    ks: float  # Kolmogorov-Smirnov distance, in [0, 1]
    p_value: float  # of that distance, asymptotic
    drifted: bool
    smallest: float  # true distance that is noticed in 80% of cases or more; 1: none may be


def measure_drift(reference: Reference, preference: Float64, groups: Int64 | None = None) -> Drift:
    """Compare raw preferences with the calibration set's.

    The population stability index is sum (q - p) ln(q / p) over bins between the calibration
    set's deciles, with half a pair added to each bin, so that the index is finite. Distance and
    p-value are those of the two-sample Kolmogorov-Smirnov test. Both count `effective_pairs`.

    Args:
        reference: the calibration set.
        preference: n raw preferences.
        groups: n, their instructions; None: the pairs are independent.
    """
    known = np.asarray(reference.quantiles)
    scored = np.sort(preference)
    n, m = reference.effective or reference.pairs, effective_pairs(preference, groups)
    psi = _stability(known, n, scored, m)
    ks = 0.0
    for side in ("left", "right"):  # just below and at every value of the calibration set
        new = np.searchsorted(scored, known, side=side) / len(scored)
        old = np.searchsorted(known, known, side=side) / len(known)
        ks = max(ks, float(np.max(np.abs(new - old))))
    p_value = _kolmogorov(ks, n, m)
    chance = CHI_SQUARE * (1 / n + 1 / m)
    drifted = psi > max(PSI_LIMIT, chance) or (ks > KS_LIMIT and p_value < P_LIMIT)
    return Drift(psi, ks, p_value, drifted=drifted, smallest=_smallest(n, m))


def effective_pairs(preference: Float64, groups: Int64 | None) -> float:
    """Return how many independent pairs would give preferences' distribution as exactly.

    It is n over the design effect: the variance of the shares below each decile over instructions,
    relative to that of independent pairs, on average and at least 1 (Rao and Scott, "On chi-squared
    tests for multiway contingency tables", Annals of Statistics 12, 1984).
    """
    n = len(preference)
    count = n if groups is None else len(np.unique(groups))
    if groups is None or count == n:
        return float(n)
    if count == 1:
        return 1.0
    edges = np.unique(np.quantile(preference, np.arange(1, BINS) / BINS))
    below = (preference[:, None] <= edges) * 1.0
    share = below.mean(axis=0)
    inner = (share > 0) & (share < 1)
    if not inner.any():
        return float(count)
    influence = cluster_sums(below[:, inner] - share[inner], groups) / n
    variance = np.diag(clustered_covariance(influence))
    effects = variance * (n - 1) / (share * (1 - share))[inner]
    return n / max(float(effects.mean()), 1.0)


def _smallest(n: float, m: float) -> float:
    """Return a distance that the Kolmogorov-Smirnov test notices in 80% of cases at least.

    Where the true distance is, the empirical one has a standard deviation of at most
    0.5 / sqrt(size).
    """
    size = math.sqrt(n * m / (n + m))
    critical = max(KS_LIMIT, CRITICAL / (size + 0.12 + 0.11 / size))
    return min(critical + NOTICED * 0.5 / size, 1.0)


def _stability(known: Float64, n: float, scored: Float64, m: float) -> float:
    """Return the index; n and m are the numbers of pairs that both sides count as."""
    edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS))
    old = np.searchsorted(known, edges, side="right") / len(known) * n
    new = np.searchsorted(scored, edges, side="right") / len(scored) * m
    p = np.diff([0, *old, n]) + 0.5
    q = np.diff([0, *new, m]) + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((q - p) * np.log(q / p)))


def _kolmogorov(distance: float, n: float, m: float) -> float:
    """Return P(a larger distance by chance), by Kolmogorov's series with Stephens' correction."""
    size = math.sqrt(n * m / (n + m))
    x = (size + 0.12 + 0.11 / size) * distance
    if x < 0.2:
        return 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 101))
    return float(min(max(sum(terms), 0.0), 1.0))
