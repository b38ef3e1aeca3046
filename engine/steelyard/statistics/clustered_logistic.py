"""Weighted logistic regression with soft targets, and intervals that know of clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Float64, Int64
from steelyard.statistics.logistic import sigmoid

# A prior so weak (standard deviation 31) that it shows only where gold leaves a coefficient open:
# without it, gold that the judge gets right without exception would ask for an infinite slope.
RIDGE = 1e-3
STEPS = 100
SMALLEST_STEP = 1e-9
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients with 95% intervals; shape (k,) and (k, 2)."""

    coefficients: Float64
    intervals: Float64


@dataclass(frozen=True, slots=True)
class LogisticData:
    """Data of a regression: n rows, k terms."""

    terms: Float64  # n x k
    targets: Float64  # n, in [0, 1]: a share of votes
    weights: Float64  # n, positive: the number of votes
    groups: Int64  # n, cluster numbers
    prior: Float64  # k, where the weak prior has its middle

    def loss(self, at: Float64) -> float:
        """What is minimised, at k coefficients."""
        value = self.terms @ at
        lost = self.weights @ (np.logaddexp(0, value) - self.targets * value)
        return float(lost + RIDGE / 2 * np.sum((at - self.prior) ** 2))

    def derivatives(self, at: Float64) -> tuple[Float64, Float64]:
        """Gradient (k) and Hessian (k x k) of the loss."""
        p = sigmoid(self.terms @ at)
        slope = self.terms.T @ (self.weights * (p - self.targets)) + RIDGE * (at - self.prior)
        bend = (self.terms * (self.weights * p * (1 - p))[:, None]).T @ self.terms
        return slope, bend + RIDGE * np.eye(len(at))

    def variances(self, at: Float64) -> Float64:
        """Sandwich variances of k coefficients over clusters (Liang and Zeger 1986)."""
        _, bend = self.derivatives(at)
        residuals = self.weights * (sigmoid(self.terms @ at) - self.targets)
        clusters = np.unique(self.groups, return_inverse=True)[1]
        rows = (self.terms * residuals[:, None]).T
        sums = np.stack([np.bincount(clusters, weights=row) for row in rows], axis=1)
        inverse = np.linalg.inv(bend)
        count = len(sums)
        spread = inverse @ (sums.T @ sums) @ inverse * count / max(count - 1, 1)
        return np.asarray(np.diag(spread))


def fit_logistic(data: LogisticData) -> Fit:
    """Maximise sum w (t ln p + (1 - t) ln(1 - p)) for p = sigmoid(terms @ coefficients).

    Newton's method with halved steps; the objective is concave, and a weak prior makes it strictly
    so. Intervals are sandwich intervals over clusters.
    """
    found = np.zeros(data.terms.shape[1])
    loss = data.loss(found)
    for _ in range(STEPS):
        slope, bend = data.derivatives(found)
        step = np.linalg.solve(bend, slope)
        size = 1.0
        while size > SMALLEST_STEP and data.loss(found - size * step) > loss:
            size /= 2
        if size <= SMALLEST_STEP:
            break
        found = found - size * step
        gained, loss = loss - data.loss(found), data.loss(found)
        if gained <= 1e-14 * (1 + abs(loss)) and np.abs(step).max() < SMALLEST_STEP:
            break
    spread = NORMAL_95 * np.sqrt(data.variances(found))
    return Fit(found, np.stack([found - spread, found + spread], axis=1))


def cluster_mean(values: Float64, groups: Int64) -> tuple[float, Float64]:
    """The mean of n values and its 95% interval over clusters."""
    mean = float(values.mean())
    clusters = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(clusters, weights=values - mean)
    count = len(sums)
    spread = NORMAL_95 * np.sqrt(np.sum(sums**2) * count / max(count - 1, 1)) / len(values)
    return mean, np.array([mean - spread, mean + spread])
