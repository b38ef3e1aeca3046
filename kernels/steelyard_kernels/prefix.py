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
    """Return the lexicographic order of token rows, and the prefixes that neighbours share.

    A row that is the beginning of another comes first; equal rows keep their order. Reads each
    token about once: most significant token first, and a group of rows that share their next
    tokens skips them together (after Bentley and Sedgewick, "Fast algorithms for sorting and
    searching strings", SODA 1997). Time grows with tokens + rows x log(rows) at worst, memory
    with rows.

    Args:
        tokens: int32 [tokens].
        offsets: int64 [rows + 1], from 0 and never falling.

    Returns:
        order: int64 [rows], the rows in their order.
        shared: int32 [rows], tokens that each of them shares with the row before it.
    """
    rows = max(len(offsets) - 1, 0)
    order, shared = np.arange(rows, dtype=np.int64), np.zeros(rows, dtype=np.int32)
    if rows > 1:
        work = _Work(
            groups=np.empty((rows // 2, 3), np.int64),
            keys=np.empty(rows, np.int64),
            spare=np.empty((2, rows), np.int64),
            ends=np.empty(257, np.int64),
        )
        _sort(column(tokens, np.int32), column(offsets, np.int64), order, shared, work)
    return order, shared


def common_prefix(tokens: Int32, offsets: Int64, order: Int64) -> Int32:
    """Count the tokens that each row shares with the row before it, in a given order.

    Args:
        tokens: int32 [tokens].
        offsets: int64 [rows + 1].
        order: int64 [n], the rows in that order.

    Returns:
        int32 [n]; the first is 0.
    """
    shared = np.zeros(len(order), dtype=np.int32)
    if len(order) > 1:
        _neighbours(
            column(tokens, np.int32), column(offsets, np.int64), column(order, np.int64), shared
        )
    return shared


def trie_floor(offsets: Int64, shared: Int32) -> int:
    """Count the nodes of the trie of all rows: the fewest tokens a prefix cache could compute.

    Args:
        offsets: int64 [rows + 1].
        shared: int32 [rows], of the rows in lexicographic order.
    """
    return int(offsets[-1] - offsets[0] - shared.sum(dtype=np.int64)) if len(offsets) else 0


class _Work(NamedTuple):
    """Scratch memory of `_sort`, made outside of it because allocating doubles its machine code."""

    groups: Int64  # [rows // 2, 3] of waiting groups: begin, end, depth; they never overlap
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
        for i in range(begin + 1, end + 1):
            if i < end:
                shared[i] = depth
            if i == end or keys[i] != keys[start]:
                if i - start > 1 and keys[start] != _ENDED:
                    groups[waiting, 0], groups[waiting, 1] = start, i
                    groups[waiting, 2] = depth + 1
                    waiting += 1
                start = i


@kernel
def _depth(tokens: Int32, offsets: Int64, rows: Int64, depth: int) -> int:
    """Count the tokens that all rows share, of which `depth` are known."""
    first = offsets[rows[0]] + depth
    more: int = offsets[rows[0] + 1] - first
    for i in range(1, len(rows)):
        start = offsets[rows[i]] + depth
        more = _agree(tokens, first, start, min(more, offsets[rows[i] + 1] - start))
        if more == 0:
            break
    return depth + more


@kernel
def _agree(tokens: Int32, first: int, second: int, limit: int) -> int:
    """Count equal tokens from `first` and from `second` on, up to `limit`."""
    equal = 0
    while equal + _CHUNK <= limit:
        differ = np.int32(0)
        for i in range(_CHUNK):
            differ |= tokens[first + equal + i] ^ tokens[second + equal + i]
        if differ:
            break
        equal += _CHUNK
    while equal < limit and tokens[first + equal] == tokens[second + equal]:
        equal += 1
    return equal


@kernel
def _gather(tokens: Int32, offsets: Int64, rows: Int64, depth: int, keys: Int64) -> None:
    for i in range(len(rows)):
        position = offsets[rows[i]] + depth
        keys[i] = tokens[position] if position < offsets[rows[i] + 1] else _ENDED


@kernel
def _sort_by_key(keys: Int64, rows: Int64, work: _Work) -> None:
    """Sort keys, and rows with them, in a stable way."""
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
    for i in range(1, len(keys)):
        key, row = keys[i], rows[i]
        to = i
        while to > 0 and keys[to - 1] > key:
            keys[to], rows[to] = keys[to - 1], rows[to - 1]
            to -= 1
        keys[to], rows[to] = key, row


@kernel
def _count(keys: Int64, rows: Int64, work: _Work, low: int, shift: int) -> None:
    """Do a pass of radix sort, by 8 bits of keys - low."""
    ends, spare = work.ends, work.spare
    for digit in range(257):
        ends[digit] = 0
    for key in keys:
        ends[1 + (((key - low) >> shift) & 255)] += 1
    for digit in range(1, 257):
        ends[digit] += ends[digit - 1]
    for i in range(len(keys)):
        digit = ((keys[i] - low) >> shift) & 255
        spare[0, ends[digit]], spare[1, ends[digit]] = keys[i], rows[i]
        ends[digit] += 1
    for i in range(len(keys)):
        keys[i], rows[i] = spare[0, i], spare[1, i]


@kernel
def _neighbours(tokens: Int32, offsets: Int64, order: Int64, shared: Int32) -> None:
    for i in range(1, len(order)):
        first, second = offsets[order[i - 1]], offsets[order[i]]
        limit = min(offsets[order[i - 1] + 1] - first, offsets[order[i] + 1] - second)
        shared[i] = _agree(tokens, first, second, limit)
