"""Weighted logistic regression with soft targets, and intervals that know of clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steelyard.calibrate.features import sigmoid
from steelyard.records import Float64, Int64

# A prior so weak (standard deviation 31) that it shows only where gold leaves a coefficient open:
# without it, gold that the judge gets right without exception would ask for an infinite slope.
RIDGE = 1e-3
STEPS = 100
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients with 95% intervals; shape (k,) and (k, 2)."""

    coefficients: Float64
    intervals: Float64


def fit_logistic(
    terms: Float64, targets: Float64, weights: Float64, groups: Int64, prior: Float64
) -> Fit:
    """Maximise sum w (t ln p + (1 - t) ln(1 - p)) for p = sigmoid(terms @ coefficients).

    Newton's method with halved steps; the objective is concave, and a weak prior makes it strictly
    so. Intervals are sandwich intervals over clusters (Liang and Zeger, Biometrika 1986).

    Args:
        terms: n x k.
        targets: n, in [0, 1]; a share of votes.
        weights: n, positive; the number of votes.
        groups: n, cluster numbers from 0.
        prior: k, where the weak prior has its middle.
    """
    found = np.zeros(terms.shape[1])
    loss = _loss(terms, targets, weights, found, prior)
    for _ in range(STEPS):
        slope, bend = _derivatives(terms, targets, weights, found, prior)
        step = np.linalg.solve(bend, slope)
        size = 1.0
        while size > 1e-9:
            moved = _loss(terms, targets, weights, found - size * step, prior)
            if moved <= loss:
                break
            size /= 2
        else:
            break
        found, gained, loss = found - size * step, loss - moved, moved
        if gained <= 1e-14 * (1 + abs(loss)) and np.abs(step).max() < 1e-9:
            break
    spread = NORMAL_95 * np.sqrt(_variances(terms, targets, weights, groups, found, prior))
    return Fit(found, np.stack([found - spread, found + spread], axis=1))


def _loss(terms: Float64, targets: Float64, weights: Float64, at: Float64, prior: Float64) -> float:
    value = terms @ at
    lost = weights @ (np.logaddexp(0, value) - targets * value)
    return float(lost + RIDGE / 2 * np.sum((at - prior) ** 2))


def _derivatives(
    terms: Float64, targets: Float64, weights: Float64, at: Float64, prior: Float64
) -> tuple[Float64, Float64]:
    p = sigmoid(terms @ at)
    slope = terms.T @ (weights * (p - targets)) + RIDGE * (at - prior)
    bend = (terms * (weights * p * (1 - p))[:, None]).T @ terms + RIDGE * np.eye(len(at))
    return slope, bend


def _variances(
    terms: Float64,
    targets: Float64,
    weights: Float64,
    groups: Int64,
    at: Float64,
    prior: Float64,
) -> Float64:
    _, bend = _derivatives(terms, targets, weights, at, prior)
    rows = terms * (weights * (sigmoid(terms @ at) - targets))[:, None]
    clusters = np.unique(groups, return_inverse=True)[1]
    sums = np.stack([np.bincount(clusters, weights=column) for column in rows.T], axis=1)
    inverse = np.linalg.inv(bend)
    spread = inverse @ (sums.T @ sums) @ inverse
    count = len(sums)
    return np.asarray(np.diag(spread) * count / max(count - 1, 1))


def cluster_mean(values: Float64, groups: Int64) -> tuple[float, Float64]:
    """The mean of n values and its 95% interval over clusters."""
    mean = float(values.mean())
    clusters = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(clusters, weights=values - mean)
    count = len(sums)
    spread = NORMAL_95 * np.sqrt(np.sum(sums**2) * count / max(count - 1, 1)) / len(values)
    return mean, np.array([mean - spread, mean + spread])
