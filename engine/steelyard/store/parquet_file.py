"""A Parquet file that is written through a Disk."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.store.disk import RawFile


class ParquetFileWriter:
    """A Parquet file to which batches are added; every write is a call of a Disk."""

    def __init__(self, file: RawFile, schema: pa.Schema, options: dict[str, Any]) -> None:
        self._file = file
        self._stream = io.BufferedWriter(file)
        self._writer = pq.ParquetWriter(self._stream, schema, **options)

    def write_batch(self, rows: pa.RecordBatch) -> None:
        """Add rows as a row group."""
        self._writer.write_batch(rows)

    def write_table(self, rows: pa.Table) -> None:
        """Add rows as a row group."""
        self._writer.write_table(rows)

    def close(self) -> None:
        """Complete the file and force it to the disk."""
        try:
            self._writer.close()
            self._stream.flush()
            self._file.sync()
        finally:
            self._file.close()
