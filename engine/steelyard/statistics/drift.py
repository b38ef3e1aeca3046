"""Drift: how far scored pairs are from those that the calibrator was fitted on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Float64

BINS = 10
POINTS = 500  # order statistics kept; a larger set is known to 1/500
PSI_LIMIT = 0.2  # by custom, a shift above it matters
# Without drift the index is (1/n + 1/m) times a chi-square of BINS - 1 degrees of freedom
# (Yurdakul, "Statistical properties of population stability index", 2018): its 99% quantile.
CHI_SQUARE = 21.67
KS_LIMIT, P_LIMIT = 0.1, 0.01  # a distance that matters and is significant


@dataclass(frozen=True, slots=True)
class Reference:
    """Raw preferences of the calibration set: all of them, or POINTS of their quantiles."""

    quantiles: tuple[float, ...]  # rising
    pairs: int

    @classmethod
    def of(cls, preference: Float64) -> Reference:
        """Summarise n raw preferences."""
        points = min(POINTS, len(preference))
        middles = (np.arange(points) + 0.5) / points
        quantiles = np.quantile(preference, middles, method="inverted_cdf")
        return cls(tuple(quantiles.tolist()), len(preference))


@dataclass(frozen=True, slots=True)
class Drift:
    """How far n scored pairs are from the calibration set."""

    psi: float  # population stability index over ten bins, from 0
    ks: float  # Kolmogorov-Smirnov distance, in [0, 1]
    p_value: float  # of that distance, asymptotic
    drifted: bool


def measure_drift(reference: Reference, preference: Float64) -> Drift:
    """Compare raw preferences with the calibration set's.

    The population stability index is sum (q - p) ln(q / p) over bins between the calibration
    set's deciles, with half a pair added to each bin, so that the index is finite. Distance and
    p-value are those of the two-sample Kolmogorov-Smirnov test.
    """
    known = np.asarray(reference.quantiles)
    scored = np.sort(preference)
    psi = _stability(known, reference.pairs, scored)
    ks = 0.0
    for side in ("left", "right"):  # just below and at every value of the calibration set
        new = np.searchsorted(scored, known, side=side) / len(scored)
        old = np.searchsorted(known, known, side=side) / len(known)
        ks = max(ks, float(np.max(np.abs(new - old))))
    p_value = _kolmogorov(ks, reference.pairs, len(scored))
    chance = CHI_SQUARE * (1 / reference.pairs + 1 / len(scored))
    drifted = psi > max(PSI_LIMIT, chance) or (ks > KS_LIMIT and p_value < P_LIMIT)
    return Drift(psi, ks, p_value, drifted=drifted)


def _stability(known: Float64, pairs: int, scored: Float64) -> float:
    edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS))
    old = np.searchsorted(known, edges, side="right") / len(known) * pairs
    new = np.searchsorted(scored, edges, side="right")
    p = np.diff([0, *old, pairs]) + 0.5
    q = np.diff([0, *new, len(scored)]) + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((q - p) * np.log(q / p)))


def _kolmogorov(distance: float, n: int, m: int) -> float:
    """Return P(a larger distance by chance), by Kolmogorov's series with Stephens' correction."""
    size = math.sqrt(n * m / (n + m))
    x = (size + 0.12 + 0.11 / size) * distance
    if x < 0.2:
        return 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 101))
    return float(min(max(sum(terms), 0.0), 1.0))
