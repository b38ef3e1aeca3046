"""A bucket's texts: copied into the plan, each once, or left in the shards as stretches of rows.

Copied: `plan/bucket-*` has the pairs of some instructions with their texts' digests, `plan/texts-*`
the texts. In shards: a bucket is a number of consecutive accepted rows, cut where the instruction
changes, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from typing_extensions import override

from steelyard.core.arrow import offsets_of, to_mask
from steelyard.core.batches import Planned, PlannedResponses
from steelyard.core.schemas import BUCKET, BUCKET_TEXTS, KEY, TEXT_COLUMNS, TEXTS, Int32, UInt64
from steelyard.plan.dedupe import GroupOrder, SeenTexts, count_unique
from steelyard.plan.keys import BucketSize, as_keys, as_words
from steelyard.store.folder import Folder
from steelyard.store.plan.scatter import (
    PIECE_ROWS,
    BucketFiles,
    ResponseFiles,
    pairs_name,
    texts_name,
)
from steelyard.store.plan.splitting import split_bucket

# A bucket with more than this many times what it should hold is split.
SPLIT = 3


class NotGrouped(Exception):
    """An instruction came again after another one, or has more pairs than a bucket holds."""


class BucketStore(Protocol):
    """Assigns pairs to buckets, and keeps their texts."""

    unique: list[int]  # unique prompts of each bucket, once finished
    ranges: list[int]  # pairs of each bucket where buckets are stretches of rows; empty otherwise

    def add(self, rows: Planned) -> Int32:
        """Return the bucket of each pair; preliminary until `finish`.

        Raises:
            NotGrouped: texts are to stay in the shards, and these rows do not allow it.
        """

    def finish(self) -> dict[int, Int32]:
        """Write what is waiting.

        Returns:
            for each bucket that was split, the buckets of its pairs, in the order in which they
            were added.
        """

    def abandon(self) -> None:
        """Stop writing."""


class BucketTexts(Protocol):
    """The texts of a plan, bucket by bucket."""

    def texts(self, bucket: int) -> pa.Table:
        """Return the pairs of a bucket (TEXTS). Buckets are asked for in ascending order.

        Raises:
            IntegrityFault: a file is not what it was when the plan was made.
            EnvironmentFault: the disk failed.
        """

    def close(self) -> None:
        """Release what is open."""


class ShardBuckets(BucketStore):
    """Copies nothing: a bucket is a stretch of rows that fills at least `size`."""

    def __init__(self, size: BucketSize) -> None:
        self._size = size
        self._groups = GroupOrder()
        self.unique: list[int] = []
        self.ranges: list[int] = []
        self._keys: list[pa.Array] = []  # of the open bucket
        self._pairs = self._weight = self._group_weight = 0

    @override
    def add(self, rows: Planned) -> Int32:
        begins = self._groups.starts(rows.digests["instruction"][:, 0])
        if begins is None:
            raise NotGrouped
        bounds = [0, *np.flatnonzero(begins).tolist(), len(rows)]
        upto = offsets_of(self._size.weigh(rows.text_bytes, rows.prompts))
        buckets = np.empty(len(rows), dtype=np.int32)
        taken = 0
        for number, (start, end) in enumerate(pairwise(bounds)):
            weight = int(upto[end] - upto[start])
            if number:
                self._group_weight = 0
                if self._weight >= self._size.target:
                    self._take(rows, taken, start)
                    self._cut()
                    taken = start
            buckets[start:end] = len(self.ranges)
            self._weight += weight
            self._group_weight += weight
            if self._group_weight > SPLIT * self._size.target:
                raise NotGrouped
        self._take(rows, taken, len(rows))
        return buckets

    @override
    def finish(self) -> dict[int, Int32]:
        if self._pairs:
            self._cut()
        return {}

    @override
    def abandon(self) -> None:
        pass

    def _take(self, rows: Planned, start: int, end: int) -> None:
        self._pairs += end - start
        self._keys.append(rows.pairs["keys"].slice(start, end - start).flatten())

    def _cut(self) -> None:
        self.unique.append(count_unique(pa.chunked_array(self._keys, KEY)))
        self.ranges.append(self._pairs)
        self._keys, self._pairs, self._weight = [], 0, 0


class CopiedBuckets(BucketStore):
    """Copies texts into one file per bucket, with few exceptions once each.

    Buckets that hold far more than `size` are split.
    """

    def __init__(self, folder: Folder, buckets: int, size: BucketSize) -> None:
        self._folder, self._size = folder, size
        self._files = BucketFiles(folder, buckets)
        self._responses: ResponseFiles | None = None
        self._seen = SeenTexts()
        self._weights = np.zeros(buckets, dtype=np.int64)
        self.unique: list[int] = []
        self.ranges: list[int] = []

    @override
    def add(self, rows: Planned) -> Int32:
        count = len(self._weights)
        buckets = self.of(rows.digests["instruction"])
        columns = {
            name: as_keys(rows.digests[name]) if name in rows.digests else pa.nulls(len(rows), KEY)
            for name in TEXT_COLUMNS
        }
        if len(rows.texts):
            self.copy(rows.texts, columns, buckets)
        columns["keys"] = rows.pairs["keys"]
        columns["text_bytes"] = pa.array(rows.text_bytes, pa.int32())
        arrays = [columns[name] for name in BUCKET.names]
        self._files.pairs.add(pa.RecordBatch.from_arrays(arrays, schema=BUCKET), buckets)
        weights = self._size.weigh(rows.text_bytes, rows.prompts)
        self._weights += np.bincount(buckets, weights=weights, minlength=count).astype(int)
        return buckets

    def add_responses(self, rows: PlannedResponses) -> None:
        """Keep single responses until `responses` yields them, and copy their texts."""
        if self._responses is None:
            self._responses = ResponseFiles(self._folder, len(self._weights), rows.rows.schema)
        buckets = self.of(as_words(rows.rows["instruction"]))
        self.copy(rows.texts, {name: rows.rows[name] for name in TEXT_COLUMNS}, buckets)
        self._responses.add(rows.rows, buckets)

    def responses(self) -> Iterator[pa.RecordBatch]:
        """Yield the kept responses, all of an instruction at once."""
        if self._responses is not None:
            yield from self._responses.take()

    def of(self, instructions: UInt64) -> Int32:
        """Return the bucket of each instruction, by its digest."""
        return (instructions[:, 0] % np.uint64(len(self._weights))).astype(np.int32)

    def copy(self, texts: pa.RecordBatch, digests: Mapping[str, pa.Array], buckets: Int32) -> None:
        """Copy the texts of some rows (TEXTS) into their buckets, unless they are there."""
        for name in TEXT_COLUMNS:
            keys = digests[name]
            if keys.null_count == len(keys):
                continue
            new = self._seen.new(as_words(keys), buckets) & to_mask(keys.is_valid())
            if new.any():
                mask = pa.array(new)
                written = [keys.filter(mask), texts[name].filter(mask)]
                batch = pa.RecordBatch.from_arrays(written, schema=BUCKET_TEXTS)
                self._files.texts.add(batch, buckets[new])

    @override
    def abandon(self) -> None:
        self._files.abandon()
        if self._responses is not None:
            self._responses.abandon()

    @override
    def finish(self) -> dict[int, Int32]:
        self._files.close()
        moved = {}
        count = len(self._weights)
        for bucket in np.flatnonzero(self._weights > SPLIT * self._size.target).tolist():
            pieces = split_bucket(self._folder, bucket, self._size, count)
            moved[bucket] = pieces
            count = int(pieces.max()) + 1
        self.unique = [_count_unique(self._folder, pairs_name(bucket)) for bucket in range(count)]
        return moved


class CopiedBucketTexts(BucketTexts):
    """The texts of a plan that holds a copy of them.

    `path` returns the path of a plan file by its name, once its bytes are checked.
    """

    def __init__(self, path: Callable[[str], str], unique: list[int]) -> None:
        self._path, self._unique = path, unique

    @override
    def texts(self, bucket: int) -> pa.Table:
        if not self._unique[bucket]:
            return TEXTS.empty_table()
        rows, pool = (
            pq.read_table(self._path(f"plan/{name(bucket)}"), use_threads=False, memory_map=False)
            for name in (pairs_name, texts_name)
        )
        texts, digests = (pool[name].combine_chunks() for name in ("text", "digest"))
        columns = {"keys": rows["keys"]}
        for name in TEXT_COLUMNS:
            index = pc.index_in(rows[name].combine_chunks(), value_set=digests)
            assert index.null_count == rows[name].null_count  # noqa: S101 - invariant of `CopiedBuckets`
            columns[name] = pa.chunked_array(
                [texts.take(index.slice(i, PIECE_ROWS)) for i in range(0, len(index), PIECE_ROWS)],
                pa.string(),
            )
        return pa.Table.from_arrays([columns[name] for name in TEXTS.names], schema=TEXTS)

    @override
    def close(self) -> None:
        pass


def _count_unique(folder: Folder, name: str) -> int:
    if not folder.exists(name):
        return 0
    with folder.open(name) as file:
        keys = pq.read_table(file, columns=["keys"], use_threads=False)["keys"]
    return count_unique(pc.list_flatten(keys))
