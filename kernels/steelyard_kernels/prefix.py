"""Lexicographic order and common prefixes of ragged token rows.

Rows are given as `tokens` (all rows, one after the other) and `offsets` (row i is
tokens[offsets[i]:offsets[i + 1]]).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.jit import column, kernel

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_ENDED = -(2**31) - 1  # sorts before every token: a row that is another's beginning comes first
_FEW = 32  # rows up to which insertion beats counting
_CHUNK = 16  # tokens compared without a branch, which the compiler turns into vector instructions


def lexicographic_order(tokens: Int32, offsets: Int64) -> tuple[Int64, Int32]:
    """Exact lexicographic order of token rows, and what neighbours share.

    A row that is the beginning of another comes first; equal rows keep their order. Reads each
    token about once: most significant token first, where a group of rows that share their next
    tokens skips them together (after Bentley and Sedgewick, "Fast algorithms for sorting and
    searching strings", SODA 1997). Time grows with tokens + rows x log(rows) at worst, memory
    with rows.

    Args:
        tokens: int32 [tokens].
        offsets: int64 [rows + 1], from 0 and never falling.

    Returns:
        order: int64 [rows], the row at each place.
        shared: int32 [rows], tokens that a place's row has in common with the one before it.
    """
    rows = max(len(offsets) - 1, 0)
    order, shared = np.arange(rows, dtype=np.int64), np.zeros(rows, dtype=np.int32)
    if rows > 1:
        work = _Work(
            groups=np.empty((rows // 2 + 1, 3), np.int64),
            keys=np.empty(rows, np.int64),
            spare=np.empty((2, rows), np.int64),
            ends=np.empty(257, np.int64),
        )
        _sort(column(tokens, np.int32), column(offsets, np.int64), order, shared, work)
    return order, shared


def common_prefix(tokens: Int32, offsets: Int64, order: Int64) -> Int32:
    """Tokens that each row has in common with the row before it, in a given order.

    Args:
        tokens: int32 [tokens].
        offsets: int64 [rows + 1].
        order: int64 [places], the row at each place.

    Returns:
        int32 [places]; the first is 0.
    """
    shared = np.zeros(len(order), dtype=np.int32)
    if len(order) > 1:
        _neighbours(
            column(tokens, np.int32), column(offsets, np.int64), column(order, np.int64), shared
        )
    return shared


def trie_floor(offsets: Int64, shared: Int32) -> int:
    """Nodes of the trie of all rows: the fewest tokens that any prefix cache could compute.

    Args:
        offsets: int64 [rows + 1].
        shared: int32 [rows], of the rows in lexicographic order.
    """
    return int(offsets[-1] - offsets[0] - shared.sum(dtype=np.int64)) if len(offsets) else 0


class _Work(NamedTuple):
    """Scratch of `_sort`; made outside of it, because allocating doubles what it compiles."""

    groups: Int64  # [rows // 2 + 1, 3] that wait: begin, end, depth; they never overlap
    keys: Int64  # [rows] tokens by which a group is sorted
    spare: Int64  # [2, rows] keys and rows on their way
    ends: Int64  # [257] where each digit's keys end


@kernel
def _sort(tokens: Int32, offsets: Int64, order: Int64, shared: Int32, work: _Work) -> None:
    groups, keys = work.groups, work.keys
    groups[0, 0], groups[0, 1], groups[0, 2] = 0, len(order), 0
    waiting = 1
    while waiting:
        waiting -= 1
        begin, end = groups[waiting, 0], groups[waiting, 1]
        depth = _depth(tokens, offsets, order[begin:end], groups[waiting, 2])
        _gather(tokens, offsets, order[begin:end], depth, keys[begin:end])
        _sort_by_key(keys[begin:end], order[begin:end], work)
        start = begin
        for at in range(begin + 1, end + 1):
            if at < end:
                shared[at] = depth
            if at == end or keys[at] != keys[start]:
                if at - start > 1 and keys[start] != _ENDED:
                    groups[waiting, 0], groups[waiting, 1] = start, at
                    groups[waiting, 2] = depth + 1
                    waiting += 1
                start = at


@kernel
def _depth(tokens: Int32, offsets: Int64, rows: Int64, depth: int) -> int:
    """Tokens that all rows share, of which `depth` are known."""
    first = offsets[rows[0]] + depth
    more: int = offsets[rows[0] + 1] - first
    for at in range(1, len(rows)):
        start = offsets[rows[at]] + depth
        more = _agree(tokens, first, start, min(more, offsets[rows[at] + 1] - start))
        if more == 0:
            break
    return depth + more


@kernel
def _agree(tokens: Int32, one: int, other: int, limit: int) -> int:
    """How many tokens from `one` and from `other` on are equal, at most `limit`."""
    at = 0
    while at + _CHUNK <= limit:
        differ = np.int32(0)
        for i in range(_CHUNK):
            differ |= tokens[one + at + i] ^ tokens[other + at + i]
        if differ:
            break
        at += _CHUNK
    while at < limit and tokens[one + at] == tokens[other + at]:
        at += 1
    return at


@kernel
def _gather(tokens: Int32, offsets: Int64, rows: Int64, depth: int, keys: Int64) -> None:
    for at in range(len(rows)):
        place = offsets[rows[at]] + depth
        keys[at] = tokens[place] if place < offsets[rows[at] + 1] else _ENDED


@kernel
def _sort_by_key(keys: Int64, rows: Int64, work: _Work) -> None:
    """Sort keys, and rows with them; stable."""
    if len(keys) <= _FEW:
        _insert(keys, rows)
        return
    low = high = keys[0]
    for key in keys:
        low, high = min(low, key), max(high, key)
    shift = 0
    while (high - low) >> shift:
        _count(keys, rows, work, low, shift)
        shift += 8


@kernel
def _insert(keys: Int64, rows: Int64) -> None:
    for at in range(1, len(keys)):
        key, row = keys[at], rows[at]
        to = at
        while to > 0 and keys[to - 1] > key:
            keys[to], rows[to] = keys[to - 1], rows[to - 1]
            to -= 1
        keys[to], rows[to] = key, row


@kernel
def _count(keys: Int64, rows: Int64, work: _Work, low: int, shift: int) -> None:
    """One pass of radix sort: by 8 bits of keys - low."""
    ends, spare = work.ends, work.spare
    for digit in range(257):
        ends[digit] = 0
    for key in keys:
        ends[1 + (((key - low) >> shift) & 255)] += 1
    for digit in range(1, 257):
        ends[digit] += ends[digit - 1]
    for at in range(len(keys)):
        digit = ((keys[at] - low) >> shift) & 255
        spare[0, ends[digit]], spare[1, ends[digit]] = keys[at], rows[at]
        ends[digit] += 1
    for at in range(len(keys)):
        keys[at], rows[at] = spare[0, at], spare[1, at]


@kernel
def _neighbours(tokens: Int32, offsets: Int64, order: Int64, shared: Int32) -> None:
    for at in range(1, len(order)):
        one, other = offsets[order[at - 1]], offsets[order[at]]
        limit = min(offsets[order[at - 1] + 1] - one, offsets[order[at] + 1] - other)
        shared[at] = _agree(tokens, one, other, limit)
