"""Arrow columns as NumPy arrays, offsets of ragged rows, and types that DuckDB reads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.core.schemas import Bool, Float64, Int64

_DIGITS = 38  # of the widest decimal that DuckDB has


def to_mask(values: pa.Array | pa.ChunkedArray) -> Bool:
    """Return booleans; null becomes False."""
    return np.asarray(pc.fill_null(values, False), dtype=np.bool_)


def to_ints(values: pa.Array | pa.ChunkedArray, null: int = 0) -> Int64:
    """Return whole numbers as int64; null becomes `null`."""
    return np.asarray(pc.fill_null(values, null), dtype=np.int64)


def list_lengths(values: pa.Array | pa.ChunkedArray) -> Int64:
    """Return how many items each list has; null counts as 0."""
    return to_ints(pc.list_value_length(values))


def to_floats(values: pa.Array | pa.ChunkedArray) -> Float64:
    """Return numbers as float64; null becomes NaN."""
    return np.asarray(values, dtype=np.float64)


def votes_of(gold: pa.StructArray) -> Float64:
    """Return the votes of n rows (schemas.GOLD) as [n, 3]: for a, for b, ties; null: NaN."""
    parts = (pc.struct_field(gold, name) for name in ("a", "b", "tie"))
    return np.stack([to_floats(part) for part in parts], axis=1)


def repeat_text(text: str, rows: int) -> pa.StringArray:
    """Return a column with the same text in each row."""
    return pa.repeat(pa.scalar(text, pa.string()), rows)


def offsets_of(lengths: npt.ArrayLike) -> Int64:
    """Return where n ragged rows of these lengths begin and end, as n + 1 numbers from 0.

    Row i is values[offsets[i]:offsets[i + 1]].
    """
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def is_wide_decimal(kind: pa.DataType) -> bool:
    """Return whether a type is, or holds, a decimal with more digits than DuckDB has."""
    if pt.is_nested(kind):
        return any(is_wide_decimal(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pt.is_decimal256(kind) and kind.precision > _DIGITS)


def duckdb_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which DuckDB reads this one: those that it has not become near ones."""
    near = kind
    if pt.is_float16(kind):
        near = pa.float32()
    elif pt.is_decimal256(kind):
        wide = is_wide_decimal(kind)
        near = pa.float64() if wide else pa.decimal128(kind.precision, kind.scale)
    elif pt.is_duration(kind):
        near = pa.int64()
    elif pt.is_struct(kind):
        near = pa.struct([field.with_type(duckdb_type(field.type)) for field in kind])
    elif pt.is_map(kind):
        near = pa.map_(duckdb_type(kind.key_type), duckdb_type(kind.item_type))
    elif isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        size = kind.list_size if pt.is_fixed_size_list(kind) else -1
        item = kind.value_field.with_type(duckdb_type(kind.value_type))
        near = pa.large_list(item) if pt.is_large_list(kind) else pa.list_(item, size)
    return near
