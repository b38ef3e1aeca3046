"""How a bucket that is far too large is divided: prompts that share a prefix stay together."""

from __future__ import annotations

import numpy as np

from steelyard.core.schemas import Int32, Int64, UInt64

_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: mixes words whose remainders were used already


def split(
    instruction: UInt64, response_a: UInt64, response_b: UInt64, text_bytes: Int64, target: int
) -> Int32:
    """Divide n pairs into pieces near `target` bytes; equal prompts stay in one piece.

    Whole instructions stay together. Where one alone is too large, each response has a block by
    its digest, and the pairs of two blocks, in whichever order, go together: neighbouring pieces
    have the same first block. With R blocks a prefix that ends with the first response is
    computed at most R times, and R is about the square root of twice the number of pieces where
    all responses meet each other.

    Args:
        instruction: n digests, one word of each.
        response_a: n digests, one word of each.
        response_b: n digests, one word of each.
        text_bytes: of each pair.
        target: bytes of a piece; exceeded by what cannot be divided.

    Returns:
        n numbers of pieces, from 0 on, none left out.
    """
    _, group = np.unique(instruction, return_inverse=True)
    large = np.bincount(group, weights=text_bytes)[group] > 2 * target
    low, high = np.zeros(len(group), dtype=np.uint64), np.zeros(len(group), dtype=np.uint64)
    for number in np.unique(group[large]):
        rows = np.flatnonzero(group == number)
        low[rows], high[rows] = _blocks(
            response_a[rows], response_b[rows], text_bytes[rows], target
        )
    order = np.lexsort((high, low, group))
    starts = np.ones(len(order), dtype=np.bool_)
    starts[1:] = np.any([np.diff(column[order]) != 0 for column in (group, low, high)], axis=0)
    cell = np.cumsum(starts) - 1
    weight = np.bincount(cell, weights=text_bytes[order])
    window = (np.cumsum(weight) - weight) // target
    pieces = np.empty(len(order), dtype=np.int32)
    pieces[order] = np.unique(window, return_inverse=True)[1][cell]
    return pieces


def _blocks(a: UInt64, b: UInt64, text_bytes: Int64, target: int) -> tuple[UInt64, UInt64]:
    """Return the blocks of both responses, the lower first; enough that no two are too large."""
    most = 4 * int(text_bytes.sum()) // target
    blocks = 2
    while True:
        of_a, of_b = (((words * _MIX) >> np.uint64(32)) % np.uint64(blocks) for words in (a, b))
        low, high = np.minimum(of_a, of_b), np.maximum(of_a, of_b)
        _, cell = np.unique(low * np.uint64(blocks) + high, return_inverse=True)
        if np.bincount(cell, weights=text_bytes).max() <= target or blocks > most:
            return low, high
        blocks *= 2
