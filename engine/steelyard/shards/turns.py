"""Earlier turns of a conversation -> TURNS."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from ..errors import escape
from ..records import TURNS, Bool
from .findings import TURNS as REASON
from .findings import Findings
from .problems import show

SPEAKERS = pa.array(["user", "assistant"])


def read_turns(values: pa.Array, column: str, findings: Findings) -> pa.Array:
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
        REASON,
        lambda row: (
            f"{show(column)} has the role {_first(speakers, ~known & (row_of == row))}; "
            "known are user and assistant"
        ),
    )
    findings.add(
        _any(null, row_of, rows), REASON, lambda _: f"{show(column)} has a turn without content"
    )
    structs = pa.StructArray.from_arrays([speakers, contents], fields=list(TURNS.value_type))
    where = pa.array(offsets, pa.int32())
    return pa.ListArray.from_arrays(where, structs, type=TURNS, mask=absent)


def _any(bad: Bool, row_of: np.ndarray, rows: int) -> Bool:
    return np.bincount(row_of[bad], minlength=rows).astype(np.bool_)


def _first(values: pa.Array, chosen: Bool) -> str:
    value = values[int(np.flatnonzero(chosen)[0])].as_py()
    return "null" if value is None else escape(value)
