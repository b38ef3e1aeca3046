"""The probability of a tie from a preference: Davidson's link.

Davidson (JASA 1970): P(tie) = v sqrt(P(a) P(b)). With p = P(a) + P(tie) / 2 this is a quadratic
equation for P(tie), so that a calibrated preference has its tie probability in closed form.
"""

from __future__ import annotations

import math

import numpy as np

from steelyard.calibrators.features import number_sql
from steelyard.core.schemas import Float64

MOST_TIES = 1.001e3  # the largest tie parameter, past what rounding makes of the bound
_LOWEST, _HIGHEST = math.log(1e-4), math.log(1e3)  # bounds of the tie parameter's logarithm
_GOLDEN = (math.sqrt(5) - 1) / 2


def tie_probability(preference: Float64, tie: float) -> Float64:
    """Return P(tie) in [0, 1] of n preferences; `tie` is Davidson's parameter, positive."""
    b = tie**2 / 2
    c = tie**2 * preference * (1 - preference)
    root = np.sqrt(np.maximum(b**2 + 4 * (1 - tie**2 / 4) * c, 0))
    return np.asarray(2 * c / (b + root))


def tie_sql(preference: str, tie: float) -> str:
    """Return `tie_probability` as SQL over the expression of the preference."""
    a, b, square = (number_sql(x) for x in (4 * (1 - tie**2 / 4), tie**2 / 2, (tie**2 / 2) ** 2))
    c = f"({number_sql(tie**2)} * {preference} * (1 - {preference}))"
    return f"2 * {c} / ({b} + sqrt(greatest({square} + {a} * {c}, 0)))"


def fit_tie(preference: Float64, votes: Float64) -> float | None:
    """Find the parameter of greatest likelihood, by golden-section search on its logarithm.

    From calibrated preferences [n] and their votes [n, 3]; None if no vote is a tie: then nothing
    is known about ties.
    """
    if not votes[:, 2].any():
        return None
    low, high = _LOWEST, _HIGHEST
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    left_loss, right_loss = _loss(preference, votes, left), _loss(preference, votes, right)
    while high - low > 1e-7:
        if left_loss < right_loss:
            high, right, right_loss = right, left, left_loss
            left = high - _GOLDEN * (high - low)
            left_loss = _loss(preference, votes, left)
        else:
            low, left, left_loss = left, right, right_loss
            right = low + _GOLDEN * (high - low)
            right_loss = _loss(preference, votes, right)
    return math.exp((low + high) / 2)


def _loss(preference: Float64, votes: Float64, log_tie: float) -> float:
    t = tie_probability(preference, math.exp(log_tie))
    three = np.stack([preference - t / 2, 1 - preference - t / 2, t], axis=1)
    return float(-np.sum(votes * np.log(np.maximum(three, 1e-300))))
