"""Arrow files and streams, and Arrow data of other libraries -> record batches for Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from steelyard.errors import InputRefused, escape
from steelyard.input.problems import printable
from steelyard.input.types import as_lists, is_list

_MAGIC = b"ARROW1"
_OLD_FEATHER = b"FEA1"
_ROWS = 65_536
Batches = tuple[pa.Schema, Iterator[pa.RecordBatch]]


def read_arrow(path: str, name: str) -> Batches:
    """Return the columns of an Arrow IPC file or stream, and its rows.

    Raises:
        InputRefused: it is neither, or damaged; also while the rows are read.
    """
    try:
        file = pa.memory_map(path)
        head = bytes(file.read_at(min(file.size(), len(_MAGIC)), 0)) if file.size() else b""
        if head.startswith(_OLD_FEATHER):
            remedy = "write it again as Parquet, or as Feather version 2"
            raise InputRefused(
                "Feather version 1 is not read", place=printable(name), remedy=remedy
            )
        if head == _MAGIC:
            stored = pa.ipc.open_file(file)
            batches = (stored.get_batch(i) for i in range(stored.num_record_batches))
        else:
            stored = pa.ipc.open_stream(file)
            batches = iter(stored)
    except (pa.ArrowException, ValueError) as error:
        raise _damaged(name, error) from None
    return storable(stored.schema), _checked(batches, name)


def storable(schema: pa.Schema) -> pa.Schema:
    """Return columns without view layouts, which pyarrow 26 cannot write to Parquet."""
    return pa.schema([field.with_type(_plain(field.type)) for field in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    if pt.is_string_view(kind):
        return pa.large_string()
    if pt.is_binary_view(kind):
        return pa.large_binary()
    if is_list(kind) and not pt.is_fixed_size_list(kind):
        return pa.large_list(_plain(kind.value_type))
    if pt.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    return kind


def _checked(batches: Iterator[pa.RecordBatch], name: str) -> Iterator[pa.RecordBatch]:
    """Yield batches that are safe to read: offsets and lengths within their buffers."""
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            _validate(batch)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise _damaged(name, error) from None
        for start in range(0, len(batch), _ROWS):
            yield batch.slice(start, _ROWS)


def _validate(batch: pa.RecordBatch) -> None:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):  # `rows.check` rejects the rows with such texts
            raise


def plain_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch in the columns of `storable`."""
    if batch.schema.equals(schema):
        return batch
    both = zip(batch.columns, schema.types, strict=True)
    arrays = [as_lists(column).cast(kind) for column, kind in both]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _damaged(name: str, error: Exception) -> InputRefused:
    first = str(error).partition("\n")[0] or type(error).__name__
    return InputRefused(
        f"the Arrow data cannot be read: {escape(first, 200)}",
        place=printable(name),
        remedy="write the file again, or leave it out",
    )


def from_capsule(data: Any) -> Batches:  # noqa: ANN401 - whatever exports Arrow
    """Return columns and rows of an object that exports them as a stream of Arrow."""
    reader = pa.RecordBatchReader.from_stream(data)
    return storable(reader.schema), iter(reader)
