"""Writes rows of other formats as Parquet: whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.core.background import Prefetch
from steelyard.errors import InputRefused, escape, machine_fault
from steelyard.input.arrow_rows import Batches, plain_batch
from steelyard.input.columns import Columns, ColumnsDifferError, Piece, Typing, batches
from steelyard.input.footer import CONVERTED
from steelyard.input.problems import printable

_GROUP = 16 << 20  # bytes of a row group, about
_AHEAD = 2  # pieces that are parsed while those before are written
_OPTIONS = {
    "compression": "lz4",
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
}


def write_chunks(
    chunks: Callable[[], Iterable[Piece]], typing: Typing, target: Path, digest: str, name: str
) -> None:
    """Write rows whose columns show only as they are read.

    The columns of the first rows are taken for those of all. Where they are not, all rows are
    looked at before they are written.

    Raises:
        InputRefused: there are no rows, or none that can be read.
    """
    columns = Columns(typing)
    looked = False
    while not _written(chunks(), columns, target, digest):
        if not looked:
            for piece in chunks():
                columns.look(piece.read())
        looked = True
    if not columns.types:
        target.unlink(missing_ok=True)
        notes = (note for piece in chunks() for note in piece.read().notes.values())
        what = next((f"no row can be read: {note[0][1]}" for note in notes), "the file has no rows")
        raise InputRefused(what, place=printable(name), remedy="check what wrote this file")


def _written(chunks: Iterable[Piece], columns: Columns, target: Path, digest: str) -> bool:
    """Write the rows; return False where the columns turned out to be others."""
    parsed = Prefetch(batches(chunks, columns), ahead=_AHEAD, name="input-parser")
    try:
        with closing(parsed):  # parsing and writing go on without Python's lock
            if (first := parsed.take()) is None:
                return True
            with _writing(target, first.schema, digest) as writer:
                writer.add(first)
                for batch in parsed:
                    writer.add(batch)
                writer.keep = True
    except ColumnsDifferError:
        return False
    return True


def write_batches(rows: Batches, target: Path, digest: str, name: str) -> None:
    """Write rows whose columns have types.

    Raises:
        InputRefused: Parquet cannot hold a column.
    """
    schema, parts = rows
    try:
        with _writing(target, schema, digest) as writer:
            for batch in parts:
                writer.add(plain_batch(batch, schema))
            writer.keep = True
    except (pa.ArrowException, ValueError) as error:
        first = str(error).partition("\n")[0]
        cause = f"the columns cannot be written as Parquet: {escape(first, 200)}"
        remedy = "leave out the columns of unusual types, and write the file again"
        raise InputRefused(cause, place=printable(name), remedy=remedy) from None


class _Writer:
    """Writes batches in row groups of bounded bytes; `keep` says that the file is whole."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self.keep = False
        self._writer = writer
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take a batch, and write those before if they fill a row group."""
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes > _GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what was taken as a row group."""
        if self._batches:
            self._writer.write_table(pa.Table.from_batches(self._batches))
        self._batches, self._bytes = [], 0


@contextmanager
def _writing(target: Path, schema: pa.Schema, digest: str) -> Iterator[_Writer]:
    """Yield a writer of a Parquet file that is there as a whole, or not at all."""
    temporary = target.with_name(f".converting-{os.getpid()}-{target.name}")
    try:
        schema = schema.with_metadata({CONVERTED: digest})
        with pq.ParquetWriter(temporary, schema, **_OPTIONS) as file:
            writer = _Writer(file)
            yield writer
            writer.flush()
        if writer.keep:
            temporary.replace(target)
    except OSError as error:
        if error.errno is None:  # the source is damaged
            raise
        doing, effect = "be converted to Parquet", "nothing was scored"
        raise machine_fault(
            error, str(target.parent), doing=doing, effect=effect, again="start again"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()
