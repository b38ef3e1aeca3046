"""Which responses to an instruction are compared: `--pairs`, as numbers of rows.

Responses belong together where everything that a prompt shows besides them is the same. A model is
compared with others; the responses of a single model, or without models, with each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from steelyard.core.hashing import mix
from steelyard.core.schemas import Bool, Int64, UInt64
from steelyard.errors import InputRefused, UsageError, escape

KINDS = "all, baseline=MODEL, random=N, adjacent"
MOST = 1 << 20  # pairs of one instruction
NO_RESPONSE = -1  # in place of the second response of a pair, where each is judged alone
_NUMBER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Pairing:
    """A rule that makes pairs of the responses to one instruction."""

    kind: str  # all, baseline, random, adjacent; none: each response alone
    baseline: str = ""
    count: int = 0

    @classmethod
    def parse(cls, text: str) -> Pairing:
        """Read `--pairs`.

        Raises:
            UsageError: it is not a rule.
        """
        kind, equals, value = text.partition("=")
        if kind == "baseline" and value:
            return cls(kind, baseline=value)
        if kind == "random" and value.isdecimal() and 0 < int(value) <= MOST:
            return cls(kind, count=int(value))
        if kind in {"all", "adjacent", "none"} and not equals:
            return cls(kind)
        raise UsageError(f"--pairs is {escape(text)!r}", remedy=f"choose one of: {KINDS}")

    def most(self, responses: Int64) -> Int64:
        """Return how many pairs groups of this many responses make, if no model is there twice."""
        each = {
            "all": responses * (responses - 1) // 2,
            "random": np.minimum(responses * (responses - 1) // 2, self.count),
            "baseline": responses - 1,
            "adjacent": responses - 1,
            "none": responses,
        }
        return np.asarray(each[self.kind])


@dataclass(frozen=True, slots=True)
class Groups:
    """Responses that belong together, g groups of them, one after the other."""

    bounds: Int64  # where groups begin, and where the last one ends, [g + 1]
    models: Int64  # code of each response's model, of all responses up to that end
    seeds: UInt64  # number of each group, from which `random` draws, [g]
    baseline: int  # code of the baseline's model


def choose_pairs(pairing: Pairing, groups: Groups) -> tuple[Int64, Int64]:
    """Return the first and the second response of each pair, ordered by group.

    Returns:
        indices of responses; the first comes before the second, or is compared with the baseline.

    Raises:
        InputRefused: a group would make more than MOST pairs.
    """
    bounds = groups.bounds
    if pairing.kind == "none":
        alone = np.arange(bounds[0], bounds[-1])
        return alone, np.full(len(alone), NO_RESPONSE)
    sizes = np.diff(bounds)
    parts = [(np.zeros(0, dtype=np.int64),) * 3]
    for size in np.unique(sizes[sizes > 1]).tolist():
        alike = np.flatnonzero(sizes == size)
        step = max(1, MOST // (size * size))
        parts += [
            _of_size(pairing, size, groups, alike[start : start + step])
            for start in range(0, len(alike), step)
        ]
    group, first, second = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(group, kind="stable")
    return first[order], second[order]


def _of_size(
    pairing: Pairing, size: int, groups: Groups, which: Int64
) -> tuple[Int64, Int64, Int64]:
    """Return group, first and second of the pairs of some groups, all of the same size."""
    seeds = groups.seeds[which][:, None]
    if pairing.kind == "random" and size * (size - 1) // 2 > MOST:
        i, j = _drawn_blindly(size, pairing.count, seeds[0, 0])
    else:
        i, j = _candidates(pairing.kind, size)
    starts = groups.bounds[which][:, None]
    first, second = starts + i, starts + j
    models = groups.models[starts + np.arange(size)]
    by_one_model = models.min(axis=1) == models.max(axis=1)
    wanted: Bool = by_one_model[:, None] | (groups.models[first] != groups.models[second])
    if pairing.kind == "baseline":
        by = groups.models == groups.baseline
        wanted = by[first] != by[second]
        first, second = np.where(by[first], second, first), np.where(by[first], first, second)
    if pairing.kind == "random":
        draws = mix(seeds + _NUMBER * (i * size + j).astype(np.uint64)) >> np.uint64(1)
        last = np.uint64(np.iinfo(np.uint64).max)
        order = np.argsort(np.where(wanted, draws, last), axis=1, kind="stable")
        wanted &= np.argsort(order, axis=1) < pairing.count
    return np.repeat(which, wanted.sum(axis=1)), first[wanted], second[wanted]


def _candidates(kind: str, size: int) -> tuple[Int64, Int64]:
    """Return the pairs of `size` responses that a rule chooses from."""
    if kind == "adjacent":
        return np.arange(size - 1), np.arange(1, size)
    if size * (size - 1) // 2 > MOST:
        raise InputRefused(
            f"an instruction has {size:,} responses, which make {size * (size - 1) // 2:,} pairs",
            effect="nothing was scored",
            remedy="choose some of them: --pairs random=N, or --pairs adjacent",
        )
    first, second = np.triu_indices(size, 1)
    return first.astype(np.int64), second.astype(np.int64)


def _drawn_blindly(size: int, count: int, seed: np.uint64) -> tuple[Int64, Int64]:
    """Return pairs drawn at random from too many to list them, more than `count` of them."""
    numbers = np.arange(8 * (4 * count + 64), dtype=np.uint64).reshape(-1, 2)
    ends = np.sort(mix(mix(numbers) + seed) % np.uint64(size), axis=1).astype(np.int64)
    ends = np.unique(ends[ends[:, 0] < ends[:, 1]], axis=0)
    return ends[:, 0], ends[:, 1]


def split_groups(groups: Int64, pairing: Pairing, most: int) -> Iterator[Int64]:
    """Yield the bounds of groups in pieces that make about `most` pairs each, or are one group."""
    upto = np.concatenate([[0], np.cumsum(pairing.most(np.diff(groups)))])
    start = 0
    while start < len(groups) - 1:
        end = max(start + 1, int(np.searchsorted(upto, upto[start] + most, "right")) - 1)
        yield groups[start : end + 1]
        start = end
