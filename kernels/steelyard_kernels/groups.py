"""Rows by group: a stable counting sort."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.jit import column, kernel

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


def group(codes: Int32, groups: int) -> tuple[Int64, Int64]:
    """Return where each group's rows are.

    Args:
        codes: int32 [rows], each from 0 to groups - 1.
        groups: how many.

    Returns:
        order: int64 [rows], row numbers by group, in their order within a group.
        ends: int64 [groups + 1]; group g is order[ends[g]:ends[g + 1]].
    """
    order = np.empty(len(codes), np.int64)
    ends = np.zeros(groups + 2, np.int64)
    _group(column(codes, np.int32), order, ends)
    return order, ends[:-1]


def groups_met(codes: Int32, groups: int, first: Int32, second: Int32, members: int) -> Int64:
    """Count the groups of each member.

    Args:
        codes: int32 [rows], each from 0 to groups - 1.
        groups: how many.
        first: int32 [rows], a member from 0 to members - 1.
        second: int32 [rows], another.
        members: how many.

    Returns:
        int64 [members].
    """
    order, _ = group(codes, groups)
    count = np.zeros(members, np.int64)
    sides = column(first, np.int32), column(second, np.int32)
    _meet(order, column(codes, np.int32), *sides, count)
    return count


@kernel
def _meet(order: Int64, codes: Int32, first: Int32, second: Int32, count: Int64) -> None:
    latest = np.full(len(count), -1, np.int64)
    for row in order:
        for member in (first[row], second[row]):
            if latest[member] != codes[row]:
                latest[member] = codes[row]
                count[member] += 1


@kernel
def _group(codes: Int32, order: Int64, ends: Int64) -> None:
    """Count two positions ahead, so that placing the rows leaves the groups' beginnings."""
    for code in codes:
        ends[code + 2] += 1
    for i in range(2, len(ends)):
        ends[i] += ends[i - 1]
    for row in range(len(codes)):
        i = ends[codes[row] + 1]
        order[i] = row
        ends[codes[row] + 1] += 1
