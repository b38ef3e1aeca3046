"""Parquet files for the tests: good ones, and ones whose footers or pages lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.input import Limits, ShardSet, stream


def pairs(rows: int = 3, **columns: Any) -> pa.Table:
    """Rows with the required columns; `columns` replace or add, None takes one away."""
    made: dict[str, Any] = {
        "instruction": [f"question {i}" for i in range(rows)],
        "response_a": [f"first answer {i}" for i in range(rows)],
        "response_b": [f"second answer {i}" for i in range(rows)],
    }
    made |= columns
    return pa.table({name: values for name, values in made.items() if values is not None})


def write(path: Path, table: pa.Table | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pairs() if table is None else table, path, **options)
    return path


def not_utf8(values: list[bytes | None]) -> pa.Array:
    """A column declared as text, of these bytes."""
    stored = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), stored.buffers())


def read(shards: ShardSet, **limits: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All rows and all rejects, each batch checked against its schema."""
    good: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    for rows, rejects in stream(shards, Limits(**limits)):
        rows.validate(full=True)
        rejects.validate(full=True)
        assert rows.schema.equals(shards.schema)
        good += rows.to_pylist()
        bad += rejects.to_pylist()
    return good, bad


def varint(number: int) -> bytes:
    """A Thrift compact integer."""
    value, out = (number << 1) ^ (number >> 63), bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def edit_footer(path: Path, old: bytes, new: bytes, count: int = -1) -> Path:
    """Replace bytes of the footer and correct its length."""
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    body, footer = data[: -8 - length], data[-8 - length : -8]
    assert old in footer
    changed = footer.replace(old, new, count)
    path.write_bytes(body + changed + len(changed).to_bytes(4, "little") + b"PAR1")
    return path


def claim_rows(path: Path, rows: int) -> Path:
    """A footer that consistently claims another number of rows; the file must have 12,345."""
    return edit_footer(path, varint(12_345), varint(rows))


def flip_byte(path: Path, needle: bytes) -> Path:
    """Change one byte of the data, where `needle` is uncompressed."""
    data = bytearray(path.read_bytes())
    at = data.index(needle)
    data[at] ^= 0x01
    path.write_bytes(data)
    return path
