"""What length is worth to a judge: one slope for all competitors, each with its own quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Float64
from steelyard.statistics.logistic import FitFailed, sigmoid
from steelyard.statistics.means import Codes

# On the slope: half a unit of information that length is worth nothing. Where lengths do not tell
# it, intervals then hold the truth of slopes up to 2 (with 1: up to 1.25; AlpacaEval's is 1.3).
RIDGE = 0.5
_FINITE = 1e-3  # ridge on what is each competitor's own: one that always won has finite strength
_ROUNDS = 200
_CLOSE = 1e-9
_FARTHEST = 4.0  # log-odds a step


@dataclass(frozen=True, slots=True)
class Slope:
    """Log-odds a unit of the length feature, and how it was come by."""

    value: float
    influence: Float64  # [G], how far each instruction moved it
    unknown: float  # variance that no instruction shows: that of the ridge


@dataclass(frozen=True, slots=True)
class _Parts:
    """One competitor's rows: what length explains, and what is its own."""

    rows: Codes  # places in the columns
    own: Float64  # [n, F], the features with coefficients of its own
    inverse: Float64  # [F, F], of the information on these
    cross: Float64  # [F], information that they share with length


def length_feature(difference: Float64) -> Float64:
    """tanh(difference / its standard deviation), of one competitor; 0 where none differs."""
    spread = difference.std(ddof=1) if len(difference) > 1 else 0.0
    return np.tanh(difference / spread) if spread > 0 else np.zeros(len(difference))


def length_slope(
    preference: Float64,
    length: Float64,
    own: Float64,
    competitor: Codes,
    *,
    cluster: Codes,
    weight: Float64 | None = None,
) -> Slope:
    """The slope within competitors: logit P(win) = own_k @ coefficients_k + slope * length.

    A ridge draws it to 0, so that it is 0 where lengths do not tell it, as where each competitor
    is always longer or always shorter. What the ridge hides is added to its variance.

    Args:
        preference: float64 [n], P(the competitor beats the baseline).
        length: float64 [n], `length_feature` of each competitor's differences.
        own: float64 [n, F], features with a coefficient for each competitor, 1 among them.
        competitor: whole numbers [n].
        cluster: whole numbers [n] from 0 to G - 1, the instruction.
        weight: float64 [n]; their scale does not matter. None: each 1.

    Raises:
        FitFailed: no maximum was found.
    """
    w = np.ones(len(preference)) if weight is None or not len(weight) else weight / weight.mean()
    places = [np.flatnonzero(competitor == code) for code in np.unique(competitor)]
    at, slope = np.zeros((len(places), own.shape[1])), 0.0
    for _ in range(_ROUNDS):
        linear = length * slope
        for k, rows in enumerate(places):
            linear[rows] += own[rows] @ at[k]
        p = sigmoid(linear)
        rest, curve = w * (preference - p), w * p * (1 - p)
        parts = [_split(rows, own[rows], length[rows], curve[rows]) for rows in places]
        information = float(curve @ length**2) + RIDGE
        information -= sum(float(one.cross @ one.inverse @ one.cross) for one in parts)
        pull = [one.own.T @ rest[one.rows] - _FINITE * at[k] for k, one in enumerate(parts)]
        step = float(rest @ length) - RIDGE * slope
        step -= sum(float(one.cross @ one.inverse @ g) for one, g in zip(parts, pull, strict=True))
        step /= information
        steps = np.stack(
            [one.inverse @ (g - one.cross * step) for one, g in zip(parts, pull, strict=True)]
        )
        largest = max(abs(step), float(np.abs(steps).max()))
        if largest < _CLOSE:
            moved = _residual(parts, length) * rest / information
            influence = np.bincount(cluster, moved).astype(np.float64)
            return Slope(slope, influence, RIDGE / information**2)
        share = min(1.0, _FARTHEST / largest)
        at, slope = at + share * steps, slope + share * step
    raise FitFailed(
        "what length is worth to the judge cannot be found: the regression does not come to rest",
        remedy="leave the lengths out: --map length_a=",
    )


def _split(rows: Codes, own: Float64, length: Float64, curve: Float64) -> _Parts:
    weighed = own * curve[:, None]
    information = weighed.T @ own + _FINITE * np.eye(own.shape[1])
    inverse = np.asarray(np.linalg.inv(information), dtype=np.float64)
    return _Parts(rows, own, inverse, weighed.T @ length)


def _residual(parts: Sequence[_Parts], length: Float64) -> Float64:
    """[n]: length without what each competitor's own features say of it."""
    left = length.copy()
    for one in parts:
        left[one.rows] -= one.own @ (one.inverse @ one.cross)
    return left
