"""What is there already: unique prompts, texts written before, instructions that had their turn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.batches import Unique
from steelyard.core.schemas import Bool, Int32, UInt64

# Twice the texts of ten million pairs among 16 responses each; 128 MiB, touched as it fills.
SEEN_SLOTS = 1 << 23
_MIX = np.uint64(0x9E3779B97F4A7C15)


def unique_prompts(keys: pa.ListArray) -> Unique:
    """Unique keys of n pairs, in the order in which they first come.

    Args:
        keys: KEYS of each pair, none null.
    """
    column = keys.flatten()
    coded = column.dictionary_encode()
    inverse = coded.indices.to_numpy().astype(np.int64)
    first = np.empty(len(coded.dictionary), dtype=np.int64)
    first[inverse[::-1]] = np.arange(len(column) - 1, -1, -1)
    offsets = keys.offsets.to_numpy().astype(np.int64)
    return Unique(coded.dictionary.to_pylist(), first, inverse, offsets - offsets[0])


def count_unique(keys: pa.ChunkedArray) -> int:
    """How many different keys there are."""
    return int(pc.count_distinct(keys).as_py()) if len(keys) else 0


class SeenTexts:
    """Remembers texts by bucket, in bounded memory: some are forgotten, none is made up.

    Args:
        slots: how many texts it can hold; a power of two.
    """

    def __init__(self, slots: int = SEEN_SLOTS) -> None:
        self._table = np.zeros((slots, 2), dtype=np.uint64)

    def new(self, digests: UInt64, buckets: Int32) -> Bool:
        """Which texts to write: those not remembered for their bucket, each once. Takes them in.

        Args:
            digests: of n texts, two words each, shape (n, 2).
            buckets: where they belong.
        """
        tags = digests.copy()
        tags[:, 0] += buckets.astype(np.uint64) * _MIX
        slots = tags[:, 0] & np.uint64(len(self._table) - 1)
        new: Bool = np.any(self._table[slots] != tags, axis=1)
        at = np.flatnonzero(new)
        _, first, inverse = np.unique(tags[at, 0], return_index=True, return_inverse=True)
        new[at] = np.any(tags[at] != tags[at[first[inverse]]], axis=1)
        new[at[first]] = True
        self._table[slots[new]] = tags[new]
        return new


class GroupOrder:
    """Tells whether equal values come in one stretch each; 8 bytes a stretch.

    The values' digests are kept in sorted runs, each at least twice as long as the next, so that
    a batch is looked up in few of them.
    """

    def __init__(self) -> None:
        self._runs: list[UInt64] = []
        self._last: np.uint64 | None = None

    def starts(self, digests: UInt64) -> Bool | None:
        """Where stretches begin in the next n values (one word of each digest).

        Returns:
            None when a value comes again after its stretch had ended.
        """
        begins = np.ones(len(digests), dtype=np.bool_)
        begins[1:] = digests[1:] != digests[:-1]
        begins[:1] = self._last is None or digests[0] != self._last
        fresh = np.sort(digests[begins])
        if np.any(fresh[1:] == fresh[:-1]) or any(_found(run, fresh) for run in self._runs):
            return None
        self._last = digests[-1]
        self._runs.append(fresh)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            self._runs[-2:] = [np.sort(np.concatenate(self._runs[-2:]), kind="stable")]
        return begins


def _found(run: UInt64, values: UInt64) -> bool:
    """Whether any of the values is in the sorted run."""
    at = np.searchsorted(run, values)
    return bool(np.any(run[np.minimum(at, len(run) - 1)] == values)) if len(run) else False
