"""Metadata at the door: columns are brought to types, and rows kept to values, that last.

They are written to Parquet and read by DuckDB, natively and through Arrow, in all versions that may
open a hand-off file. All of them have to hold a value, and show the same.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.core.arrow import to_ints, to_mask
from steelyard.core.schemas import Bool, Int64
from steelyard.input.types import DECIMAL_DIGITS, UnsupportedError, cast, is_list, is_text, is_uuid

_DEEPEST = 16
_MOST, _DAYS = 2**63 - 1, 2**31 - 1
_DAY = 86_400_000_000  # microseconds
# The least that DuckDB 1.5 holds of a type; one value below is its infinity.
_LEAST = {"us": -9_223_372_022_400_000_000, "ns": -9_223_286_400_000_000_000}


def metadata_type(kind: pa.DataType, depth: int = 0) -> pa.DataType:
    """Return the type in which metadata is written; null stays null.

    Dictionaries are decoded, large and view layouts become plain, UUIDs and JSON become text,
    other extension types their storage, durations their integers, half floats single ones, and
    decimals of more than 38 digits text. Times are in microseconds, but for timestamps in
    nanoseconds without a time zone.

    Raises:
        UnsupportedError: neither Parquet nor DuckDB can keep such values.
    """
    if depth > _DEEPEST:
        raise UnsupportedError(f"is nested more than {_DEEPEST} deep")
    inner = partial(metadata_type, depth=depth + 1)
    if is_text(kind) or (is_uuid(kind) and not depth):
        result = pa.string()
    elif pt.is_dictionary(kind):
        result = inner(kind.value_type)
    elif isinstance(kind, pa.BaseExtensionType):
        result = _extension(kind, depth)
    elif pt.is_large_binary(kind) or pt.is_binary_view(kind):
        result = pa.binary()
    elif is_list(kind):
        result = pa.list_(inner(kind.value_type))
    elif pt.is_map(kind):
        result = pa.map_(inner(kind.key_type), inner(kind.item_type))
    elif pt.is_struct(kind):
        result = _struct(kind, depth)
    else:
        result = _plain(kind)
    return result


def _plain(kind: pa.DataType) -> pa.DataType:
    if pt.is_duration(kind):
        result = pa.int64()
    elif pt.is_float16(kind):
        result = pa.float32()
    elif pt.is_decimal256(kind):
        fits = kind.precision <= DECIMAL_DIGITS
        result = pa.decimal128(kind.precision, kind.scale) if fits else pa.string()
    elif pt.is_timestamp(kind):
        exact = kind.unit == "ns" and kind.tz is None
        result = kind if exact else pa.timestamp("us", kind.tz)
    elif pt.is_date(kind):
        result = pa.date32()
    elif pt.is_time(kind):
        result = pa.time64("us")
    elif not pt.is_interval(kind) and (
        pt.is_primitive(kind)
        or pt.is_binary(kind)
        or pt.is_fixed_size_binary(kind)
        or pt.is_decimal(kind)
        or pt.is_null(kind)
    ):
        result = kind
    else:
        raise UnsupportedError("is of a type that Parquet or DuckDB cannot write")
    return result


def _extension(kind: pa.BaseExtensionType, depth: int) -> pa.DataType:
    if depth:  # pyarrow 26 casts no list or struct with an extension type inside
        raise UnsupportedError(f"has the extension type {kind.extension_name} inside of another")
    return metadata_type(kind.storage_type)


def _struct(kind: pa.StructType, depth: int) -> pa.DataType:
    folded = {field.name.casefold() for field in kind}
    if not folded or len(folded) < kind.num_fields or "" in folded:
        raise UnsupportedError("has fields without a name, or whose names differ in case only")
    return pa.struct([(field.name, metadata_type(field.type, depth + 1)) for field in kind])


def fit(values: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Bool | None]:
    """Return n values as the type that `metadata_type` chose, and which rows that cannot hold.

    These are null, their mask is None if there are none. Digits below a microsecond are cut where
    the type has none. UTF-8 is not checked.
    """
    bad: Bool | None = None
    try:
        result = cast(values, kind, exact=True)
    except pa.ArrowInvalid:
        bad = np.zeros(len(values), dtype=np.bool_)
        _mark(values, kind, 0, bad)
        result = cast(_without(values, bad), kind, exact=True)
    if _has_bounds(kind):
        outside = _outside(result)
        if outside.any():
            result = _without(result, outside)
            bad = outside if bad is None else bad | outside
    return result, bad


def _mark(values: pa.Array, kind: pa.DataType, first: int, bad: Bool) -> None:
    """Halve until a half can be cast, or is one row."""
    try:
        cast(values, kind, exact=True)
    except pa.ArrowInvalid:
        if len(values) == 1:
            bad[first] = True
            return
        middle = len(values) // 2
        for start, stop in ((0, middle), (middle, len(values))):
            half = values.take(pa.array(np.arange(start, stop)))  # a list's slice keeps all items
            _mark(half, kind, first + start, bad)


def _without(values: pa.Array, bad: Bool) -> pa.Array:
    return values.take(pa.array(np.arange(len(values)), mask=bad))


def _has_bounds(kind: pa.DataType) -> bool:
    """Return whether some values of a type of `metadata_type` are none of DuckDB's."""
    if pt.is_struct(kind):
        return any(_has_bounds(field.type) for field in kind)
    return bool(
        pt.is_temporal(kind)
        or pt.is_map(kind)
        or (pt.is_list(kind) and _has_bounds(kind.value_type))
    )


def _outside(values: pa.Array) -> Bool:
    """Return which rows hold a value that DuckDB cannot, at any depth."""
    kind = values.type
    bad: Bool = np.zeros(len(values), dtype=np.bool_)
    if pt.is_struct(kind):
        for index in range(kind.num_fields):
            bad |= _outside(pc.struct_field(values, [index]))
    elif pt.is_map(kind):
        offsets = values.offsets.to_numpy().astype(np.int64)
        row_of = np.repeat(np.arange(len(values)), np.diff(offsets))
        keys, items = (part.slice(offsets[0], len(row_of)) for part in (values.keys, values.items))
        bad[row_of[_outside(keys) | _outside(items)]] = True
        bad[_repeats(keys, row_of)] = True
    elif pt.is_list(kind) and _has_bounds(kind):
        offsets = values.offsets.to_numpy().astype(np.int64)
        row_of = np.repeat(np.arange(len(values)), np.diff(offsets))
        bad[row_of[_outside(values.values.slice(offsets[0], len(row_of)))]] = True
    elif pt.is_temporal(kind):
        bad = _out_of_range(values)
    return bad


def _out_of_range(values: pa.Array) -> Bool:
    """Return which dates and times are before or after those of DuckDB."""
    kind = values.type
    if pt.is_date(kind):
        days = to_ints(values.cast(pa.int32()))
        return np.asarray(days < -_DAYS)
    number = to_ints(values.cast(pa.int64()))
    if pt.is_time(kind):
        return np.asarray((number < 0) | (number >= _DAY))
    return np.asarray((number < _LEAST[kind.unit]) & (number != -_MOST))


def _repeats(keys: pa.Array, row_of: Int64) -> Int64:
    """Return the rows, given for each key, that have one twice or a null."""
    null = to_mask(keys.is_null())
    try:
        codes = to_ints(keys.dictionary_encode().indices, null=-1)
    except pa.ArrowNotImplementedError:  # of structs and lists
        seen: dict[str, int] = {}
        codes = np.array([seen.setdefault(repr(key), len(seen)) for key in keys.to_pylist()])
    both = np.stack([row_of, codes])
    first = np.unique(both, axis=1, return_index=True)[1]
    again = np.ones(len(row_of), dtype=np.bool_)
    again[first] = False
    return row_of[again | null]
