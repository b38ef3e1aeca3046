"""The files of buckets: rows go to one file a bucket, through a bounded heap in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.core.schemas import BUCKET, BUCKET_TEXTS, Int32
from steelyard.store.durable import SCRATCH

# Rows wait in memory until there is enough for row groups of a decent size in every bucket.
SPILL_BYTES = 48 << 20
# Rows of a piece of a table: no piece may reach Arrow's 2 GiB of text.
PIECE_ROWS = 1 << 13


class BucketFiles:
    """The two files of each of some buckets, numbered from `first` on; written by a thread."""

    def __init__(self, folder: Path, buckets: int, first: int = 0) -> None:
        self._thread = ThreadPoolExecutor(1, "bucket-writer")
        self.pairs = Scatter(
            self._thread, buckets, BUCKET, lambda at: folder / pairs_name(first + at)
        )
        self.texts = Scatter(
            self._thread, buckets, BUCKET_TEXTS, lambda at: folder / texts_name(first + at)
        )

    def close(self) -> None:
        """Write what is waiting.

        Raises:
            OSError: something could not be written.
        """
        self.pairs.close()
        self.texts.close()
        self.abandon()

    def abandon(self) -> None:
        """End the thread; what it has not written yet is lost."""
        self._thread.shutdown(cancel_futures=True)


class Scatter:
    """Rows to one Parquet file a bucket, in the order in which they come.

    Args:
        thread: writes.
        buckets: how many.
        schema: of the rows.
        path: of a bucket's file.
    """

    def __init__(
        self, thread: Executor, buckets: int, schema: pa.Schema, path: Callable[[int], Path]
    ) -> None:
        self._thread, self._schema, self._path = thread, schema, path
        self._writers: list[pq.ParquetWriter | None] = [None] * buckets
        self._rows: list[pa.RecordBatch] = []
        self._places: list[Int32] = []
        self._bytes = 0
        self._work: Future[None] | None = None

    def add(self, rows: pa.RecordBatch, places: Int32) -> None:
        """Take rows, and the bucket of each.

        Raises:
            OSError: earlier ones could not be written.
        """
        self._rows.append(rows)
        self._places.append(places)
        self._bytes += rows.nbytes
        if self._bytes >= SPILL_BYTES:
            self._spill()

    def close(self) -> None:
        """Write what is waiting. Raises like `add`."""
        self._spill()
        self._wait()
        for writer in self._writers:
            if writer is not None:
                writer.close()

    def _spill(self) -> None:
        self._wait()  # two heaps at a time
        rows, places = self._rows, self._places
        self._rows, self._places, self._bytes = [], [], 0
        if rows:
            self._work = self._thread.submit(self._write, rows, places)

    def _wait(self) -> None:
        if self._work is not None:
            self._work.result()
            self._work = None

    def _write(self, rows: list[pa.RecordBatch], places: list[Int32]) -> None:
        whole = np.concatenate(places)
        order = np.argsort(whole, kind="stable")
        sorted_rows = pa.concat_batches(rows).take(pa.array(order))
        bounds = np.searchsorted(whole[order], np.arange(len(self._writers) + 1))
        for bucket, (start, end) in enumerate(pairwise(bounds.tolist())):
            if start < end:
                self._writer(bucket).write_batch(sorted_rows.slice(start, end - start))

    def _writer(self, bucket: int) -> pq.ParquetWriter:
        writer = self._writers[bucket]
        if writer is None:
            writer = pq.ParquetWriter(self._path(bucket), self._schema, **SCRATCH)
            self._writers[bucket] = writer
        return writer


def pairs_name(bucket: int) -> str:
    """File name of a bucket's pairs."""
    return f"bucket-{bucket:05d}.parquet"


def texts_name(bucket: int) -> str:
    """File name of a bucket's texts."""
    return f"texts-{bucket:05d}.parquet"


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a file, PIECE_ROWS at a time."""
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(PIECE_ROWS, use_threads=False)
