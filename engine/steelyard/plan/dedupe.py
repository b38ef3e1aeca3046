"""Deduplication: unique prompts, texts written before, instructions that came before."""

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
    """Return the unique keys of n pairs, in the order in which they first come.

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
    """Count the different keys."""
    return int(pc.count_distinct(keys).as_py()) if len(keys) else 0


class SeenTexts:
    """The texts seen in each bucket, in bounded memory: some are forgotten, none is made up.

    Args:
        slots: how many texts it can hold; a power of two.
    """

    def __init__(self, slots: int = SEEN_SLOTS) -> None:
        self._table = np.zeros((slots, 2), dtype=np.uint64)

    def new(self, digests: UInt64, buckets: Int32) -> Bool:
        """Return which texts to write: those not seen in their bucket, each once. Remember them.

        Args:
            digests: of n texts, two words each, shape (n, 2).
            buckets: where they belong.
        """
        tags = digests.copy()
        tags[:, 0] += buckets.astype(np.uint64) * _MIX
        slots = tags[:, 0] & np.uint64(len(self._table) - 1)
        new: Bool = np.any(self._table[slots] != tags, axis=1)
        rows = np.flatnonzero(new)
        _, first, inverse = np.unique(tags[rows, 0], return_index=True, return_inverse=True)
        new[rows] = np.any(tags[rows] != tags[rows[first[inverse]]], axis=1)
        new[rows[first]] = True
        self._table[slots[new]] = tags[new]
        return new


class GroupOrder:
    """Checks that equal values come in one stretch each; takes 8 bytes per stretch.

    The values' digests are kept in sorted runs, each at least twice as long as the next, so that
    a batch is looked up in few of them.
    """

    def __init__(self) -> None:
        self._runs: list[UInt64] = []
        self._last: np.uint64 | None = None

    def starts(self, digests: UInt64) -> Bool | None:
        """Return where stretches begin in the next n values (one word of each digest).

        None when a value comes again after its stretch had ended.
        """
        begins = np.ones(len(digests), dtype=np.bool_)
        begins[1:] = digests[1:] != digests[:-1]
        begins[:1] = self._last is None or digests[0] != self._last
        fresh = np.sort(digests[begins])
        if np.any(fresh[1:] == fresh[:-1]) or any(_overlap(run, fresh) for run in self._runs):
            return None
        self._last = digests[-1]
        self._runs.append(fresh)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            self._runs[-2:] = [np.sort(np.concatenate(self._runs[-2:]), kind="stable")]
        return begins


def _overlap(run: UInt64, values: UInt64) -> bool:
    """Return whether any of the values is in the sorted run."""
    index = np.searchsorted(run, values)
    return bool(np.any(run[np.minimum(index, len(run) - 1)] == values)) if len(run) else False
