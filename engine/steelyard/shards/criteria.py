"""A row's own criteria -> CRITERIA."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from ..records import CRITERIA
from .findings import CRITERIA as REASON
from .findings import Findings
from .problems import show


def read_criteria(values: pa.Array, column: str, findings: Findings) -> pa.Array:
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
        bad, REASON, lambda _: f"{show(column)} has no criterion, an empty one, or a bad weight"
    )
    fields = list(CRITERIA.value_type)
    structs = pa.StructArray.from_arrays([texts, weights], fields=fields)
    return pa.ListArray.from_arrays(pa.array(offsets - start, pa.int32()), structs, type=CRITERIA)
