"""Bradley-Terry with features of the row: what a difference is worth with strengths held fixed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from steelyard.core.schemas import Float64
from steelyard.ranking.tournament import Tournament
from steelyard.statistics.logistic import FitFailed, sigmoid

_ROUNDS = 100
_CLOSE = 1e-9


@dataclass(frozen=True, slots=True)
class Contextual:
    """Strengths [K], sum 0, and coefficients [F] with their standard errors over clusters."""

    strengths: Float64
    coefficients: Float64
    standard_errors: Float64


def fit_contextual(contest: Tournament, features: Float64) -> Contextual:
    """Fit logit P(i beats j) = strength_i - strength_j + features @ coefficients.

    Every competitor has one tie with an imaginary average one, so that strengths are finite.

    Args:
        contest: n comparisons of K competitors.
        features: float64 [n, F], of the pair's lower competitor less the other's.

    Raises:
        FitFailed: no finite maximum.
    """
    size, extra = contest.size, features.shape[1]
    rows = _Rows(features, contest.rows.pair // size, contest.rows.pair % size)
    w = contest.rows.weight if len(contest.rows.weight) else np.ones(len(contest))
    at = np.zeros(size + extra)
    for _ in range(_ROUNDS):
        p = sigmoid(at[rows.i] - at[rows.j] + features @ at[size:])
        rest = w * (contest.rows.preference - p)
        gradient = np.concatenate([rows.by_competitor(rest, size), features.T @ rest])
        gradient[:size] += 0.5 - sigmoid(at[:size])
        information = _information(contest, rows, w * p * (1 - p), at[:size])
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            break
        largest = np.abs(step).max()
        if largest < _CLOSE:
            inverse: Float64 = np.asarray(np.linalg.inv(information)[size:], dtype=np.float64)
            errors = _errors(contest, rows, rest, inverse)
            return Contextual(at[:size] - at[:size].mean(), at[size:], errors)
        at = at + step * min(1.0, 4 / largest)
    raise FitFailed(
        "strengths and features have no finite maximum together",
        remedy="take more comparisons, or fewer features",
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    features: Float64  # [n, F]
    i: npt.NDArray[np.int32]  # [n] competitors
    j: npt.NDArray[np.int32]

    def by_competitor(self, values: Float64, size: int) -> Float64:
        """[K]: sum of values over a competitor's rows as i, less that as j."""
        gained: Float64 = np.bincount(self.i, values, size).astype(np.float64)
        return gained - np.bincount(self.j, values, size)


def _information(contest: Tournament, rows: _Rows, h: Float64, strengths: Float64) -> Float64:
    size, extra = contest.size, rows.features.shape[1]
    out = np.zeros((size + extra, size + extra))
    pairs = np.bincount(contest.rows.pair, h, size * size).reshape(size, size)
    out[:size, :size] = np.diag(pairs.sum(axis=0) + pairs.sum(axis=1)) - pairs - pairs.T
    p = sigmoid(strengths)
    out[:size, :size] += np.diag(p * (1 - p))
    for f in range(extra):
        cross = rows.by_competitor(h * rows.features[:, f], size)
        out[:size, size + f] = out[size + f, :size] = cross
    out[size:, size:] = (rows.features * h[:, None]).T @ rows.features
    return out


def _errors(contest: Tournament, rows: _Rows, rest: Float64, inverse: Float64) -> Float64:
    """Sandwich over clusters of the coefficients, by each row's influence [F, n] on them.

    Args:
        contest: the comparisons.
        rows: their features.
        rest: float64 [n], weight * (outcome - prediction).
        inverse: float64 [F, K + F], the coefficients' rows of the inverse information.
    """
    size, groups = contest.size, contest.clusters
    influence = rest * (
        inverse[:, rows.i] - inverse[:, rows.j] + inverse[:, size:] @ rows.features.T
    )
    sums = np.stack([np.bincount(contest.cluster, one, groups) for one in influence])
    return np.asarray(np.sqrt((sums**2).sum(axis=1) * groups / max(groups - 1, 1)))
