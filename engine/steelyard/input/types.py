"""Arrow types at the door: what a role accepts, which types go together, and casts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.core.arrow import offsets_of, to_ints
from steelyard.core.schemas import CRITERIA, GOLD, TURNS
from steelyard.input.roles import CONVERSATIONS, LENGTHS, MODELS, VOTES

UUID_TEXT = 36
DECIMAL_DIGITS = 38  # of a decimal in DuckDB
_LISTS = (
    *(pa.ListType, pa.LargeListType, pa.FixedSizeListType),
    *(pa.ListViewType, pa.LargeListViewType),
)
_DASHES = (8, 12, 16, 20)
SAID = ("instruction", "response_a", "response_b")  # may be messages
NUMBERS = (*VOTES, *LENGTHS, "preference")
NAMES = ("pair_id", "instruction_id", "annotator", *MODELS)  # texts, or whole numbers as texts
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


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


def role_type(role: str, kind: pa.DataType) -> pa.DataType:
    """Return the type that a role's column is brought to; null stays null (all values absent).

    Raises:
        UnsupportedError: the role cannot use such a column.
    """
    if pt.is_null(kind):
        return kind
    if role in _OWN_TYPES:
        return _OWN_TYPES[role](kind)
    if role in NUMBERS:
        if is_number(kind):
            return pa.float64()
        raise UnsupportedError("has to be a number")
    if role == "instruction_id" and pt.is_integer(kind):
        return pa.uint64() if pt.is_unsigned_integer(kind) else pa.int64()
    if is_text(kind) or (role in NAMES and (pt.is_integer(kind) or is_uuid(kind))):
        return pa.string()
    if is_bytes(kind):
        raise UnsupportedError("holds bytes that are not declared to be text")
    raise UnsupportedError(f"has to be text{' or an integer' * (role in NAMES)}")


def absent(role: str, rows: int) -> pa.Array:
    """Return the values of a column of type null, in the type of its role's simplest form."""
    return pa.nulls(rows, pa.float64() if role in NUMBERS else pa.string())


def fields_of(kind: pa.DataType) -> dict[str, pa.DataType]:
    """Return the types of a struct's fields; of another type, nothing."""
    return {field.name: field.type for field in kind} if pt.is_struct(kind) else {}


# Fields of messages that call tools, which no prompt shows: a turn that has one is refused.
TOOL_FIELDS = ("tool_calls", "function_call", "tool_call_id")
# How messages name who speaks and what they say: chat templates, and ShareGPT.
MESSAGES = (("role", "content"), ("from", "value"))


def _message_type(kind: pa.DataType) -> pa.DataType | None:
    """Return how messages of this type are read; None if they are none."""
    fields = fields_of(kind)
    for role, content in MESSAGES:
        if is_text(fields.get(role, pa.null())) and is_text(fields.get(content, pa.null())):
            tools = [(name, fields[name]) for name in TOOL_FIELDS if name in fields]
            return pa.struct([*TURNS.value_type, *tools])
    return None


def _said_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of an instruction or response: a text, a message, or a list of them."""
    if is_text(kind):
        return pa.string()
    item = _message_type(kind.value_type if is_list(kind) else kind)
    if item is not None:
        return pa.list_(item)
    if is_bytes(kind):
        raise UnsupportedError("holds bytes that are not declared to be text")
    raise UnsupportedError(
        "has to be text, or a list of messages: structs with the texts role and content, or from"
        " and value"
    )


def _turns_type(kind: pa.DataType) -> pa.DataType:
    if is_list(kind):
        item = kind.value_type
        if pt.is_null(item):
            return pa.null()
        if is_text(item):
            raise UnsupportedError(
                "does not say who speaks: make each text a struct with the texts role and content"
            )
        fields = fields_of(item)
        if all(name in fields and is_text(fields[name]) for name in ("role", "content")):
            tools = [(name, fields[name]) for name in TOOL_FIELDS if name in fields]
            return pa.list_(pa.struct([*TURNS.value_type, *tools]))
    raise UnsupportedError("has to be a list of structs with the texts role and content")


# Names of the text in a list of structs, each of a response.
RESPONSE_FIELDS = ("response", "text", "output", "completion", "content")


def _responses_type(kind: pa.DataType) -> pa.DataType:
    if is_list(kind):
        if is_text(kind.value_type):
            return pa.list_(pa.string())
        fields = fields_of(kind.value_type)
        for name in RESPONSE_FIELDS:
            if name in fields and is_text(fields[name]):
                model = [("model", pa.string())] if is_text(fields.get("model", pa.null())) else []
                return pa.list_(pa.struct([(name, pa.string()), *model]))
    raise UnsupportedError("has to be a list of texts, or of structs with the text `response`")


def _models_type(kind: pa.DataType) -> pa.DataType:
    if is_list(kind) and is_text(kind.value_type):
        return pa.list_(pa.string())
    raise UnsupportedError("has to be a list of texts")


def _criteria_type(kind: pa.DataType) -> pa.DataType:
    if is_list(kind):
        if is_text(kind.value_type):
            return pa.list_(pa.string())
        fields = fields_of(kind.value_type)
        text, weight = (fields.get(name, pa.null()) for name in ("text", "weight"))
        if is_text(text) and (pt.is_integer(weight) or pt.is_floating(weight)):
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
    if is_bytes(kind):
        return pa.binary()
    fields = fields_of(kind)
    raw, path = (fields.get(name, pa.null()) for name in ("bytes", "path"))
    bytes_fit = pt.is_null(raw) or is_bytes(raw)
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
    fields = fields_of(kind)
    if all(map(is_number, fields.values())) and {"a", "b"} <= fields.keys() <= {"a", "b", "tie"}:
        return pa.struct([(field.name, pa.float64()) for field in GOLD if field.name in fields])
    if pt.is_integer(kind) or pt.is_boolean(kind):
        raise UnsupportedError("is ambiguous: is 1 the first response, or P(a) = 1?")
    raise UnsupportedError("has to be a label (A, B or tie) or P(a) as a floating-point number")


_OWN_TYPES = {
    **dict.fromkeys(CONVERSATIONS, _turns_type),
    "images": _images_type,
    "responses": _responses_type,
    "models": _models_type,
    "criteria": _criteria_type,
    "gold": _gold_type,
    **dict.fromkeys(SAID, _said_type),
}


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
