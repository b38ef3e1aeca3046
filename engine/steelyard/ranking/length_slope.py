"""What length is worth to a judge: one slope for all competitors, each with its own quality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Float64
from steelyard.statistics.clusters import Codes, cluster_sums
from steelyard.statistics.logistic import log_likelihood, maximise, sigmoid

# On the slope: half a unit of information that length is worth nothing. Where lengths do not show
# it, intervals then hold the truth of slopes up to 2 (with 1: up to 1.25; AlpacaEval's is 1.3).
RIDGE = 0.5
FINITE = 1e-3  # ridge on what is each competitor's own: one that always won has finite strength


@dataclass(frozen=True, slots=True)
class Slope:
    """Slope of the length feature in log-odds per unit, with each instruction's influence on it."""

    value: float
    influence: Float64  # [G]
    unknown: float  # variance that no instruction shows: that of the ridge


def length_feature(difference: Float64) -> Float64:
    """Return tanh(difference / its standard deviation), of one competitor; 0 if none differs."""
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
    """Fit the slope within competitors: logit P(win) = own @ coefficients_k + slope * length.

    A ridge draws it to 0, so that it is 0 where lengths do not show it, as where each competitor
    is always longer or always shorter. What the ridge hides is added to its variance.

    Args:
        preference: [n], P(the competitor beats the baseline).
        length: [n], `length_feature` of each competitor's differences.
        own: [n, F], features with a coefficient for each competitor, 1 among them.
        competitor: [n], whole numbers.
        cluster: [n], the instruction, from 0 to G - 1.
        weight: [n]; their scale does not matter. None: each 1.

    Raises:
        FitFailed: no maximum was reached.
    """
    w = np.ones(len(preference)) if weight is None else weight / weight.mean()
    names, code = np.unique(competitor, return_inverse=True)
    rows = _Rows(preference, length, own, code, w, len(names))
    fitted = maximise(rows, np.zeros(len(names) * own.shape[1] + 1))
    partial, residual = rows.partial(fitted), rows.residual(fitted)
    influence = partial.length * residual / partial.information
    return Slope(
        value=float(fitted[-1]),
        influence=np.bincount(cluster, influence).astype(np.float64),
        unknown=RIDGE / partial.information**2,
    )


@dataclass(frozen=True, slots=True)
class _Partial:
    """What length adds to the features of K competitors, which explain a part of it."""

    inverse: Float64  # [K, F, F], of the information on each competitor's own coefficients
    explained: Float64  # [K, F], coefficients of length on these features
    length: Float64  # [n], the rest of it
    information: float  # on the slope


@dataclass(frozen=True, slots=True)
class _Rows:
    """The likelihood of K competitors' own coefficients, then the slope: [K * F + 1]."""

    preference: Float64
    length: Float64
    own: Float64
    code: Codes  # [n], from 0 to K - 1
    weight: Float64
    competitors: int  # K

    def logits(self, fitted: Float64) -> Float64:
        coefficients = fitted[:-1].reshape(self.competitors, -1)
        own = (self.own * coefficients[self.code]).sum(axis=1)
        return np.asarray(own + self.length * fitted[-1])

    def value(self, fitted: Float64) -> float:
        penalty = FINITE * float(fitted[:-1] @ fitted[:-1]) + RIDGE * float(fitted[-1]) ** 2
        return log_likelihood(self.logits(fitted), self.preference, self.weight) - penalty / 2

    def residual(self, fitted: Float64) -> Float64:
        """Return [n]: weight * (outcome - prediction)."""
        return self.weight * (self.preference - sigmoid(self.logits(fitted)))

    def step(self, fitted: Float64) -> tuple[Float64, float]:
        residual, partial = self.residual(fitted), self.partial(fitted)
        gradient = self.by_competitor(self.own * residual[:, None])
        gradient -= FINITE * fitted[:-1].reshape(gradient.shape)
        along = float(residual @ self.length) - RIDGE * float(fitted[-1])
        slope = (along - float((partial.explained * gradient).sum())) / partial.information
        moved = np.einsum("kfg,kg->kf", partial.inverse, gradient) - partial.explained * slope
        return np.append(moved, slope), float((moved * gradient).sum()) + slope * along

    def partial(self, fitted: Float64) -> _Partial:
        """Solve for each competitor's own coefficients: there are too many for one matrix."""
        p = sigmoid(self.logits(fitted))
        curve = self.weight * p * (1 - p)
        weighted = self.own * curve[:, None]
        blocks = [self.by_competitor(weighted * column[:, None]) for column in self.own.T]
        information = np.stack(blocks, axis=1) + FINITE * np.eye(self.own.shape[1])
        inverse = np.asarray(np.linalg.inv(information), np.float64)
        cross = self.by_competitor(weighted * self.length[:, None])
        explained = np.einsum("kfg,kg->kf", inverse, cross)
        return _Partial(
            inverse=inverse,
            explained=explained,
            length=self.length - (self.own * explained[self.code]).sum(axis=1),
            information=float(curve @ self.length**2 + RIDGE - (cross * explained).sum()),
        )

    def by_competitor(self, values: Float64) -> Float64:
        """Return [K, k]: the sums of values [n, k] over each competitor's rows."""
        return cluster_sums(values, self.code, self.competitors)
