"""Logistic regression on soft outcomes, with its covariance over clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from steelyard.errors import SteelyardError
from steelyard.records import Float64

_ROUNDS = 200
_CLOSE = 1e-10


class FitFailed(SteelyardError):
    """A regression has no maximum that could be found."""

    code = "fit"


@dataclass(frozen=True, slots=True)
class Regression:
    """Coefficients [F] and their covariance [F, F]."""

    coefficients: Float64
    covariance: Float64


def sigmoid(x: Float64) -> Float64:
    """1 / (1 + exp(-x)), without overflow."""
    half: Float64 = 0.5 * (1 + np.tanh(0.5 * x))
    return half


def fit(
    features: Float64,
    outcome: Float64,
    weight: Float64,
    cluster: npt.NDArray[np.integer[Any]],
    ridge: Float64,
) -> Regression:
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
            return Regression(found, _covariance(rows, cluster, information))
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
    gradients: Float64, cluster: npt.NDArray[np.integer[Any]], information: Float64
) -> Float64:
    """The sandwich, of the rows' gradients [n, F]."""
    _, codes = np.unique(cluster, return_inverse=True)
    sums = np.stack([np.bincount(codes, weights=column) for column in gradients.T], axis=1)
    bread, groups = np.linalg.inv(information), len(sums)
    covariance: Float64 = bread @ (sums.T @ sums) @ bread * groups / max(groups - 1, 1)
    return covariance
