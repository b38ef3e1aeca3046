"""Cells of a row: its criteria, its earlier turns, its size in bytes, and whether it is UTF-8."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.core.schemas import CRITERIA, TURNS, Bool, Int64
from steelyard.errors import escape
from steelyard.input import problems
from steelyard.input.problems import RowProblems, printable


def read_criteria(values: pa.Array, column: str, findings: RowProblems) -> pa.Array:
    """CRITERIA for each row; a plain text has weight 1.

    Args:
        values: list<string>, or CRITERIA.
        column: the user's name of it.
        findings: rows are added that have no criterion, an empty one, or a weight that is not
            above 0.
    """
    offsets = values.offsets.to_numpy()
    start, end = int(offsets[0]), int(offsets[-1])
    items = values.values.slice(start, end - start)
    if pt.is_struct(items.type):
        texts, weights = (pc.struct_field(items, name) for name in ("text", "weight"))
    else:
        texts, weights = items, pa.array(np.ones(len(items)))
    empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), True)
    weights = pc.fill_null(weights.cast(pa.float64()), 1.0)
    number = weights.to_numpy(zero_copy_only=False)
    wrong = empty.to_numpy(zero_copy_only=False) | ~((number > 0) & (number < np.inf))
    row_of = np.repeat(np.arange(len(values)), np.diff(offsets))
    bad = np.bincount(row_of[wrong], minlength=len(values)) > 0
    none = pc.fill_null(pc.equal(pc.list_value_length(values), 0), True)
    bad |= none.to_numpy(zero_copy_only=False)
    findings.add(
        bad,
        problems.CRITERIA,
        lambda _: f"{printable(column)} has no criterion, an empty one, or a bad weight",
    )
    fields = list(CRITERIA.value_type)
    structs = pa.StructArray.from_arrays([texts, weights], fields=fields)
    return pa.ListArray.from_arrays(pa.array(offsets - start, pa.int32()), structs, type=CRITERIA)


def row_bytes(values: pa.Array) -> Int64:
    """Bytes of each row's values: UTF-8 of texts, items of lists; no null maps or offsets.

    Args:
        values: n rows of a type that `columns.metadata_type` allows.

    Returns:
        n sizes.
    """
    kind = values.type
    if pt.is_string(kind) or pt.is_binary(kind):
        return _int64(pc.binary_length(values))
    if pt.is_list(kind) or pt.is_map(kind):
        offsets = values.offsets.to_numpy()
        if pt.is_map(kind):
            inner = row_bytes(values.keys) + row_bytes(values.items)
        else:
            inner = row_bytes(values.values)
        upto = np.concatenate([[0], np.cumsum(inner)])
        sizes: Int64 = upto[offsets[1:]] - upto[offsets[:-1]]
        return sizes
    total = np.zeros(len(values), dtype=np.int64)
    if pt.is_struct(kind):
        for index in range(kind.num_fields):
            total += row_bytes(pc.struct_field(values, [index]))
        return total
    width = 0 if pt.is_null(kind) else (kind.bit_width + 7) // 8
    return total + width


def _int64(lengths: pa.Array) -> Int64:
    sizes: Int64 = lengths.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return sizes


SPEAKERS = pa.array(["user", "assistant"])


def read_turns(values: pa.Array, column: str, findings: RowProblems) -> pa.Array:
    """TURNS for each row: null where there are none, be the list null or empty.

    These are the turns before the instruction, oldest first. A list of plain texts alternates,
    and the user begins.

    Args:
        values: list<struct<role, content>> or list<string>, valid UTF-8.
        column: the user's name of it.
        findings: rows with an unknown role, or a null in the list, are added.
    """
    offsets = values.offsets.to_numpy()
    start, end = int(offsets[0]), int(offsets[-1])
    items = values.values.slice(start, end - start)
    offsets = offsets - start
    absent = pc.fill_null(pc.equal(pc.list_value_length(values), 0), True)
    row_of = np.repeat(np.arange(len(values)), np.diff(offsets))
    if pt.is_struct(items.type):
        speakers, contents = (pc.struct_field(items, name) for name in ("role", "content"))
    else:
        place = np.arange(len(items)) - offsets[row_of]
        speakers, contents = SPEAKERS.take(pa.array(place % 2)), items
    known = pc.is_in(speakers, value_set=SPEAKERS).to_numpy(zero_copy_only=False)
    null = contents.is_null().to_numpy(zero_copy_only=False)
    rows = len(values)
    findings.add(
        _any(~known, row_of, rows),
        problems.TURNS,
        lambda row: (
            f"{printable(column)} has the role {_first(speakers, ~known & (row_of == row))}; "
            "known are user and assistant"
        ),
    )
    findings.add(
        _any(null, row_of, rows),
        problems.TURNS,
        lambda _: f"{printable(column)} has a turn without content",
    )
    structs = pa.StructArray.from_arrays([speakers, contents], fields=list(TURNS.value_type))
    where = pa.array(offsets, pa.int32())
    return pa.ListArray.from_arrays(where, structs, type=TURNS, mask=absent)


def _any(bad: Bool, row_of: np.ndarray, rows: int) -> Bool:
    return np.bincount(row_of[bad], minlength=rows).astype(np.bool_)


def _first(values: pa.Array, chosen: Bool) -> str:
    value = values[int(np.flatnonzero(chosen)[0])].as_py()
    return "null" if value is None else escape(value)


_SHOWN = 16


def invalid_rows(values: pa.Array) -> Bool | None:
    """Mask of rows that hold invalid UTF-8 at any depth; None: there are none.

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


def shown_bytes(values: pa.Array, row: int) -> str:
    """Where the first invalid byte of a plain text is and what follows it; else nothing."""
    if not pt.is_string(values.type):
        return ""
    raw = values.slice(row, 1).cast(pa.binary())[0].as_py()
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        after = raw[error.start : error.start + _SHOWN]
        return f" at byte {error.start}: {escape(repr(after)[2:-1])}"
    return ""
