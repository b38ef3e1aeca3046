"""Arrow columns as NumPy arrays, and the offsets of ragged rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.schemas import Bool, Float64, Int64


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
