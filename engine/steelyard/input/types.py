"""Arrow types at the door: their layouts, which types go together, and casts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.core.arrow import offsets_of, to_ints

UUID_TEXT = 36
DECIMAL_DIGITS = 38  # of a decimal in DuckDB
_LISTS = (
    *(pa.ListType, pa.LargeListType, pa.FixedSizeListType),
    *(pa.ListViewType, pa.LargeListViewType),
)
_DASHES = (8, 12, 16, 20)


class UnsupportedError(Exception):
    """A type that cannot play its part; the text says why."""


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds declared text, in any of Arrow's layouts."""
    if pt.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Return whether this is one of Arrow's list layouts."""
    return isinstance(kind, _LISTS)


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether this is binary, in any of Arrow's layouts of variable length."""
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind))


def is_number(kind: pa.DataType) -> bool:
    """Return whether values of this type are numbers."""
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def is_uuid(kind: pa.DataType) -> bool:
    """Return whether this is Parquet's UUID, as pyarrow shows it from version 18 on."""
    return getattr(kind, "extension_name", "") == "arrow.uuid"


def fields_of(kind: pa.DataType) -> dict[str, pa.DataType]:
    """Return the types of a struct's fields; of another type, nothing."""
    return {field.name: field.type for field in kind} if pt.is_struct(kind) else {}


def unify(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """Return a type that holds the values of both, or None if they do not mean the same.

    The types are those of `role_type` or `metadata_type`. Null gives way to any other; numbers,
    decimals and timestamps become wide enough for both.
    """
    result: pa.DataType | None = None
    if left == right or pt.is_null(right):
        result = left
    elif pt.is_null(left):
        result = right
    elif pt.is_list(left) and pt.is_list(right):
        item = unify(left.value_type, right.value_type)
        result = None if item is None else pa.list_(item)
    elif pt.is_map(left) and pt.is_map(right):
        key, item = (unify(getattr(left, x), getattr(right, x)) for x in ("key_type", "item_type"))
        result = None if key is None or item is None else pa.map_(key, item)
    elif pt.is_struct(left) and pt.is_struct(right):
        ours, theirs = fields_of(left), fields_of(right)
        if ours.keys() == theirs.keys():
            both = {name: unify(kind, theirs[name]) for name, kind in ours.items()}
            result = None if None in both.values() else pa.struct(list(both.items()))
    elif pt.is_timestamp(left) and pt.is_timestamp(right):
        if (left.tz is None) == (right.tz is None):
            unit = "ns" if "ns" in {left.unit, right.unit} else "us"
            result = pa.timestamp(unit, left.tz and "UTC")
    elif is_number(left) and is_number(right):
        result = _wider(left, right)
    return result


def _wider(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """Return a type for numbers of two different types; None where digits would be lost."""
    floats = [pt.is_floating(kind) for kind in (left, right)]
    if any(floats):
        both = all(floats) or pt.is_integer(left) or pt.is_integer(right)
        return pa.float64() if both else None
    if pt.is_decimal(left) or pt.is_decimal(right):
        sizes = [_decimal_size(kind) for kind in (left, right)]
        scale = max(scale for _, scale in sizes)
        digits = scale + max(digits - scale for digits, scale in sizes)
        return pa.decimal128(digits, scale) if digits <= DECIMAL_DIGITS else None
    signs = [pt.is_signed_integer(kind) for kind in (left, right)]
    if signs[0] == signs[1]:
        return max(left, right, key=lambda kind: kind.bit_width)
    unsigned = right if signs[0] else left
    return None if unsigned == pa.uint64() else pa.int64()


def _decimal_size(kind: pa.DataType) -> tuple[int, int]:
    """Return precision and scale of the decimal that holds a decimal's or integer's values."""
    if pt.is_decimal(kind):
        return kind.precision, kind.scale
    return len(str(2**kind.bit_width)), 0


def without_nulls(kind: pa.DataType) -> pa.DataType:
    """Return the type with `string` in place of null: DuckDB has no columns of nulls only."""
    if pt.is_null(kind):
        return pa.string()
    if pt.is_list(kind):
        return pa.list_(without_nulls(kind.value_type))
    if pt.is_map(kind):
        return pa.map_(without_nulls(kind.key_type), without_nulls(kind.item_type))
    if pt.is_struct(kind):
        return pa.struct([(field.name, without_nulls(field.type)) for field in kind])
    return kind


def cast(values: pa.Array, kind: pa.DataType, *, exact: bool = False) -> pa.Array:
    """Return values as the type that `role_type` or `metadata_type` chose; UTF-8 is not checked.

    What is below the unit of a time is cut; a large integer becomes the nearest float, unless it is
    to be `exact`.

    Raises:
        pa.ArrowInvalid: a value is out of that type's range.
    """
    if values.type == kind:
        return values
    if is_uuid(values.type):
        return _uuid_text(values)
    if isinstance(values.type, pa.BaseExtensionType):
        return cast(values.storage, kind, exact=exact)
    if has_views(values.type):
        values = as_lists(values)
    options = pc.CastOptions(kind, allow_time_truncate=True, allow_float_truncate=not exact)
    return values.cast(options=options)


def has_views(kind: pa.DataType) -> bool:
    """Return whether a type has lists in the view layout, at any depth."""
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    return bool(pt.is_list_view(kind) or pt.is_large_list_view(kind)) or any(map(has_views, inner))


def as_lists(values: pa.Array) -> pa.Array:
    """Return values with lists in place of list views.

    pyarrow 26 casts these to other lists, and cannot write them to Parquet.
    """
    kind = values.type
    if not has_views(kind):
        return values
    null = values.is_null()
    if pt.is_struct(kind):
        inner = [as_lists(pc.struct_field(values, [i])) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(inner, names=[field.name for field in kind], mask=null)
    if pt.is_map(kind):
        keys, items = as_lists(values.keys), as_lists(values.items)
        return pa.MapArray.from_arrays(values.offsets, keys, items, mask=null)
    offsets = pa.array(offsets_of(to_ints(pc.list_value_length(values))), pa.int32())
    return pa.ListArray.from_arrays(offsets, as_lists(values.flatten()), mask=null)


def _uuid_text(values: pa.Array) -> pa.StringArray:
    """Return UUIDs in their usual spelling, 8-4-4-4-12 hexadecimal digits."""
    rows = len(values)
    stored = values.storage.fill_null(bytes(16))
    raw = stored.buffers()[1].slice(stored.offset * 16, rows * 16).to_pybytes()
    digits = np.frombuffer(raw.hex().encode(), dtype=np.uint8).reshape(rows, 32)
    text = np.insert(digits, _DASHES, ord("-"), axis=1)
    offsets = np.arange(0, (rows + 1) * UUID_TEXT, UUID_TEXT, dtype=np.int32)
    spelled = pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(text.tobytes()))
    return pc.if_else(values.is_valid(), spelled, None)
