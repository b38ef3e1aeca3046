"""Calibrators that are curves through knots: isotonic (straight between knots), histogram (steps).

Knots are on the scale of logits.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import msgspec
import numpy as np

from steelyard.calibrators.features import Features, number_sql, unit_of
from steelyard.core.schemas import Float64

# Knots nearer than this, in logits or in standard deviations, are merged: rounding must not move a
# preference.
CLOSEST = 1e-6


_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class PiecewiseLinear(msgspec.Struct, frozen=True, tag_field="kind", tag="knots"):
    """A line through points (x, y) that is level outside; x rises, and y is in (0, 1)."""

    x: tuple[float, ...]
    y: tuple[_Share, ...]
    columns = ()

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or not self.x or not _rising(self.x):
            raise ValueError("knots do not rise")

    def preference(self, features: Features) -> Float64:
        """Return P(a is better) of n pairs."""
        x, y = np.asarray(self.x), np.asarray(self.y)
        if len(x) == 1:
            return np.full(len(features), y[0])
        knot = np.clip(np.searchsorted(x, features.score, side="right") - 1, 0, len(x) - 2)
        part = np.clip((features.score - x[knot]) / (x[knot + 1] - x[knot]), 0, 1)
        return np.asarray(y[knot] + part * (y[knot + 1] - y[knot]))

    def sql(self, score: str) -> str:
        """Return that as SQL; `score` is the expression of the logit."""
        if len(self.x) == 1:
            return number_sql(self.y[0])
        knots = zip(map(number_sql, self.x), map(number_sql, self.y), strict=True)
        pieces = [
            f"{y} + least(greatest(({score} - {x}) / ({right} - {x}), 0), 1) * ({above} - {y})"
            for (x, y), (right, above) in pairwise(knots)
        ]
        return _tree(score, list(self.x[1:-1]), pieces)


class Histogram(msgspec.Struct, frozen=True, tag_field="kind", tag="bins"):
    """Level between `edges` (rising, one fewer than `levels`); a score on an edge is above it."""

    edges: tuple[float, ...]
    levels: tuple[_Share, ...]
    columns = ()

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.edges) + 1 or not _rising(self.edges):
            raise ValueError("edges do not rise")

    def preference(self, features: Features) -> Float64:
        """Return P(a is better) of n pairs."""
        bins = np.searchsorted(np.asarray(self.edges), features.score, side="right")
        return np.asarray(self.levels)[bins]

    def sql(self, score: str) -> str:
        """Return that as SQL; `score` is the expression of the logit."""
        return _tree(score, list(self.edges), [number_sql(level) for level in self.levels])


def _rising(values: tuple[float, ...]) -> bool:
    return all(low < high for low, high in pairwise(values))


def _tree(score: str, edges: list[float], pieces: list[str]) -> str:
    """Return a balanced tree of CASEs, of which a row passes log(pieces)."""
    if not edges:
        return pieces[0]
    middle = len(edges) // 2
    below = _tree(score, edges[:middle], pieces[: middle + 1])
    above = _tree(score, edges[middle + 1 :], pieces[middle + 1 :])
    return f"CASE WHEN {score} < {number_sql(edges[middle])} THEN {below} ELSE {above} END"


def isotonic_knots(score: Float64, targets: Float64, weights: Float64) -> PiecewiseLinear:
    """Fit isotonic regression of targets on scores (Zadrozny and Elkan, KDD 2002).

    Levels stay half a vote away from 0 and 1: a finite number of votes proves no certainty.
    """
    from steelyard_kernels.isotonic import isotonic

    x, mean, mass = _merged(score, targets, weights)
    fitted = isotonic(mean, mass)
    edge = 0.5 / (mass.sum() + 1)
    fitted = np.clip(fitted, edge, 1 - edge)
    change = np.diff(fitted) != 0
    knots = np.append(True, change) | np.append(change, True)
    return PiecewiseLinear(tuple(x[knots].tolist()), tuple(fitted[knots].tolist()))


def histogram_bins(score: Float64, targets: Float64, weights: Float64, bins: int = 10) -> Histogram:
    """Fit means of targets in bins of equally many pairs (Zadrozny and Elkan, ICML 2001).

    Each bin has an extra vote, half of it for either response: Laplace's rule of succession.
    """
    x, mean, mass = _merged(score, targets, weights)
    counts = np.bincount(np.searchsorted(x, score, side="right") - 1, minlength=len(x))
    middle = np.cumsum(counts) - counts / 2
    code = np.minimum((middle * bins / len(score)).astype(np.int64), bins - 1)
    code = np.unique(code, return_inverse=True)[1]
    votes = np.bincount(code, weights=mass)
    levels = (np.bincount(code, weights=mass * mean) + 0.5) / (votes + 1)
    starts = np.flatnonzero(np.diff(code)) + 1
    edges = (x[starts] + x[starts - 1]) / 2
    return Histogram(tuple(edges.tolist()), tuple(levels.tolist()))


def _merged(score: Float64, targets: Float64, weights: Float64) -> tuple[Float64, Float64, Float64]:
    """Return rising scores with (nearly) equal ones merged: first score, mean, mass."""
    order = np.argsort(score, kind="stable")
    x, w = score[order], weights[order]
    new = np.append(True, np.diff(x) > CLOSEST * unit_of(x))
    code = np.cumsum(new) - 1
    mass = np.bincount(code, weights=w).astype(np.float64)
    return x[new], np.bincount(code, weights=w * targets[order]) / mass, mass
