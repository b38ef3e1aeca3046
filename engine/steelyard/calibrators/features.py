"""What a calibrator sees of a pair, and the functions between preferences and logits in SQL."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from steelyard.core.schemas import Bool, Float64, Int64
from steelyard.statistics.logistic import NEAREST, STEEPEST


def number_sql(value: float) -> str:
    """Return a number as an exact DOUBLE: without an exponent DuckDB reads a DECIMAL.

    Raises:
        ValueError: it is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be a constant")
    text = repr(float(value))
    return f"({text})" if "e" in text else f"({text}e0)"


def logit_sql(column: str) -> str:
    """Return the SQL of the `logit` of a column."""
    p = f"least(greatest({column}, {number_sql(NEAREST)}), {number_sql(1 - NEAREST)})"
    return f"(ln({p}) - ln(1 - {p}))"


def sigmoid_sql(expression: str) -> str:
    """Return the SQL of the `sigmoid` of an expression."""
    low, high = number_sql(-STEEPEST), number_sql(STEEPEST)
    return f"1 / (1 + exp(-greatest({low}, least({high}, {expression}))))"


MemberValue: TypeAlias = Literal["logit", "logit_ab", "logit_ba", "share"]


class Member(NamedTuple):
    """A value of a member of an ensemble, a judge with a variant of the prompt.

    `logit_ab` and `logit_ba` are its logits in each order, or `logit` where there are no orders;
    `share` is the logit of the share of its samples that prefer response_a.
    """

    number: int  # in `verdicts.members`, from 1
    value: MemberValue


SAME = 1e-9  # scores that differ by less, as a share of them, differ by rounding


def unit_of(score: Float64) -> float:
    """Return the standard deviation of n scores if it is less than 1 and no rounding, else 1."""
    spread = float(score.std())
    return min(spread, 1.0) if spread > SAME * np.abs(score).max() else 1.0


@dataclass(frozen=True, slots=True)
class Features:
    """Raw reads of n pairs; columns of length n, no NaN.

    `score` is the logit of "response_a is better", both orders combined. Where a source gives
    preferences, it is their logit; a reward model gives its score difference itself, whose scale
    means nothing before a calibrator is fitted.
    """

    score: Float64
    score_ab: Float64 | None = None  # logits as read in each order
    score_ba: Float64 | None = None
    longer: Float64 | None = None  # characters of response_a less those of response_b
    has_scale: bool = True  # whether sigmoid(score) claims to be a probability
    members: Mapping[Member, Float64] | None = None  # of an ensemble, or of several samples

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: Int64 | Bool) -> Features:
        """Return the pairs in these rows."""
        ab, ba, longer = (
            None if column is None else column[rows]
            for column in (self.score_ab, self.score_ba, self.longer)
        )
        members = self.members
        if members is not None:
            members = {member: values[rows] for member, values in members.items()}
        return Features(self.score[rows], ab, ba, longer, self.has_scale, members)


@dataclass(frozen=True, slots=True)
class Gold:
    """What people say about n pairs.

    `votes[i]` are the votes for a, for b and for a tie: counts or weights with a positive sum.
    `groups[i]` is the number of the pair's instruction: pairs of one instruction are not
    independent, so intervals and cross-validation go by instruction.
    """

    votes: Float64  # n x 3
    groups: Int64  # n, from 0

    def __len__(self) -> int:
        return len(self.votes)

    @property
    def weights(self) -> Float64:
        """Votes per pair."""
        return np.asarray(self.votes.sum(axis=1))

    @property
    def preference(self) -> Float64:
        """Share of votes for a, ties halved: the target of every fit."""
        return np.asarray((self.votes[:, 0] + self.votes[:, 2] / 2) / self.weights)

    @property
    def sizes(self) -> Int64:
        """Pairs of each instruction."""
        return np.unique(self.groups, return_counts=True)[1].astype(np.int64)

    def take(self, rows: Int64 | Bool) -> Gold:
        """Return the pairs in these rows; groups keep their numbers."""
        return Gold(self.votes[rows], self.groups[rows])
