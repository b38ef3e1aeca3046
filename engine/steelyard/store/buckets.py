"""A bucket's texts: copied into the plan, each once, or left in the shards, as stretches of rows.

Copied: `plan/bucket-*` has the pairs of some instructions with their texts' digests, `plan/texts-*`
the texts. In shards: a bucket is a number of consecutive accepted rows, cut where the instruction
changes, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from steelyard.dedupe import Groups, Seen, count_unique
from steelyard.plan import split
from steelyard.records import (
    BUCKET,
    BUCKET_TEXTS,
    KEY,
    TEXT_COLUMNS,
    TEXTS,
    Int32,
    Int64,
    Planned,
    UInt64,
)
from steelyard.store.files import SCRATCH

# Rows wait in memory until there is enough for row groups of a decent size in every bucket.
SPILL_BYTES = 64 << 20
# A bucket with more than so many times the text that it should have is split.
SPLIT = 3
# Rows of a piece of a table: no piece may reach Arrow's 2 GiB of text.
PIECE_ROWS = 1 << 13


class NotGrouped(Exception):  # noqa: N818 - a finding, not an error
    """An instruction came again after another one, or has more pairs than a bucket holds."""


class Keeper(Protocol):
    """Decides into which bucket pairs go, and keeps their texts findable.

    Attributes:
        unique: unique prompts of each bucket, once finished.
        ranges: pairs of each bucket where buckets are stretches of rows; empty otherwise.
    """

    unique: list[int]
    ranges: list[int]

    def add(self, rows: Planned) -> Int32:
        """The bucket of each pair; preliminary, see `finish`."""

    def finish(self) -> dict[int, Int32]:
        """Write what is waiting.

        Returns:
            for buckets that were split: the bucket of each of its pairs, in the order in which
            they were added.
        """


class BucketTexts(Protocol):
    """Gives out the texts of a plan."""

    def texts(self, bucket: int) -> pa.Table:
        """The pairs of a bucket (TEXTS). Buckets are asked for in ascending order.

        Raises:
            IntegrityFault: a file is not what it was when the plan was made.
            EnvironmentFault: the disk failed.
        """

    def close(self) -> None:
        """Release what is open."""


class InShards:
    """Keeps nothing: a bucket is a stretch of rows.

    Args:
        target: text bytes of a bucket.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._groups = Groups()
        self.unique: list[int] = []
        self.ranges: list[int] = []
        self._keys: list[pa.Array] = []  # of the open bucket
        self._pairs = self._bytes = self._group_bytes = 0

    def add(self, rows: Planned) -> Int32:
        """See Keeper.

        Raises:
            NotGrouped: these rows do not allow it.
        """
        begins = self._groups.starts(rows.digests["instruction"][:, 0])
        if begins is None:
            raise NotGrouped
        bounds = [0, *np.flatnonzero(begins).tolist(), len(rows)]
        upto = np.concatenate([[0], np.cumsum(rows.text_bytes)])
        buckets = np.empty(len(rows), dtype=np.int32)
        taken = 0
        for number, (start, end) in enumerate(pairwise(bounds)):
            size = int(upto[end] - upto[start])
            if number:
                self._group_bytes = 0
                if self._bytes >= self._target:
                    self._take(rows, taken, start)
                    self._cut()
                    taken = start
            buckets[start:end] = len(self.ranges)
            self._bytes += size
            self._group_bytes += size
            if self._group_bytes > SPLIT * self._target:
                raise NotGrouped
        self._take(rows, taken, len(rows))
        return buckets

    def finish(self) -> dict[int, Int32]:
        """See Keeper."""
        if self._pairs:
            self._cut()
        return {}

    def _take(self, rows: Planned, start: int, end: int) -> None:
        self._pairs += end - start
        self._keys += [rows.pairs[name].slice(start, end - start) for name in ("key_ab", "key_ba")]

    def _cut(self) -> None:
        self.unique.append(count_unique(pa.chunked_array(self._keys, KEY)))
        self.ranges.append(self._pairs)
        self._keys, self._pairs, self._bytes = [], 0, 0


class Copied:
    """Copies texts into one file a bucket, as good as once each.

    Args:
        folder: where files go.
        buckets: how many.
        target: text bytes that a bucket should have; far larger ones are split.
    """

    def __init__(self, folder: Path, buckets: int, target: int) -> None:
        self._folder, self._target = folder, target
        self._files = _Files(folder, buckets)
        self._seen = Seen()
        self._bytes = np.zeros(buckets, dtype=np.int64)
        self.unique: list[int] = []
        self.ranges: list[int] = []

    def add(self, rows: Planned) -> Int32:
        """See Keeper."""
        count = len(self._bytes)
        places = (rows.digests["instruction"][:, 0] % np.uint64(count)).astype(np.int32)
        columns = {}
        for name in TEXT_COLUMNS:
            texts, digests = rows.texts[name], rows.digests.get(name)
            if digests is None:
                columns[name] = pa.nulls(len(rows), KEY)
                continue
            new = self._seen.new(digests, places)
            columns[name] = _keys(digests)
            if texts.null_count:
                there = texts.is_valid()
                new &= there.to_numpy(zero_copy_only=False)
                columns[name] = pc.if_else(there, columns[name], pa.scalar(None, KEY))
            self._add_texts(texts, columns[name], new, places)
        columns |= {name: rows.pairs[name] for name in ("key_ab", "key_ba")}
        columns["text_bytes"] = pa.array(rows.text_bytes, pa.int32())
        arrays = [columns[name] for name in BUCKET.names]
        self._files.pairs.add(pa.RecordBatch.from_arrays(arrays, schema=BUCKET), places)
        self._bytes += np.bincount(places, weights=rows.text_bytes, minlength=count).astype(int)
        return places

    def _add_texts(
        self, texts: pa.Array, digests: pa.Array, new: np.typing.NDArray[np.bool_], places: Int32
    ) -> None:
        if new.any():
            mask = pa.array(new)
            arrays = [digests.filter(mask), texts.filter(mask)]
            rows = pa.RecordBatch.from_arrays(arrays, schema=BUCKET_TEXTS)
            self._files.texts.add(rows, places[new])

    def finish(self) -> dict[int, Int32]:
        """See Keeper."""
        self._files.close()
        moved = {}
        buckets = len(self._bytes)
        for bucket in np.flatnonzero(self._bytes > SPLIT * self._target).tolist():
            pieces = _split(self._folder, bucket, self._target, buckets)
            moved[bucket] = pieces
            buckets = int(pieces.max()) + 1
        self.unique = [_count_unique(self._folder / pairs_name(at)) for at in range(buckets)]
        return moved


class _Files:
    """The two files of each of some buckets, numbered from `first` on."""

    def __init__(self, folder: Path, buckets: int, first: int = 0) -> None:
        self.pairs = Scatter(buckets, BUCKET, lambda at: folder / pairs_name(first + at))
        self.texts = Scatter(buckets, BUCKET_TEXTS, lambda at: folder / texts_name(first + at))

    def close(self) -> None:
        """Write what is waiting."""
        self.pairs.close()
        self.texts.close()


class Scatter:
    """Rows to one Parquet file a bucket, in the order in which they come.

    Args:
        buckets: how many.
        schema: of the rows.
        path: of a bucket's file.
    """

    def __init__(self, buckets: int, schema: pa.Schema, path: Callable[[int], Path]) -> None:
        self._schema, self._path = schema, path
        self._writers: list[pq.ParquetWriter | None] = [None] * buckets
        self._rows: list[pa.RecordBatch] = []
        self._places: list[Int32] = []
        self._bytes = 0

    def add(self, rows: pa.RecordBatch, places: Int32) -> None:
        """Take rows, and the bucket of each."""
        self._rows.append(rows)
        self._places.append(places)
        self._bytes += rows.nbytes
        if self._bytes >= SPILL_BYTES:
            self._spill()

    def close(self) -> None:
        """Write what is waiting."""
        self._spill()
        for writer in self._writers:
            if writer is not None:
                writer.close()

    def _spill(self) -> None:
        if not self._rows:
            return
        rows = pa.concat_batches(self._rows)
        places = np.concatenate(self._places)
        self._rows, self._places, self._bytes = [], [], 0
        order = np.argsort(places, kind="stable")
        rows = rows.take(pa.array(order))
        bounds = np.searchsorted(places[order], np.arange(len(self._writers) + 1))
        for bucket, (start, end) in enumerate(pairwise(bounds.tolist())):
            if start < end:
                self._writer(bucket).write_batch(rows.slice(start, end - start))

    def _writer(self, bucket: int) -> pq.ParquetWriter:
        writer = self._writers[bucket]
        if writer is None:
            writer = pq.ParquetWriter(self._path(bucket), self._schema, **SCRATCH)
            self._writers[bucket] = writer
        return writer


def _split(folder: Path, bucket: int, target: int, first: int) -> Int32:
    """Divide a bucket's files into pieces, numbered from `first` on; streams them.

    Returns:
        the new bucket of each of its pairs, in the order of its file.
    """
    source, texts = folder / pairs_name(bucket), folder / texts_name(bucket)
    pieces, needs, needed_in = _pieces(source, target)
    files = _Files(folder, int(pieces.max()) + 1, first)
    at = 0
    for rows in _batches(source):
        files.pairs.add(rows, pieces[at : at + len(rows)])
        at += len(rows)
    for rows in _batches(texts):
        words = _words(rows["digest"])[:, 0]
        low, high = (np.searchsorted(needs, words, side) for side in ("left", "right"))
        count = high - low
        picks = np.repeat(np.arange(len(rows)), count)
        within = np.arange(len(picks)) - np.repeat(np.cumsum(count) - count, count)
        files.texts.add(rows.take(pa.array(picks)), needed_in[low[picks] + within])
    files.close()
    source.unlink()
    texts.unlink()
    return pieces + np.int32(first)


def _pieces(source: Path, target: int) -> tuple[Int32, UInt64, Int32]:
    """A piece for each pair of a bucket; then, sorted, which texts (one word) each piece needs."""
    words: dict[str, list[UInt64]] = {name: [] for name in TEXT_COLUMNS}
    sizes: list[Int64] = []
    for rows in _batches(source):
        sizes.append(rows["text_bytes"].to_numpy().astype(np.int64))
        for name in TEXT_COLUMNS:
            words[name].append(_words(rows[name].fill_null(bytes(16)))[:, 0])
    whole = {name: np.concatenate(parts) for name, parts in words.items()}
    pieces = split(
        *(whole[name] for name in ("instruction", "response_a", "response_b")),
        np.concatenate(sizes),
        target,
    )
    filled = [column for column in whole.values() if column.any()]
    texts, needed_in = np.concatenate(filled), np.tile(pieces, len(filled))
    order = np.lexsort((needed_in, texts))
    texts, needed_in = texts[order], needed_in[order]
    fresh = np.ones(len(order), dtype=np.bool_)
    fresh[1:] = (texts[1:] != texts[:-1]) | (needed_in[1:] != needed_in[:-1])
    return pieces, texts[fresh], needed_in[fresh]


class CopiedTexts:
    """Gives out the texts of a plan that holds a copy of them.

    Args:
        path: from the name of a plan file to its path, once its bytes are found right.
        unique: unique prompts of each bucket.
    """

    def __init__(self, path: Callable[[str], Path], unique: list[int]) -> None:
        self._path, self._unique = path, unique

    def texts(self, bucket: int) -> pa.Table:
        """The pairs of a bucket (TEXTS).

        Raises:
            IntegrityFault: a file is damaged or missing.
        """
        if not self._unique[bucket]:
            return TEXTS.empty_table()
        rows, pool = (
            pq.read_table(self._path(f"plan/{name(bucket)}"), use_threads=False, memory_map=False)
            for name in (pairs_name, texts_name)
        )
        texts, digests = (pool[name].combine_chunks() for name in ("text", "digest"))
        columns = {name: rows[name] for name in ("key_ab", "key_ba")}
        for name in TEXT_COLUMNS:
            at = pc.index_in(rows[name].combine_chunks(), value_set=digests)
            assert at.null_count == rows[name].null_count, "a text of the bucket was not written"
            columns[name] = pa.chunked_array(
                [texts.take(at.slice(i, PIECE_ROWS)) for i in range(0, len(at), PIECE_ROWS)],
                pa.string(),
            )
        return pa.Table.from_arrays([columns[name] for name in TEXTS.names], schema=TEXTS)

    def close(self) -> None:
        """Nothing is open."""


def pairs_name(bucket: int) -> str:
    """File name of a bucket's pairs."""
    return f"bucket-{bucket:05d}.parquet"


def texts_name(bucket: int) -> str:
    """File name of a bucket's texts."""
    return f"texts-{bucket:05d}.parquet"


def _count_unique(path: Path) -> int:
    if not path.exists():
        return 0
    keys = pq.read_table(path, columns=["key_ab", "key_ba"], use_threads=False)
    return count_unique(pa.chunked_array([*keys["key_ab"].chunks, *keys["key_ba"].chunks]))


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(PIECE_ROWS, use_threads=False)


def _keys(digests: UInt64) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(digests))
    return pa.Array.from_buffers(KEY, len(digests), [None, buffer])


def _words(keys: pa.Array) -> UInt64:
    """16-byte values without nulls as two words each, shape (n, 2)."""
    whole = np.frombuffer(keys.buffers()[1], dtype="<u8").reshape(-1, 2)
    return whole[keys.offset : keys.offset + len(keys)]
