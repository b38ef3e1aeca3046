"""Bradley-Terry with features of the row: what a difference is worth with strengths held fixed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Float64, Int32
from steelyard.ranking.tournament import Tournament
from steelyard.statistics.clusters import cluster_sums, clustered_covariance
from steelyard.statistics.logistic import log_likelihood, maximise, sigmoid


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
        FitFailed: there is no finite maximum.
    """
    size, extra = contest.size, features.shape[1]
    weight = contest.weights()
    i, j = contest.rows.pair // size, contest.rows.pair % size
    rows = _Rows(contest, features, weight, i, j)
    fitted = maximise(rows, np.zeros(size + extra))
    inverse = np.linalg.inv(rows.information(fitted))[:, size:]
    moved = inverse[i] - inverse[j] + features @ inverse[size:]
    influence = cluster_sums(moved * rows.residual(fitted)[:, None], contest.cluster)
    errors = np.sqrt(np.diag(clustered_covariance(influence)))
    return Contextual(fitted[:size] - fitted[:size].mean(), fitted[size:], errors)


def within_competitors(contest: Tournament, feature: Float64) -> float:
    """Return the share of a feature [n], in [0, 1], that no value per competitor explains.

    Where it is 0 the feature is a difference of competitors' own values, as strengths are.
    """
    size, weight = contest.size, contest.weights()
    i, j = contest.rows.pair // size, contest.rows.pair % size
    pairs = np.bincount(contest.rows.pair, weight, size * size).reshape(size, size)
    pairs = pairs + pairs.T
    weighted = weight * feature
    along = np.bincount(i, weighted, size) - np.bincount(j, weighted, size)
    own = np.linalg.lstsq(np.diag(pairs.sum(axis=0)) - pairs, along, rcond=None)[0]
    total = float(weighted @ feature)
    return float(weight @ (feature - own[i] + own[j]) ** 2) / total if total > 0 else 0.0


@dataclass(frozen=True, slots=True)
class _Rows:
    """The likelihood of strengths and coefficients [K + F], without a matrix [n, K + F]."""

    contest: Tournament
    features: Float64  # [n, F]
    weight: Float64  # [n]
    i: Int32  # [n] competitors
    j: Int32

    def logits(self, fitted: Float64) -> Float64:
        return fitted[self.i] - fitted[self.j] + self.features @ fitted[self.contest.size :]

    def value(self, fitted: Float64) -> float:
        strengths = fitted[: self.contest.size]
        half, once = np.full(len(strengths), 0.5), np.ones(len(strengths))
        value = log_likelihood(self.logits(fitted), self.contest.rows.preference, self.weight)
        return value + log_likelihood(strengths, half, once)

    def residual(self, fitted: Float64) -> Float64:
        """Return [n]: weight * (outcome - prediction)."""
        return self.weight * (self.contest.rows.preference - sigmoid(self.logits(fitted)))

    def step(self, fitted: Float64) -> tuple[Float64, float]:
        residual, size = self.residual(fitted), self.contest.size
        prior = 0.5 - sigmoid(fitted[:size])
        gradient = np.append(
            self.by_competitor(residual[:, None])[:, 0] + prior, self.features.T @ residual
        )
        step = np.linalg.solve(self.information(fitted), gradient)
        return step, float(gradient @ step)

    def information(self, fitted: Float64) -> Float64:
        """Return [K + F, K + F]: the negative second derivatives."""
        size = self.contest.size
        p, prior = sigmoid(self.logits(fitted)), sigmoid(fitted[:size])
        curve = self.weight * p * (1 - p)
        weighted = self.features * curve[:, None]
        pairs = np.bincount(self.contest.rows.pair, curve, size * size).reshape(size, size)
        own = pairs.sum(axis=0) + pairs.sum(axis=1) + prior * (1 - prior)
        cross = self.by_competitor(weighted)
        return np.block(
            [[np.diag(own) - pairs - pairs.T, cross], [cross.T, weighted.T @ self.features]]
        )

    def by_competitor(self, values: Float64) -> Float64:
        """Return [K, k]: the sums of values [n, k] over rows as i, less those as j."""
        size = self.contest.size
        return cluster_sums(values, self.i, size) - cluster_sums(values, self.j, size)
