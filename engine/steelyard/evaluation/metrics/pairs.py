"""Judged pairs beside gold, and the three classes a, b and tie."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from steelyard.core.schemas import Bool, Float64, Int64

CLASSES = ("a", "b", "tie")
A, B, TIE = range(3)
LENGTHS_DIFFER = 30  # characters; below it neither response counts as the longer one


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
        """The pairs at these places."""

        def taken(column: Float64 | None) -> Float64 | None:
            return None if column is None else column[rows]

        return ScoredPairs(
            preference=self.preference[rows],
            votes=self.votes[rows],
            groups=self.groups[rows],
            tie=taken(self.tie),
            preference_ab=taken(self.preference_ab),
            preference_ba=taken(self.preference_ba),
            label_mass=taken(self.label_mass),
            longer=taken(self.longer),
            hard=self.hard,
        )

    def swapped(self) -> ScoredPairs:
        """The same pairs with responses a and b exchanged."""
        return replace(
            self,
            preference=1 - self.preference,
            votes=self.votes[:, [B, A, TIE]],
            preference_ab=None if self.preference_ba is None else 1 - self.preference_ba,
            preference_ba=None if self.preference_ab is None else 1 - self.preference_ab,
            longer=None if self.longer is None else -self.longer,
        )

    def shares(self) -> Float64:
        """The distribution of votes, n x 3."""
        return np.asarray(self.votes / self.votes.sum(axis=1, keepdims=True))


def predicted_classes(preference: Float64, tie: Float64 | None, band: float) -> Int64:
    """The class that n verdicts name.

    A tie where P(tie) is above both others', and where the preference is within `band` of one
    half (0: exactly there); else the side of one half.
    """
    found = np.where(preference > 0.5, A, B)
    if tie is not None:
        side = np.maximum(preference, 1 - preference) - tie / 2
        found[tie > side] = TIE
    found[np.abs(preference - 0.5) <= band] = TIE
    return found.astype(np.int64)


def gold_classes(votes: Float64) -> Int64:
    """The class with the most votes; a tie where two share the lead."""
    top = votes.max(axis=1, keepdims=True)
    leading = votes == top
    return np.where(leading.sum(axis=1) > 1, TIE, leading.argmax(axis=1)).astype(np.int64)


def named_by_gold(preference: Float64, votes: Float64) -> Bool:
    """Whether the side that a preference names has the most votes; gold ties and 0.5 never."""
    gold = gold_classes(votes)
    return np.asarray((gold != TIE) & (preference != 0.5) & ((preference > 0.5) == (gold == 0)))


def both_orders_correct(ab: Float64, ba: Float64, gold: Int64) -> Bool:
    """JudgeBench's rule (arXiv 2410.12784) for n pairs: both orders' decisions together.

    An order counts +1 if it names what gold names, -1 if it names the opposite, 0 for a tie or no
    decision; correct is a positive sum.

    Args:
        ab: n preferences for response_a as read in order ab; NaN: none.
        ba: the same in order ba.
        gold: n classes; a gold tie is never named.
    """
    side = np.array([1.0, -1.0, 0.0])[gold]
    signs = [np.nan_to_num(np.sign(one - 0.5)) for one in (ab, ba)]
    return np.asarray(side * (signs[0] + signs[1]) > 0)
