"""Judged pairs with their gold, and the three classes a, b and tie."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from steelyard.core.schemas import Bool, Float64, Int64

CLASSES = ("a", "b", "tie")
A, B, TIE = range(3)
LENGTHS_DIFFER = 30  # characters; below it neither response counts as longer


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """n judged pairs with gold; columns of length n.

    NaN in an order's preference: the judge gave no decision in that order. NaN in `tie`,
    `label_mass` or `longer`: not known of that pair.
    """

    preference: Float64  # P(a is better) + half of P(tie), in [0, 1], no NaN
    votes: Float64  # n x 3: for a, for b, for a tie; sums are positive
    groups: Int64  # the pair's instruction, from 0
    tie: Float64 | None = None  # P(tie)
    preference_ab: Float64 | None = None  # as read in each order
    preference_ba: Float64 | None = None
    label_mass: Float64 | None = None  # mean of both orders
    longer: Float64 | None = None  # characters of a less those of b
    hard: bool = False  # only 0, 0.5 and 1: a decision without a probability

    def __len__(self) -> int:
        return len(self.preference)

    def take(self, rows: Int64 | Bool) -> ScoredPairs:
        """Return the pairs in these rows."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        taken: dict[str, Any] = {
            name: column[rows] for name, column in columns.items() if isinstance(column, np.ndarray)
        }
        return replace(self, **taken)

    def shares(self) -> Float64:
        """Return the distribution of votes, n x 3."""
        return np.asarray(self.votes / self.votes.sum(axis=1, keepdims=True))


def predicted_classes(preference: Float64, tie: Float64 | None, band: float) -> Int64:
    """Return the class that each of n verdicts names.

    A tie if P(tie) is above both others', or if the preference is within `band` of one half (0:
    exactly there); otherwise the side of one half.
    """
    classes = np.where(preference > 0.5, A, B)
    if tie is not None:
        side = np.maximum(preference, 1 - preference) - tie / 2
        classes[tie > side] = TIE
    classes[np.abs(preference - 0.5) <= band] = TIE
    return classes.astype(np.int64)


def gold_classes(votes: Float64) -> Int64:
    """Return the class with the most votes; a tie if two share the lead."""
    top = votes.max(axis=1, keepdims=True)
    leading = votes == top
    return np.where(leading.sum(axis=1) > 1, TIE, leading.argmax(axis=1)).astype(np.int64)


def named_by_gold(preference: Float64, votes: Float64) -> Bool:
    """Return whether the side that a preference names has most votes; not for ties and 0.5."""
    gold = gold_classes(votes)
    return np.asarray((gold != TIE) & (preference != 0.5) & ((preference > 0.5) == (gold == 0)))


def both_orders_correct(ab: Float64, ba: Float64, gold: Int64) -> Bool:
    """Return which of n pairs are correct by JudgeBench's rule (arXiv 2410.12784).

    An order counts +1 if it names what gold names, -1 if it names the opposite, 0 for a tie or no
    decision; a pair is correct if the sum over both orders is positive.

    Args:
        ab: n preferences for response_a as read in order ab; NaN: none.
        ba: the same in order ba.
        gold: n classes; a gold tie is never named.
    """
    side = np.array([1.0, -1.0, 0.0])[gold]
    signs = [np.nan_to_num(np.sign(preference - 0.5)) for preference in (ab, ba)]
    return np.asarray(side * (signs[0] + signs[1]) > 0)
