"""Logistic regression on soft outcomes, with its covariance over clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from steelyard.core.schemas import Float64
from steelyard.errors import SteelyardError

# A preference that is nearer to 0 or 1 counts as this far away: its logit is finite (27.6).
NEAREST = 1e-12
STEEPEST = 700.0  # past it the exponential overflows, and the sigmoid is 0 or 1 long before
_ROUNDS = 200
_CLOSE = 1e-10


class FitFailed(SteelyardError):
    """A regression has no maximum that could be found."""

    code = "fit"


@dataclass(frozen=True, slots=True)
class LogisticFit:
    """Coefficients [F] and their covariance [F, F], the sandwich over clusters."""

    coefficients: Float64
    covariance: Float64
    scores: Float64  # [n, F], each row's gradient at the maximum
    inverse: Float64  # [F, F], of the information


def logit(preference: Float64) -> Float64:
    """ln(p / (1 - p)), with p kept NEAREST away from 0 and 1."""
    p = np.clip(preference, NEAREST, 1 - NEAREST)
    return np.asarray(np.log(p) - np.log(1 - p))


def sigmoid(value: Float64) -> Float64:
    """1 / (1 + exp(-value)); finite for any value."""
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -STEEPEST, STEEPEST))))


def fit(
    features: Float64,
    outcome: Float64,
    weight: Float64,
    cluster: npt.NDArray[np.integer[Any]],
    ridge: Float64,
) -> LogisticFit:
    """Maximise sum of w (y log p + (1 - y) log(1 - p)) - sum of ridge * coefficient**2 / 2.

    Newton's method with halved steps; the covariance is the sandwich over clusters.

    Args:
        features: float64 [n, F]; no intercept is added.
        outcome: float64 [n], in [0, 1].
        weight: float64 [n], not negative. Rows with a weight below 1 count as less.
        cluster: whole numbers [n].
        ridge: float64 [F], not negative.

    Raises:
        FitFailed: no finite maximum, as where a feature separates wins from losses.
    """
    found = np.zeros(features.shape[1])
    value = _value(features, outcome, weight, ridge, found)
    for _ in range(_ROUNDS):
        p = sigmoid(features @ found)
        gradient = features.T @ (weight * (outcome - p)) - ridge * found
        information = (features * (weight * p * (1 - p))[:, None]).T @ features + np.diag(ridge)
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            break
        if np.abs(step).max() < _CLOSE:
            rows = features * (weight * (outcome - p))[:, None]
            inverse = np.asarray(np.linalg.inv(information), dtype=np.float64)
            return LogisticFit(found, _covariance(rows, cluster, inverse), rows, inverse)
        for _half in range(40):
            risen = _value(features, outcome, weight, ridge, found + step)
            if risen >= value - 1e-12 * abs(value):
                break
            step = step / 2
        found, value = found + step, risen
    raise FitFailed(
        "the regression has no finite maximum: a feature separates wins from losses",
        remedy="leave the feature out, or take more comparisons",
    )


def _value(x: Float64, y: Float64, w: Float64, ridge: Float64, at: Float64) -> float:
    z = x @ at
    loss = np.logaddexp(0, z) - y * z
    return -float((w * loss).sum()) - float((ridge * at**2).sum()) / 2


def _covariance(
    scores: Float64, cluster: npt.NDArray[np.integer[Any]], inverse: Float64
) -> Float64:
    _, codes = np.unique(cluster, return_inverse=True)
    columns = [np.bincount(codes, weights=column) for column in scores.T]
    sums = np.stack(columns, axis=1).astype(np.float64)
    return sandwich(inverse, sums, len(sums))


def sandwich(inverse: Float64, sums: Float64, groups: int) -> Float64:
    """Covariance [F, F] of coefficients: inverse @ sums' @ sums @ inverse * groups / (groups - 1).

    Args:
        inverse: float64 [F, F], of the information.
        sums: float64 [G, F], of the scores in each cluster.
        groups: how many clusters there are.
    """
    covariance: Float64 = inverse @ (sums.T @ sums) @ inverse * groups / max(groups - 1, 1)
    return covariance
