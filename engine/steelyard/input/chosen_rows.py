"""Which rows of the input are judged, where a user wants to try some first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import xxhash

from steelyard.core.hashing import mix
from steelyard.core.schemas import Bool, Int64, UInt64
from steelyard.input.rows import RawBatch
from steelyard.input.shardset import ShardSet

_AT_A_TIME = 1 << 20  # rows whose numbers are in memory


class ChosenRows:
    """The first `limit` rows of shards, or `sample` of them.

    A sample depends on the shards' names and numbers of rows only: another machine, and a run that
    is resumed, draws the same. Rows that are refused count as well.

    Args:
        shards: the input.
        limit: rows from the first on; 0: all.
        sample: rows that are drawn; 0: none are.
    """

    def __init__(self, shards: ShardSet, limit: int = 0, sample: int = 0) -> None:
        self._starts: dict[str, int] = {}
        start = 0
        for shard in shards.shards:
            self._starts[shard.name] = start
            start += shard.rows
        # Beyond the last row, so that reading goes on to the check that the last shard is the same.
        self._limit = limit or start + 1
        self._highest: np.uint64 | None = None  # number drawn by a row of the sample
        if 0 < sample < start:
            smallest = np.zeros(0, dtype=np.uint64)
            for shard in shards.shards:
                for first in range(0, shard.rows, _AT_A_TIME):
                    rows = np.arange(first, min(first + _AT_A_TIME, shard.rows))
                    both = np.concatenate([smallest, drawn(shard.name, rows)])
                    smallest = both if len(both) <= sample else np.partition(both, sample)[:sample]
            self._highest = smallest.max()

    def of(self, batches: Iterable[RawBatch]) -> Iterator[RawBatch]:
        """Yield the chosen rows of batches, which begin with the first row."""
        for batch in batches:
            position = self._starts[batch.shard] + batch.numbers
            kept: Bool = position < self._limit
            if self._highest is not None:
                kept &= drawn(batch.shard, batch.numbers) <= self._highest
            if kept.any():
                yield batch if kept.all() else batch.filter(kept)
            if int(position[-1]) + 1 >= self._limit:
                return


def drawn(shard: str, rows: Int64) -> UInt64:
    """Return the number that each row of a shard draws, which is equally likely to be any."""
    return mix(rows.astype(np.uint64) + np.uint64(xxhash.xxh3_64_intdigest(shard.encode())))
