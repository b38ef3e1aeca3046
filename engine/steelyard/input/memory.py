"""Rows that a Python program holds -> a Parquet file: DataFrames, Arrow, datasets, dictionaries."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from steelyard.errors import InputRefused, UsageError, escape
from steelyard.input.arrow_rows import Batches, from_capsule, storable
from steelyard.input.columns import Chunk, JsonTyping, chunk_of
from steelyard.input.parquet_writer import write_batches, write_chunks

NAME = "data.parquet"  # of the file, and in the column `shard`
_ROWS = 4096
_KINDS = "paths, dictionaries, a DataFrame, a pyarrow.Table or a datasets.Dataset"


def as_paths(data: object) -> list[str] | None:
    """Return paths that were given, one or several; None if the data are rows.

    Raises:
        UsageError: they are neither.
    """
    if isinstance(data, str | os.PathLike):
        return [os.fspath(data)]
    if isinstance(data, Mapping):
        names = ", ".join(map(str, list(data)[:3]))
        raise UsageError(
            f"the data are several tables or columns: {escape(names, 80)}",
            remedy=f"give one table, such as data[{escape(next(iter(data), 'train'), 40)!r}]",
        )
    if _is_table(data):
        return None
    if isinstance(data, Sequence) and not isinstance(data, bytes):
        if all(isinstance(item, str | os.PathLike) for item in data):
            return [os.fspath(item) for item in data]
        if all(isinstance(item, Mapping) for item in data):
            return None
    raise UsageError(f"{type(data).__name__} is not data to judge", remedy=f"give {_KINDS}")


def _is_table(data: object) -> bool:
    names = ("__arrow_c_stream__", "__arrow_c_array__", "with_format")
    return any(hasattr(data, name) for name in names) or _is_pandas(data)


def _is_pandas(data: object) -> bool:
    return type(data).__module__.partition(".")[0] == "pandas"


def write_rows(data: object, folder: Path) -> Path:
    """Write rows to `folder/DIGEST/data.parquet`, whose name depends on them alone.

    Raises:
        InputRefused: there are no rows, or Parquet cannot hold them.
        EnvironmentFault: the disk has no room, or cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".rows-") as temporary:
        file = Path(temporary, NAME)
        if isinstance(data, Sequence):
            write_chunks(lambda: _chunks(data), JsonTyping(), file, "", NAME)
        else:
            write_batches(_batches(data), file, "", NAME)
        with file.open("rb") as stream:
            digest = _digest(stream)
        target = folder / digest / NAME
        target.parent.mkdir(exist_ok=True)
        shutil.move(file, target)
    return target


def _digest(stream: Any) -> str:  # noqa: ANN401 - a binary file
    whole = xxhash.xxh3_128()
    while block := stream.read(1 << 23):
        whole.update(block)
    return whole.hexdigest()


def _chunks(rows: Sequence[Mapping[str, Any]]) -> Iterable[Chunk]:
    for start in range(0, len(rows), _ROWS):
        yield chunk_of(rows[start : start + _ROWS])


def _batches(data: Any) -> Batches:  # noqa: ANN401 - a table of any library
    try:
        if _is_pandas(data):
            return from_capsule(pa.Table.from_pandas(data, preserve_index=False))
        if hasattr(data, "with_format"):  # datasets, also streamed ones
            parts = data.with_format("arrow").iter(batch_size=_ROWS)
            schema = storable(data.features.arrow_schema)
            return schema, (batch for part in parts for batch in part.cast(schema).to_batches())
        if hasattr(data, "__arrow_c_stream__"):
            return from_capsule(data)
        return from_capsule(pa.Table.from_batches([pa.record_batch(data)]))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputRefused(
            f"the {type(data).__name__} cannot be read as Arrow: {escape(error, 200)}",
            remedy="give each column values of one type",
        ) from None
