"""What is in a row's cells: valid UTF-8, how many bytes, earlier turns, criteria."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.core.arrow import offsets_of, to_floats, to_ints, to_mask
from steelyard.core.schemas import CRITERIA, TURNS, Bool, Int64
from steelyard.input.problems import Reason, RowProblems, printable
from steelyard.input.role_types import TOOL_FIELDS
from steelyard.input.types import is_bytes, is_text

SPEAKERS = pa.array(["user", "assistant"])
_SHOWN = 16  # bytes from the first invalid one on


def invalid_rows(values: pa.Array) -> Bool | None:
    """Return a mask of rows that hold invalid UTF-8 at any depth, or None if there are none.

    One pass in C++ where all is well; otherwise halves are looked at until single rows are left.
    """
    if _is_valid(values):
        return None
    bad = np.zeros(len(values), dtype=np.bool_)
    _mark(values, 0, bad)
    return bad if bad.any() else None


def _is_valid(values: pa.Array) -> bool:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _mark(values: pa.Array, first: int, bad: Bool) -> None:
    """Halve until a half is valid or one row; `take` copies, for a list's slice keeps all items."""
    if _is_valid(values):
        return
    if len(values) == 1:
        bad[first] = True
        return
    middle = len(values) // 2
    for start, stop in ((0, middle), (middle, len(values))):
        _mark(values.take(pa.array(np.arange(start, stop))), first + start, bad)


def invalid_bytes(values: pa.Array, row: int) -> str:
    """Return where the first invalid byte of a plain text is, and what follows it; else ''."""
    if pt.is_string(values.type):
        raw = values.slice(row, 1).cast(pa.binary())[0].as_py()
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            after = raw[error.start : error.start + _SHOWN]
            return f"from byte {error.start} on {repr(after)[2:-1]}"
    return ""


def row_bytes(values: pa.Array) -> Int64:
    """Return the bytes of each row: UTF-8 of texts, items of lists; no null maps or offsets.

    The type is one that `metadata.metadata_type` allows.
    """
    kind = values.type
    if pt.is_string(kind) or pt.is_binary(kind):
        return to_ints(pc.binary_length(values))
    if pt.is_list(kind) or pt.is_map(kind):
        inner = [values.keys, values.items] if pt.is_map(kind) else [values.values]
        ends = offsets_of(sum(map(row_bytes, inner)))[values.offsets.to_numpy()]
        return np.diff(ends)
    total = np.zeros(len(values), dtype=np.int64)
    if pt.is_struct(kind):
        for index in range(kind.num_fields):
            total += row_bytes(pc.struct_field(values, [index]))
        return total
    width = 0 if pt.is_null(kind) else (kind.bit_width + 7) // 8
    return total + width


def coded_bytes(values: pa.Array) -> Int64:
    """Return the bytes of each row, once decoded, of what is in dictionaries at any depth."""
    kind = values.type
    total = np.zeros(len(values), dtype=np.int64)
    if pt.is_dictionary(kind):
        sizes = np.append(_dictionary_bytes(values.dictionary), 0)
        total = sizes[to_ints(values.indices, null=-1)]
    elif pt.is_struct(kind):
        for index in range(kind.num_fields):
            total += coded_bytes(pc.struct_field(values, [index]))
    elif pt.is_list(kind) or pt.is_large_list(kind) or pt.is_map(kind):
        inner = [values.keys, values.items] if pt.is_map(kind) else [values.values]
        total = np.diff(offsets_of(sum(map(coded_bytes, inner)))[values.offsets.to_numpy()])
    return total


def _dictionary_bytes(values: pa.Array) -> Int64:
    if is_text(values.type) or is_bytes(values.type):
        return to_ints(pc.binary_length(values.cast(pa.large_binary())))
    return row_bytes(values)


def read_turns(values: pa.Array, column: str, problems: RowProblems) -> pa.Array:
    """Return TURNS for each row: null where there are none, be the list null or empty.

    These are the turns before the instruction, oldest first: user and assistant alternate, the user
    begins, and the assistant ends, because the instruction is the user's. Another order would break
    the chat templates of models. An unknown role, a turn without content, or one that calls a tool,
    which no prompt shows, is a problem.
    """
    items, offsets, row_of = _flatten(values)
    speakers, contents = (pc.struct_field(items, name) for name in ("role", "content"))
    unknown = ~to_mask(pc.is_in(speakers, value_set=SPEAKERS))
    rows, name = len(values), printable(column)
    problems.add(
        _any(unknown, row_of, rows),
        Reason.TURNS,
        f"{name} has a role other than user and assistant",
        lambda row: speakers[int(np.flatnonzero(unknown & (row_of == row))[0])].as_py(),
    )
    null = to_mask(contents.is_null())
    problems.add(_any(null, row_of, rows), Reason.TURNS, f"{name} has a turn without content")
    called = np.zeros(len(items), dtype=np.bool_)
    for field in items.type:
        if field.name in TOOL_FIELDS:
            called |= has_content(pc.struct_field(items, field.name))
    problems.add(_any(called, row_of, rows), Reason.TURNS, f"{name} calls a tool")
    turn = np.arange(len(items)) - offsets[row_of]
    expected = SPEAKERS.take(pa.array(turn % 2))
    astray = ~to_mask(pc.equal(speakers, expected))
    lengths = np.diff(offsets)
    problems.add(
        _any(astray, row_of, rows) | (lengths % 2 == 1),
        Reason.TURNS,
        f"{name} does not alternate between user and assistant, from the user to the assistant",
        lambda row: " ".join(map(str, speakers.slice(offsets[row], lengths[row]).to_pylist())),
    )
    structs = pa.StructArray.from_arrays([speakers, contents], fields=list(TURNS.value_type))
    starts = pa.array(offsets, pa.int32())
    return pa.ListArray.from_arrays(starts, structs, type=TURNS, mask=_is_absent(values))


def has_content(values: pa.Array) -> Bool:
    """Return which values are neither null nor an empty text or list."""
    if is_text(values.type):
        return to_mask(pc.not_equal(values, ""))
    if pt.is_list(values.type) or pt.is_large_list(values.type):
        return to_mask(pc.greater(pc.list_value_length(values), 0))
    return to_mask(values.is_valid())


def read_criteria(values: pa.Array, column: str, problems: RowProblems) -> pa.Array:
    """Return CRITERIA for each row; a plain text has weight 1.

    No criterion, an empty one, or a weight that is not above 0 is a problem.
    """
    items, offsets, row_of = _flatten(values)
    if pt.is_struct(items.type):
        texts, weights = (pc.struct_field(items, name) for name in ("text", "weight"))
    else:
        texts, weights = items, pa.array(np.ones(len(items)))
    weights = pc.fill_null(weights.cast(pa.float64()), 1.0)
    number = to_floats(weights)
    filled = to_mask(pc.not_equal(pc.utf8_trim_whitespace(texts), ""))
    wrong = ~(filled & (number > 0) & (number < np.inf))
    problems.add(
        _any(wrong, row_of, len(values)) | to_mask(_is_absent(values)),
        Reason.CRITERIA,
        f"{printable(column)} has no criterion, an empty one, or a bad weight",
    )
    fields = list(CRITERIA.value_type)
    structs = pa.StructArray.from_arrays([texts, weights], fields=fields)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs, type=CRITERIA)


def _flatten(values: pa.ListArray) -> tuple[pa.Array, Int64, Int64]:
    """Return the items of all lists, where each list begins in them, and the row of each item."""
    offsets: Int64 = values.offsets.to_numpy().astype(np.int64)
    items = values.values.slice(offsets[0], offsets[-1] - offsets[0])
    return items, offsets - offsets[0], np.repeat(np.arange(len(values)), np.diff(offsets))


def _is_absent(values: pa.ListArray) -> pa.BooleanArray:
    return pc.fill_null(pc.equal(pc.list_value_length(values), 0), True)


def _any(bad: Bool, row_of: Int64, rows: int) -> Bool:
    return np.bincount(row_of[bad], minlength=rows).astype(np.bool_)
