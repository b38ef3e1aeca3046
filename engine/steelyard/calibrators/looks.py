"""One promise over many looks at growing gold.

A look tests thresholds on instructions that no earlier look has tested, and multiplies what its
bets have won by then: a product that hardly ever gets high if the promise is broken (`abstention`).
What is tested, a curve and its thresholds, is a *rule*. It stays until the gold to fit it to has
doubled, or something else is asked for. A new rule is fitted to no instruction that is tested, is
tested on all of those at hand, and has a smaller share of the level.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from steelyard.calibrators.abstention import (
    BETS,
    TrustThreshold,
    confidence_of,
    describe_threshold,
    first_wealth,
    growth,
    level_of,
    lowest,
    new_wealth,
)
from steelyard.calibrators.features import Gold
from steelyard.calibrators.folds import grouped_folds
from steelyard.calibrators.gold_trace import MOST_DIGESTS, contains, pack, unpack
from steelyard.core.schemas import Bool, Float64, UInt64

_NUMBERS = np.dtype("<f8")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a look is for."""

    method: str
    agreement: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Looks:
    """All looks so far, and what the next needs to go on."""

    asked: Asked
    rule: int  # of the curve and its thresholds, counted from 0
    thresholds: tuple[float, ...]  # that are tested, falling
    wealth: str  # base64 of logs [T, 1 + BETS], little-endian float64
    largest: int  # most pairs of an instruction
    fitted: str  # digests of the instructions that the rule was fitted to (`pack`)
    tested: str  # digests of those that were ever tested
    seeds: tuple[int, ...]  # of each look; the first draws the halves
    instructions: tuple[int, ...]  # that each look was the first to test
    scores: Mapping[str, float] = field(default_factory=dict)  # of some pairs, by digest

    def __post_init__(self) -> None:
        sizes = (len(unpack(self.fitted)), self.largest, len(self.seeds), self.rule + 1)
        if min(sizes) < 1 or self.logs().shape != (len(self.thresholds), 1 + BETS):
            raise ValueError("looks and what they are about do not fit together")
        if min(self.seeds) < 0 or not all(name.isdecimal() for name in self.scores):
            raise ValueError("a seed is negative, or a digest is not a number")
        unpack(self.tested)

    def logs(self) -> Float64:
        """Return the logs of the wealth, [T, 1 + BETS]."""
        flat = np.frombuffer(base64.b64decode(self.wealth, validate=True), _NUMBERS)
        return flat.astype(np.float64).reshape(-1, 1 + BETS)

    def overlap(self, instructions: UInt64) -> int:
        """Return how many of n pairs are of instructions that an earlier look has seen."""
        digests = mixed(instructions)
        seen = contains(unpack(self.fitted), digests) | contains(unpack(self.tested), digests)
        return int(seen.sum())

    @property
    def complete_until(self) -> np.uint64:
        """The digest up to which the lists of instructions are whole: long ones are cut off."""
        lists = (unpack(self.fitted), unpack(self.tested))
        ends = [digests[-1] for digests in lists if len(digests) >= MOST_DIGESTS]
        return min(ends, default=np.uint64(2**64 - 1))


@dataclass(frozen=True, slots=True)
class Split:
    """What n pairs of gold are for in a look; a pair may be for nothing."""

    fit: Bool  # the rule was fitted to them, or is
    test: Bool  # its thresholds are tested on them, or were by an earlier look
    rule: int
    kept: bool  # the rule is that of the look before


def mixed(ids: UInt64) -> UInt64:
    """Return digests of n ids, evenly spread (the finaliser of splitmix64)."""
    x = ids.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(x ^ (x >> np.uint64(31)))


def split_gold(
    gold: Gold, instructions: UInt64, seed: int, before: Looks | None, *, same: bool
) -> Split:
    """Decide which pairs the rule is fitted to and which its thresholds are tested on.

    A first look halves the instructions. Later, known ones keep their half, and a bit of its
    digest decides for a new one. A rule is fitted to 2, 4, 8, ... times as many instructions as
    the first, those of the rule before among them: so it does not depend on when one looks, which
    may follow from what earlier tests have shown.

    Args:
        gold: n pairs.
        instructions: n ids.
        seed: of the halves.
        before: None at the first look.
        same: whether what is asked for is what was asked for before.
    """
    if before is None:
        fit = grouped_folds(gold.groups, 2, seed) == 0
        return Split(fit, ~fit, 0, kept=False)
    digests, known = mixed(instructions), unpack(before.fitted)
    fitted, tested = contains(known, digests), contains(unpack(before.tested), digests)
    first = mixed(digests ^ np.uint64(before.seeds[0])) % np.uint64(2) == 0
    fit = fitted | (~tested & first)
    test = ~fit & (digests <= before.complete_until)
    at_hand = np.unique(digests[fit])
    doublings = int(math.log2(max(len(at_hand) / len(known), 1)))
    if same and not doublings:
        return Split(fitted, test, before.rule, kept=True)
    if same:
        order = np.lexsort((at_hand, ~contains(known, at_hand)))
        fit = np.isin(digests, at_hand[order[: len(known) << doublings]])
    return Split(fit, test, before.rule + max(doublings, 1), kept=False)


@dataclass(frozen=True, slots=True)
class PairsToTest:
    """n pairs that thresholds are tested on."""

    preference: Float64  # by the rule's curve
    agrees: Bool  # whether the verdict names what gold names
    instructions: UInt64  # ids


def take_look(
    pairs: PairsToTest,
    thresholds: Float64,
    asked: Asked,
    *,
    split: Split,
    fitted: UInt64,
    largest: int,
    seed: int,
    before: Looks | None,
) -> tuple[TrustThreshold, Looks]:
    """Test a rule's thresholds, by a rule that is kept on new instructions only.

    Args:
        pairs: to test on.
        thresholds: T, falling.
        asked: what this look is for.
        split: how gold was split.
        fitted: ids of the instructions that the rule was fitted to; not read of a rule that stays.
        largest: most pairs of an instruction.
        seed: of this look.
        before: None at the first look.
    """
    digests, certainty = mixed(pairs.instructions), confidence_of(pairs.preference)
    known = np.empty(0, np.uint64) if before is None else unpack(before.tested)
    new, wrong = ~contains(known, digests), ~pairs.agrees
    level, risk = level_of(asked.confidence, split.rule), 1 - asked.agreement
    largest = max(largest, before.largest if before else 1)
    if before is None:
        wealth = first_wealth(certainty, wrong, thresholds, risk=risk, level=level, largest=largest)
    else:
        wealth = before.logs() if split.kept else new_wealth(len(thresholds))
    rows = new if split.kept else np.ones(len(new), np.bool_)
    groups = np.unique(digests[rows], return_inverse=True)[1].astype(np.int64)
    wealth[:, 1:] += growth(
        certainty[rows], wrong[rows], groups, thresholds, risk=risk, largest=largest
    )
    threshold = describe_threshold(
        pairs.preference, pairs.agrees, asked.agreement, asked.confidence,
        lowest(wealth, thresholds, level),
    )  # fmt: skip
    if split.kept and before is not None and not new.any():
        return threshold, before
    looks = Looks(
        asked,
        split.rule,
        tuple(thresholds.tolist()),
        base64.b64encode(wealth.astype(_NUMBERS).tobytes()).decode(),
        largest,
        before.fitted if before and split.kept else _listed(mixed(fitted)),
        _listed(np.union1d(known, digests)),
        (*(before.seeds if before else ()), seed),
        (*(before.instructions if before else ()), len(np.unique(digests[new]))),
    )
    return threshold, looks


def _listed(digests: UInt64) -> str:
    return pack(np.unique(digests)[:MOST_DIGESTS])
