"""Logistic regression on soft outcomes by Newton's method, with clustered standard errors.

The only sigmoid, logit and log loss in NumPy. A regression with a special structure is a
`Likelihood` and is climbed by the same `maximise`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from steelyard.core.schemas import Float64
from steelyard.errors import SteelyardError
from steelyard.statistics.clusters import Codes, cluster_sums, clustered_covariance
from steelyard.statistics.intervals import t_quantile

# A preference that is nearer to 0 or 1 counts as this far away: its logit is finite (27.6).
NEAREST = 1e-12
STEEPEST = 700.0  # past it the exponential overflows, and the sigmoid is 0 or 1 long before
SMALLEST = 2.220446049250313e-16  # preferences in log loss stay this far away from 0 and 1
ROUNDS = 200
HALVINGS = 40
# The last step gains less than this share of the log-likelihood: it squares an error that no
# longer counts. A step that is long although it gains nothing is on its way to infinity.
NO_GAIN, LONG = 1e-15, 1e-3
LEAST = 1e-6  # of what a fit leaves of a cluster's gradients: a cluster that decides alone


class FitFailed(SteelyardError):
    """A regression has no maximum that could be reached."""

    code = "fit"


class Likelihood(Protocol):
    """A concave log-likelihood of k coefficients."""

    def value(self, coefficients: Float64) -> float:
        """Return the log-likelihood."""

    def step(self, coefficients: Float64) -> tuple[Float64, float]:
        """Return Newton's step [k], and the gradient along it: twice the gain to expect."""


@dataclass(frozen=True, slots=True)
class LogisticFit:
    """Coefficients of F features, with what their uncertainty follows from."""

    coefficients: Float64  # [F]
    covariance: Float64  # [F, F], the sandwich over clusters
    scores: Float64  # [n, F], each row's gradient at the maximum
    inverse: Float64  # [F, F], of the information
    features: Float64  # [n, F]
    curvature: Float64  # [n], each row's information along its logit
    cluster: Codes  # [n]

    def intervals(self, level: float = 0.95) -> Float64:
        """Return the bounds [F, 2] of each coefficient, which hold with few clusters.

        A fit draws the gradients of the data that it is fitted to towards 0; CR2 undoes that (Bell
        and McCaffrey, Survey Methodology 28, 2002). Student's t has 1 / s - 1 degrees of freedom, s
        the sum of the clusters' squared shares of the information about a coefficient: one less
        than there are, if all say as much. Bounds are not finite where no row says anything.
        """
        size = len(self.coefficients)
        squares = self.features[:, :, None] * (self.features * self.curvature[:, None])[:, None, :]
        own = cluster_sums(squares.reshape(-1, size * size), self.cluster).reshape(-1, size, size)
        root = np.linalg.cholesky(self.inverse)
        lost, axes = np.linalg.eigh(root.T @ own @ root)
        along = np.einsum("gji,gj->gi", axes, cluster_sums(self.scores, self.cluster) @ root)
        along /= np.sqrt(np.maximum(1 - lost, LEAST))
        moved = np.einsum("gij,gj->gi", axes, along) @ root.T
        share = np.einsum("if,gij,jf->gf", self.inverse, own, self.inverse)
        with np.errstate(invalid="ignore"):  # of a feature that is 0 in every row
            degrees = 1 / ((share / share.sum(axis=0)) ** 2).sum(axis=0) - 1
            margin = t_quantile(level, degrees) * np.sqrt((moved**2).sum(axis=0))
        return np.stack([self.coefficients - margin, self.coefficients + margin], axis=1)


def logit(preference: Float64) -> Float64:
    """Return ln(p / (1 - p)), with p kept NEAREST away from 0 and 1."""
    p = np.clip(preference, NEAREST, 1 - NEAREST)
    return np.asarray(np.log(p) - np.log(1 - p))


def sigmoid(value: Float64) -> Float64:
    """Return 1 / (1 + exp(-value)), which is finite for any value."""
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -STEEPEST, STEEPEST))))


def log_loss(preference: Float64, target: Float64) -> Float64:
    """Return the cross-entropy of n soft targets, in nats, with p kept SMALLEST from 0 and 1."""
    p = np.clip(preference, SMALLEST, 1 - SMALLEST)
    return np.asarray(-target * np.log(p) - (1 - target) * np.log(1 - p))


def log_likelihood(logits: Float64, outcome: Float64, weight: Float64) -> float:
    """Return the sum of w (y ln p + (1 - y) ln(1 - p)) over n rows, p = sigmoid(logits)."""
    return -float(weight @ (np.logaddexp(0, logits) - outcome * logits))


def fit(
    features: Float64,
    outcome: Float64,
    weight: Float64,
    cluster: Codes,
    ridge: Float64,
    *,
    prior: Float64 | None = None,
) -> LogisticFit:
    """Maximise the log-likelihood less the sum of ridge * (coefficient - prior)**2 / 2.

    Args:
        features: float64 [n, F]; no intercept is added.
        outcome: float64 [n], in [0, 1].
        weight: float64 [n], not negative. Rows with a weight below 1 count as less.
        cluster: whole numbers [n]; rows of one cluster may depend on each other.
        ridge: float64 [F], not negative.
        prior: float64 [F], what the ridge draws coefficients to; None: 0.

    Raises:
        FitFailed: there is no finite maximum, as where a feature separates wins from losses.
    """
    centre = np.zeros(features.shape[1]) if prior is None else prior
    regression = _Regression(features, outcome, weight, ridge, centre)
    coefficients = maximise(regression, np.zeros(features.shape[1]))
    scores = features * regression.residual(coefficients)[:, None]
    inverse = np.asarray(np.linalg.inv(regression.information(coefficients)), dtype=np.float64)
    covariance = clustered_covariance(cluster_sums(scores, cluster) @ inverse)
    p = sigmoid(features @ coefficients)
    curvature = weight * p * (1 - p)
    return LogisticFit(coefficients, covariance, scores, inverse, features, curvature, cluster)


def maximise(likelihood: Likelihood, start: Float64, rounds: int = ROUNDS) -> Float64:
    """Climb a log-likelihood of k coefficients from `start` [k] to its maximum [k].

    Newton's method, with steps that are halved until they rise.

    Raises:
        FitFailed: there is no finite maximum, or none within this many steps.
    """
    coefficients, value = start, likelihood.value(start)
    for _ in range(rounds):
        try:
            step, gain = likelihood.step(coefficients)
        except np.linalg.LinAlgError:
            break
        if gain <= NO_GAIN * (1 + abs(value)) and np.abs(step).max() < LONG:
            return np.asarray(coefficients + step)
        for _half in range(HALVINGS):
            risen = likelihood.value(coefficients + step)
            if risen >= value - 1e-12 * abs(value):
                break
            step = step / 2
        coefficients, value = coefficients + step, risen
    raise FitFailed(
        "the regression has no finite maximum: a feature separates wins from losses",
        remedy="leave the feature out (--map length_a= leaves out lengths), or take more"
        " comparisons",
    )


@dataclass(frozen=True, slots=True)
class _Regression:
    """The likelihood of a plain regression: a dense matrix of features."""

    features: Float64
    outcome: Float64
    weight: Float64
    ridge: Float64
    prior: Float64

    def value(self, coefficients: Float64) -> float:
        penalty = self.ridge @ (coefficients - self.prior) ** 2 / 2
        logits = self.features @ coefficients
        return log_likelihood(logits, self.outcome, self.weight) - float(penalty)

    def step(self, coefficients: Float64) -> tuple[Float64, float]:
        pull = self.ridge * (coefficients - self.prior)
        gradient = self.features.T @ self.residual(coefficients) - pull
        step = np.linalg.solve(self.information(coefficients), gradient)
        return np.asarray(step, np.float64), float(gradient @ step)

    def residual(self, coefficients: Float64) -> Float64:
        """Return [n]: weight * (outcome - prediction)."""
        return self.weight * (self.outcome - sigmoid(self.features @ coefficients))

    def information(self, coefficients: Float64) -> Float64:
        """Return [F, F]: the negative second derivatives."""
        p = sigmoid(self.features @ coefficients)
        weighted = self.features * (self.weight * p * (1 - p))[:, None]
        return np.asarray(weighted.T @ self.features + np.diag(self.ridge))
