"""Arrow types at the door: what a role accepts, what metadata may be, and the casts between."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.core.schemas import CRITERIA, GOLD, TURNS
from steelyard.input.roles import CONVERSATIONS

UUID_TEXT = 36
_DASHES = (8, 12, 16, 20)
_DEEPEST = 16
_DIGITS = 38
# Roles that are one number a row, in tables of verdicts.
NUMBERS = ("preference", "length_a", "length_b")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
GOLD_ORDER = [field.name for field in GOLD]


class UnsupportedError(Exception):
    """A type that cannot play its part; the text says why."""


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds declared text, in any of Arrow's layouts."""
    if pt.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Any of Arrow's list layouts."""
    return bool(
        pt.is_list(kind)
        or pt.is_large_list(kind)
        or pt.is_fixed_size_list(kind)
        or pt.is_list_view(kind)
        or pt.is_large_list_view(kind)
    )


def is_uuid(kind: pa.DataType) -> bool:
    """Parquet's UUID, as pyarrow shows it from version 18 on."""
    return getattr(kind, "extension_name", "") == "arrow.uuid"


def role_type(role: str, kind: pa.DataType) -> pa.DataType:
    """The type that a role's column is brought to; null stays null (all values absent).

    Raises:
        UnsupportedError: the role cannot use such a column.
    """
    if pt.is_null(kind):
        return kind
    if role in {"pair_id", "instruction_id"}:
        return _id_type(role, kind)
    if role in _OWN_TYPES:
        return _OWN_TYPES[role](kind)
    if role.startswith("votes_") or role in NUMBERS:
        if pt.is_integer(kind) or pt.is_floating(kind):
            return pa.float64()
        raise UnsupportedError("has to be a number")
    if is_text(kind):
        return pa.string()
    if pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind):
        raise UnsupportedError("holds bytes that are not declared to be text")
    raise UnsupportedError("has to be text")


def _id_type(role: str, kind: pa.DataType) -> pa.DataType:
    if role == "instruction_id" and pt.is_integer(kind):
        return pa.uint64() if pt.is_unsigned_integer(kind) else pa.int64()
    if is_text(kind) or pt.is_integer(kind) or is_uuid(kind):
        return pa.string()
    raise UnsupportedError("has to be text or an integer")


def _turns_type(kind: pa.DataType) -> pa.DataType:
    if is_list(kind):
        item = kind.value_type
        if pt.is_null(item):
            return pa.null()
        if is_text(item):
            return pa.list_(pa.string())
        if pt.is_struct(item):
            fields = {item.field(i).name: item.field(i).type for i in range(item.num_fields)}
            if all(name in fields and is_text(fields[name]) for name in ("role", "content")):
                return TURNS
    raise UnsupportedError(
        "has to be a list of texts or of structs with the texts role and content"
    )


def _criteria_type(kind: pa.DataType) -> pa.DataType:
    if is_list(kind):
        item = kind.value_type
        if is_text(item):
            return pa.list_(pa.string())
        if pt.is_struct(item):
            fields = {item.field(i).name: item.field(i).type for i in range(item.num_fields)}
            weight = fields.get("weight", pa.null())
            if is_text(fields.get("text", pa.null())) and (
                pt.is_integer(weight) or pt.is_floating(weight)
            ):
                return CRITERIA
    raise UnsupportedError(
        "has to be a list of texts or of structs with the text `text` and the number `weight`"
    )


def _images_type(kind: pa.DataType) -> pa.DataType:
    if is_list(kind):
        item = kind.value_type
        return pa.null() if pt.is_null(item) else pa.list_(_images_type(item))
    if is_text(kind):
        return pa.string()
    if pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind):
        return pa.binary()
    if pt.is_struct(kind):
        fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        raw, path = (fields.get(name, pa.null()) for name in ("bytes", "path"))
        bytes_fit = pt.is_null(raw) or pt.is_binary(raw) or pt.is_large_binary(raw)
        if {"bytes", "path"} & fields.keys() and bytes_fit and (pt.is_null(path) or is_text(path)):
            return IMAGE
    raise UnsupportedError(
        "has to hold bytes, paths, structs of bytes and path, or lists of one of these"
    )


def _gold_type(kind: pa.DataType) -> pa.DataType:
    if is_text(kind):
        return pa.string()
    if pt.is_floating(kind):
        return pa.float64()
    if pt.is_struct(kind):
        fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        numbers = all(pt.is_integer(x) or pt.is_floating(x) for x in fields.values())
        if numbers and {"a", "b"} <= fields.keys() <= {"a", "b", "tie"}:
            return pa.struct([(name, pa.float64()) for name in GOLD_ORDER if name in fields])
    if pt.is_integer(kind) or pt.is_boolean(kind):
        raise UnsupportedError("is ambiguous: is 1 the first response, or P(a) = 1?")
    raise UnsupportedError("has to be a label (A, B or tie) or P(a) as a floating-point number")


_OWN_TYPES = {
    **dict.fromkeys(CONVERSATIONS, _turns_type),
    "images": _images_type,
    "criteria": _criteria_type,
    "gold": _gold_type,
}


def metadata_type(kind: pa.DataType, depth: int = 0) -> pa.DataType:
    """The type that a metadata column is written with, in Parquet and in DuckDB; null stays null.

    Dictionaries are decoded, large and view layouts become plain, UUIDs and JSON become text,
    other extension types their storage, durations their integers.

    Raises:
        UnsupportedError: neither can keep such values.
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
        result = _metadata_struct(kind, depth)
    else:
        result = _plain(kind)
    return result


def _plain(kind: pa.DataType) -> pa.DataType:
    if pt.is_duration(kind):
        return pa.int64()
    if pt.is_decimal(kind) and kind.precision > _DIGITS:
        raise UnsupportedError(f"has more digits than DuckDB keeps ({_DIGITS})")
    if pt.is_interval(kind) or not (
        pt.is_primitive(kind)
        or pt.is_binary(kind)
        or pt.is_fixed_size_binary(kind)
        or pt.is_decimal(kind)
        or pt.is_null(kind)
    ):
        raise UnsupportedError("is of a type that Parquet or DuckDB cannot write")
    return kind


def _extension(kind: pa.BaseExtensionType, depth: int) -> pa.DataType:
    if depth:  # pyarrow 26 casts no list or struct with an extension type inside
        raise UnsupportedError(f"has the extension type {kind.extension_name} inside of another")
    return metadata_type(kind.storage_type)


def _metadata_struct(kind: pa.StructType, depth: int) -> pa.DataType:
    fields = [kind.field(i) for i in range(kind.num_fields)]
    folded = {field.name.casefold() for field in fields}
    if not fields or len(folded) < len(fields) or "" in folded:
        raise UnsupportedError("has fields without a name, or whose names differ in case only")
    return pa.struct([(field.name, metadata_type(field.type, depth + 1)) for field in fields])


def unify(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """The one type for columns of both types: null gives way to any other; None: there is none."""
    if left == right or pt.is_null(right):
        return left
    if pt.is_null(left):
        return right
    if pt.is_list(left) and pt.is_list(right):
        item = unify(left.value_type, right.value_type)
        return None if item is None else pa.list_(item)
    if pt.is_struct(left) and pt.is_struct(right):
        theirs = {right.field(i).name: right.field(i).type for i in range(right.num_fields)}
        ours = {left.field(i).name: left.field(i).type for i in range(left.num_fields)}
        if ours.keys() == theirs.keys():
            both = {name: unify(kind, theirs[name]) for name, kind in ours.items()}
            return None if None in both.values() else pa.struct(list(both.items()))
    return None


def without_nulls(kind: pa.DataType) -> pa.DataType:
    """The type with `string` wherever it says null, for DuckDB has no column of nulls only."""
    if pt.is_null(kind):
        return pa.string()
    if pt.is_list(kind):
        return pa.list_(without_nulls(kind.value_type))
    if pt.is_map(kind):
        return pa.map_(without_nulls(kind.key_type), without_nulls(kind.item_type))
    if pt.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return pa.struct([(field.name, without_nulls(field.type)) for field in fields])
    return kind


def cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Values as the type that `role_type` or `metadata_type` chose; UTF-8 is not checked.

    Raises:
        pa.ArrowException: a value has no place in that type.
    """
    if values.type == kind:
        return values
    if is_uuid(values.type):
        return _uuid_text(values)
    if isinstance(values.type, pa.BaseExtensionType):
        return cast(values.storage, kind)
    return values.cast(kind)


def _uuid_text(values: pa.Array) -> pa.StringArray:
    """UUIDs in their usual spelling, 8-4-4-4-12 hexadecimal digits."""
    rows = len(values)
    stored = values.storage.fill_null(bytes(16))
    raw = stored.buffers()[1].slice(stored.offset * 16, rows * 16).to_pybytes()
    digits = np.frombuffer(raw.hex().encode(), dtype=np.uint8).reshape(rows, 32)
    text = np.insert(digits, _DASHES, ord("-"), axis=1)
    offsets = np.arange(0, (rows + 1) * UUID_TEXT, UUID_TEXT, dtype=np.int32)
    spelled = pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(text.tobytes()))
    return pc.if_else(values.is_valid(), spelled, None)
