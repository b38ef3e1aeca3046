"""Rows by group: a stable counting sort."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.jit import column, kernel

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


def group(codes: Int32, groups: int) -> tuple[Int64, Int64]:
    """Where each group's rows are.

    Args:
        codes: int32 [rows], each from 0 to groups - 1.
        groups: how many.

    Returns:
        order: int64 [rows], row numbers by group, in their order within one.
        ends: int64 [groups + 1]; group g is order[ends[g]:ends[g + 1]].
    """
    order = np.empty(len(codes), np.int64)
    ends = np.zeros(groups + 2, np.int64)
    _group(column(codes, np.int32), order, ends)
    return order, ends[:-1]


@kernel
def _group(codes: Int32, order: Int64, ends: Int64) -> None:
    """Counts stand two places ahead, so that placing rows leaves the beginnings in place."""
    for code in codes:
        ends[code + 2] += 1
    for at in range(2, len(ends)):
        ends[at] += ends[at - 1]
    for row in range(len(codes)):
        at = ends[codes[row] + 1]
        order[at] = row
        ends[codes[row] + 1] += 1
