"""Have the pairs drifted from those that the calibrator was fitted on?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from steelyard.records import Float64

BINS = 10
POINTS = 200  # quantiles kept, which bound the Kolmogorov-Smirnov distance to 1/200
PSI_LIMIT = 0.2  # the customary mark of a shift that matters
P_LIMIT = 0.01


@dataclass(frozen=True, slots=True)
class Reference:
    """Raw preferences of the calibration set as quantiles, from the 0th to the 100th per cent."""

    quantiles: tuple[float, ...]
    pairs: int

    @classmethod
    def of(cls, preference: Float64) -> Reference:
        """From n raw preferences."""
        points = min(POINTS, max(len(preference) - 1, 1))
        found = np.quantile(preference, np.linspace(0, 1, points + 1))
        return cls(tuple(found.tolist()), len(preference))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"quantiles": list(self.quantiles), "pairs": self.pairs}


@dataclass(frozen=True, slots=True)
class Drift:
    """How far n scored pairs are from the calibration set."""

    psi: float  # population stability index over ten bins, from 0
    ks: float  # Kolmogorov-Smirnov distance, in [0, 1]
    p_value: float  # of that distance, asymptotic
    drifted: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def measure_drift(reference: Reference, preference: Float64) -> Drift:
    """Compare raw preferences with the calibration set's.

    The population stability index is sum (q - p) ln(q / p) over bins of the calibration set's
    deciles, each bin with half a pair more, so that an empty one is finite. Distance and p-value
    are Kolmogorov's and Smirnov's for two samples.

    Args:
        reference: of the calibration set.
        preference: n raw preferences, n > 0.
    """
    known = np.asarray(reference.quantiles)
    scored = np.sort(preference)
    psi = _stability(known, reference.pairs, scored)
    # Both empirical distributions, just at and just below every kept quantile.
    share = np.linspace(0, 1, len(known))
    at = np.searchsorted(scored, known, side="right") / len(scored)
    below = np.searchsorted(scored, known, side="left") / len(scored)
    upper = np.searchsorted(known, known, side="right") - 1
    lower = np.searchsorted(known, known, side="left")
    ks = float(max(0.0, np.max(at - share[upper]), np.max(share[lower] - below)))
    ks = max(ks, float(np.mean(scored > known[-1])), float(np.mean(scored < known[0])))
    p_value = _kolmogorov(ks, reference.pairs, len(scored))
    return Drift(psi, ks, p_value, drifted=psi > PSI_LIMIT or p_value < P_LIMIT)


def _stability(known: Float64, pairs: int, scored: Float64) -> float:
    edges = np.unique(np.interp(np.arange(1, BINS) / BINS, np.linspace(0, 1, len(known)), known))
    old = np.searchsorted(known, edges, side="right") / len(known) * pairs
    new = np.searchsorted(scored, edges, side="right")
    p = np.diff([0, *old, pairs]) + 0.5
    q = np.diff([0, *new, len(scored)]) + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((q - p) * np.log(q / p)))


def _kolmogorov(distance: float, n: int, m: int) -> float:
    """P(a larger distance by chance): Kolmogorov's series with Stephens' correction."""
    size = math.sqrt(n * m / (n + m))
    x = (size + 0.12 + 0.11 / size) * distance
    if x < 0.2:
        return 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 101))
    return float(min(max(sum(terms), 0.0), 1.0))
