"""Members of an ensemble weighted by gold: stacked logistic regression (Wolpert 1992).

A member is a judge with a variant of the prompt. Each of its orders has a separate slope, and so
has the share of its samples. Members err together, so that their slopes are fitted together; how
far these may move from a plain sum is decided on held-out instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from steelyard.calibrators.features import (
    Features,
    Gold,
    Member,
    MemberValue,
    number_sql,
    sigmoid_sql,
)
from steelyard.calibrators.folds import FOLDS, grouped_folds
from steelyard.core.schemas import Bool, Float64, Int64
from steelyard.statistics.logistic import fit, log_loss, sigmoid

# Penalties on what each member's slope differs from the sum by, per standard deviation of its
# logits: prior standard deviations of 1/2, 1/8 and about 1/23, and none.
PENALTIES = (4.0, 64.0, 512.0, np.inf)
MOST_PAIRS = 5000  # that combinations are compared on
WEAK = 1e-3  # penalty on the slope of the sum and the intercept
SEED = 0  # of the folds


class Weight(msgspec.Struct, frozen=True):
    """The slope of one value of a member."""

    member: Annotated[int, msgspec.Meta(ge=1)]
    value: MemberValue
    slope: float

    @property
    def column(self) -> str:
        """Its SQL, over the columns of `verdicts`."""
        return f"members[{self.member}].{self.value}"


class Stacked(msgspec.Struct, frozen=True, tag_field="kind", tag="stacked"):
    """P(a is better) = sigmoid(intercept + logit x score + sum of slopes x members' values)."""

    intercept: float
    logit: float  # slope of the logit of all reads together
    weights: tuple[Weight, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """What the SQL reads, besides the column of the score."""
        return tuple(weight.column for weight in self.weights)

    def preference(self, features: Features) -> Float64:
        """Return P(a is better) of n pairs.

        Raises:
            ValueError: the features lack a member.
        """
        total = self.intercept + self.logit * features.score
        members = features.members or {}
        for weight in self.weights:
            values = members.get(Member(weight.member, weight.value))
            if values is None:
                raise ValueError(f"the reads have no {weight.column}")
            total = total + weight.slope * values
        return sigmoid(total)

    def sql(self, score: str) -> str:
        """Return that as SQL over columns of `verdicts`; `score` is the expression of the logit."""
        parts = (f"{number_sql(weight.slope)} * {weight.column}" for weight in self.weights)
        start = f"{number_sql(self.intercept)} + {number_sql(self.logit)} * {score}"
        return sigmoid_sql(" + ".join([start, *parts]))


class _Start(NamedTuple):
    """A weighted sum that slopes are drawn to: all reads, or one member's."""

    values: Float64  # n
    shares: Float64  # k, of the values of members in it
    score: float  # of the logit of all reads in it

    def take(self, rows: Bool) -> _Start:
        """Return the pairs in these rows."""
        return self._replace(values=self.values[rows])


def fit_stacked(features: Features, gold: Gold) -> Stacked:
    """Fit slopes that are drawn to a sum: of all reads, or of the reads of one member.

    The fit is a mean over these sums and over how strongly slopes are drawn to them, a sum with a
    single slope included. Weights are exp(-log loss) on held-out instructions (pseudo-BMA: Yao,
    Vehtari, Simpson and Gelman 2018): with little gold, equal weights and single members keep
    theirs; with much, the best combination has nearly all. All are linear in logits, and so is
    their mean.
    """
    members = features.members or {}
    keys = list(members)
    values = np.stack([members[key] for key in keys], axis=1)
    units = values.std(axis=0)
    units = np.where(units > 0, units, 1.0)
    starts = _starts(features, keys, values)
    tried = [(start, penalty) for start in starts for penalty in PENALTIES]
    some = grouped_folds(gold.groups, -(-len(gold) // MOST_PAIRS), SEED) == 0
    folds = np.where(some, grouped_folds(gold.groups, FOLDS, SEED), -1)
    losses = np.array([_held_out(*way, values / units, gold, folds) for way in tried])
    shares = np.exp(losses.min() - losses)
    total = np.zeros(len(keys) + 2)
    for share, (start, penalty) in zip(shares / shares.sum(), tried, strict=True):
        intercept, common, *own = _slopes(start, values / units, gold, penalty)
        slopes = common * start.shares + np.array(own) / units
        total += share * np.array([intercept, common * start.score, *slopes])
    intercept, common, *slopes = total.tolist()
    weights = (Weight(key.number, key.value, x) for key, x in zip(keys, slopes, strict=True))
    return Stacked(intercept, common, tuple(weights))


def _held_out(start: _Start, penalty: float, scaled: Float64, gold: Gold, folds: Int64) -> float:
    """Return the log loss of all pairs that have a fold, by slopes from the other folds."""
    losses = np.zeros(len(gold))
    for fold in range(int(folds.max()) + 1):
        test, others = folds == fold, (folds >= 0) & (folds != fold)
        slopes = _slopes(start.take(others), scaled[others], gold.take(others), penalty)
        logits = _design(start, scaled)[test] @ slopes
        losses[test] = log_loss(sigmoid(logits), gold.preference[test])
    return float(gold.weights @ losses / gold.weights.mean())


def _starts(features: Features, keys: Sequence[Member], values: Float64) -> list[_Start]:
    starts = [_Start(features.score, np.zeros(len(keys)), 1.0)]
    for number in sorted({key.number for key in keys}):
        for kinds in (("logit", "logit_ab", "logit_ba"), ("share",)):
            mine = np.array([key.number == number and key.value in kinds for key in keys])
            if mine.any():
                shares = mine / mine.sum()
                starts.append(_Start(values @ shares, shares, 0.0))
    return starts


def _design(start: _Start, scaled: Float64) -> Float64:
    return np.column_stack([np.ones(len(scaled)), start.values, scaled])


def _slopes(start: _Start, scaled: Float64, gold: Gold, penalty: float) -> Float64:
    """Return the intercept, the slope of the sum, and what members add to it."""
    design = _design(start, scaled)
    if np.isinf(penalty):
        design = design[:, :2]
    unit = min(float(start.values.std()), 1.0) or 1.0
    ridge = np.full(design.shape[1], penalty)
    ridge[:2] = WEAK, WEAK * unit**2
    prior = np.zeros(len(ridge))
    prior[1] = 1.0
    fitted = fit(design, gold.preference, gold.weights, gold.groups, ridge, prior=prior)
    slopes = np.zeros(scaled.shape[1] + 2)
    slopes[: len(ridge)] = fitted.coefficients
    return slopes
