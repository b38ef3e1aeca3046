"""What type of column each role accepts, and the type that it is brought to."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

from steelyard.core.schemas import CRITERIA, GOLD, TURNS
from steelyard.input.roles import CONVERSATIONS, LENGTHS, MODELS, VOTES
from steelyard.input.types import (
    UnsupportedError,
    fields_of,
    is_bytes,
    is_list,
    is_number,
    is_text,
    is_uuid,
)

SAID = ("instruction", "response_a", "response_b")  # may be messages
NUMBERS = (*VOTES, *LENGTHS, "preference")
NAMES = ("pair_id", "instruction_id", "annotator", *MODELS)  # texts, or whole numbers as texts
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


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
    messages = ", or a list of messages: structs with the texts role and content, or from and value"
    raise UnsupportedError(f"has to be text{messages * pt.is_nested(kind)}")


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
