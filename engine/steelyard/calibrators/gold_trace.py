"""What a calibrator keeps of the gold it was fitted to, so that nobody evaluates it on that gold.

Pairs are known by digests, at most MOST_DIGESTS of them. Each fold of instructions has the curve
that was fitted to the other folds: it has not seen the gold that it is evaluated on.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.folds import FOLDS, grouped_folds
from steelyard.calibrators.methods import Curve
from steelyard.calibrators.ties import MOST_TIES, fit_tie, tie_probability
from steelyard.core.schemas import Bool, Float64, Int64, UInt64

# Of more pairs those with the smallest digests are kept, a random sample: 1.1 MB of text.
MOST_DIGESTS = 100_000
_STORED = np.dtype("<u8")


def pack(digests: UInt64) -> str:
    """Return digests as text: base64 of rising numbers of eight bytes, without repeats."""
    return base64.b64encode(np.unique(digests).astype(_STORED).tobytes()).decode()


def unpack(text: str) -> UInt64:
    """Return the rising digests of a text.

    Raises:
        ValueError: this is not such a text.
    """
    raw = base64.b64decode(text, validate=True)
    if len(raw) % _STORED.itemsize:
        raise ValueError("digests are cut off")
    digests = np.frombuffer(raw, _STORED).astype(np.uint64)
    if (digests[1:] <= digests[:-1]).any():
        raise ValueError("digests do not rise")
    return digests


def contains(digests: UInt64, values: UInt64) -> Bool:
    """Return which of n values are among rising digests."""
    if not len(digests):
        return np.zeros(len(values), np.bool_)
    place = np.minimum(np.searchsorted(digests, values), len(digests) - 1)
    return np.asarray(digests[place] == values)


@dataclass(frozen=True, slots=True)
class Fold:
    """Pairs of some instructions, and what the gold of all others makes of the method."""

    pairs: str  # digests (`pack`)
    curve: Curve
    tie: Annotated[float, msgspec.Meta(gt=0, le=MOST_TIES)] | None = None

    def __post_init__(self) -> None:
        unpack(self.pairs)


@dataclass(frozen=True, slots=True)
class GoldTrace:
    """The pairs of a fit by fold; `seed` draws the folds."""

    seed: int
    folds: tuple[Fold, ...]

    @classmethod
    def of(
        cls,
        fit: Callable[[Features, Gold], Curve],
        features: Features,
        gold: Gold,
        pair_ids: UInt64,
        seed: int,
    ) -> GoldTrace:
        """Fit each fold's curve.

        Args:
            fit: the method that was chosen on all of this gold.
            features: of n pairs.
            gold: of the same, with two instructions or more.
            pair_ids: their digests.
            seed: of the folds.
        """
        number = grouped_folds(gold.groups, FOLDS, seed)
        last = np.sort(pair_ids)[:MOST_DIGESTS][-1]
        folds = []
        for fold in range(int(number.max()) + 1):
            rest, listed = number != fold, (number == fold) & (pair_ids <= last)
            curve = fit(features.take(rest), gold.take(rest))
            tie = fit_tie(curve.preference(features.take(rest)), gold.votes[rest])
            folds.append(Fold(pack(pair_ids[listed]), curve, tie))
        return cls(seed, tuple(folds))

    def fold_of(self, pair_ids: UInt64) -> Int64:
        """Return the fold of each of n pairs; -1: the calibrator was not fitted to it."""
        number = np.full(len(pair_ids), -1, dtype=np.int64)
        for fold, content in enumerate(self.folds):
            number[contains(unpack(content.pairs), pair_ids)] = fold
        return number

    def crossfit(
        self, features: Features, pair_ids: UInt64, preference: Float64, tie: Float64 | None
    ) -> tuple[Float64, Float64 | None]:
        """Return n preferences and P(tie), by other folds' gold where the pair was in the fit.

        `preference` and `tie` are those that the calibrator gives.
        """
        number = self.fold_of(pair_ids)
        preference, tie = preference.copy(), None if tie is None else tie.copy()
        for fold, content in enumerate(self.folds):
            rows = number == fold
            preference[rows] = content.curve.preference(features.take(rows))
            if tie is not None and content.tie is not None:
                tie[rows] = tie_probability(preference[rows], content.tie)
        return preference, tie
