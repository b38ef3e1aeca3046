"""The files of buckets: rows go to one file per bucket, through bounded memory."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.core.background import Worker
from steelyard.core.schemas import BUCKET, BUCKET_TEXTS, Int32
from steelyard.store.durable import SCRATCH
from steelyard.store.folder import Folder
from steelyard.store.parquet_file import ParquetFileWriter

# Rows wait in memory until there is enough for row groups of a decent size in every bucket.
SPILL_BYTES = 48 << 20
# Rows of a piece of a table: no piece may reach Arrow's 2 GiB of text.
PIECE_ROWS = 1 << 13

Write = Callable[[], None]


class BucketFiles:
    """Two files for each of some buckets, numbered from `first` on; written by a thread."""

    def __init__(self, folder: Folder, buckets: int, first: int = 0) -> None:
        _allow_open_files(2 * buckets + 64)
        self._thread: Worker[Write] = Worker(lambda write: write(), waiting=1, name="bucket-writer")
        self.pairs = Scatter(
            self._thread, buckets, BUCKET, folder, lambda bucket: pairs_name(first + bucket)
        )
        self.texts = Scatter(
            self._thread, buckets, BUCKET_TEXTS, folder, lambda bucket: texts_name(first + bucket)
        )

    def close(self) -> None:
        """Write what is waiting.

        Raises:
            OSError: something could not be written.
        """
        for scatter in (self.pairs, self.texts):
            scatter.spill()
        self._thread.close()
        for scatter in (self.pairs, self.texts):
            scatter.close()

    def abandon(self) -> None:
        """End the thread; the files stay incomplete."""
        self._thread.stop()


class Scatter:
    """Writes rows to one Parquet file per bucket, in a thread, in the order in which they come."""

    def __init__(
        self,
        thread: Worker[Write],
        buckets: int,
        schema: pa.Schema,
        folder: Folder,
        name: Callable[[int], str],
    ) -> None:
        self._thread, self._schema, self._folder, self._name = thread, schema, folder, name
        self._writers: list[ParquetFileWriter | None] = [None] * buckets
        self._rows: list[pa.RecordBatch] = []
        self._buckets: list[Int32] = []
        self._bytes = 0

    def add(self, rows: pa.RecordBatch, buckets: Int32) -> None:
        """Take rows, and the bucket of each.

        Raises:
            OSError: earlier ones could not be written.
        """
        self._rows.append(rows)
        self._buckets.append(buckets)
        self._bytes += rows.nbytes
        if self._bytes >= SPILL_BYTES:
            self.spill()

    def spill(self) -> None:
        """Give all rows that wait in memory to the thread. Raise as `add` does."""
        rows, buckets = self._rows, self._buckets
        self._rows, self._buckets, self._bytes = [], [], 0
        if rows:
            self._thread.give(partial(self._write, rows, buckets))

    def close(self) -> None:
        """Complete the files, once the thread has ended. Raise as `add` does."""
        for writer in self._writers:
            if writer is not None:
                writer.close()

    def _write(self, rows: list[pa.RecordBatch], buckets: list[Int32]) -> None:
        whole = np.concatenate(buckets)
        order = np.argsort(whole, kind="stable")
        sorted_rows = pa.concat_batches(rows).take(pa.array(order))
        bounds = np.searchsorted(whole[order], np.arange(len(self._writers) + 1))
        for bucket, (start, end) in enumerate(pairwise(bounds.tolist())):
            if start < end:
                self._writer(bucket).write_batch(sorted_rows.slice(start, end - start))

    def _writer(self, bucket: int) -> ParquetFileWriter:
        writer = self._writers[bucket]
        if writer is None:
            writer = self._folder.parquet(self._name(bucket), self._schema, **SCRATCH)
            self._writers[bucket] = writer
        return writer


class ResponseFiles:
    """Planned responses, one file per bucket, which are read once and removed."""

    def __init__(self, folder: Folder, buckets: int, schema: pa.Schema) -> None:
        _allow_open_files(3 * buckets + 64)
        self._folder, self._count = folder, buckets
        self._thread: Worker[Write] = Worker(lambda write: write(), waiting=1, name="row-writer")
        self._rows = Scatter(self._thread, buckets, schema, folder, _responses_name)

    def add(self, rows: pa.RecordBatch, buckets: Int32) -> None:
        """Take rows, and the bucket of each; raise as `Scatter.add` does."""
        self._rows.add(rows, buckets)

    def take(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows of each bucket, whole, in the order in which they came."""
        self._rows.spill()
        self._thread.close()
        self._rows.close()
        for bucket in range(self._count):
            name = _responses_name(bucket)
            if self._folder.exists(name):
                with self._folder.open(name) as file:
                    table = pq.read_table(file, use_threads=False)
                yield pa.concat_batches(table.to_batches())
                self._folder.remove(name)

    def abandon(self) -> None:
        """End the thread."""
        self._thread.stop()


def _responses_name(bucket: int) -> str:
    return f"responses-{bucket:05d}.parquet"


def _allow_open_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count and (hard == resource.RLIM_INFINITY or hard >= count):
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def pairs_name(bucket: int) -> str:
    """Return the file name of a bucket's pairs."""
    return f"bucket-{bucket:05d}.parquet"


def texts_name(bucket: int) -> str:
    """Return the file name of a bucket's texts."""
    return f"texts-{bucket:05d}.parquet"


def batches(folder: Folder, name: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file, PIECE_ROWS at a time."""
    with folder.open(name) as file:
        yield from pq.ParquetFile(file).iter_batches(PIECE_ROWS, use_threads=False)
