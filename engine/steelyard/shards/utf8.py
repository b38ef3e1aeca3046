"""Rows whose texts are not UTF-8. Parquet files declare it; pyarrow does not check on reading."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from ..errors import escape
from ..records import Bool

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
