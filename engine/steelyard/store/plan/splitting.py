"""Divides buckets that hold far too much text: prompts that share a prefix stay together."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.core.arrow import list_lengths, to_ints
from steelyard.core.schemas import TEXT_COLUMNS, Int32, Int64, UInt64
from steelyard.plan.keys import BucketSize
from steelyard.store.folder import Folder
from steelyard.store.plan.scatter import BucketFiles, batches, pairs_name, texts_name

_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: mixes words whose remainders were used already


def split_bucket(folder: Folder, bucket: int, size: BucketSize, first: int) -> Int32:
    """Divide a bucket's files into pieces near `size`, numbered from `first` on; streams them.

    Returns:
        the new bucket of each of its pairs, in the order of its file.
    """
    source, texts = pairs_name(bucket), texts_name(bucket)
    pieces, needs, needed_in = _pieces(folder, source, size)
    files = BucketFiles(folder, int(pieces.max()) + 1, first)
    try:
        start = 0
        for rows in batches(folder, source):
            files.pairs.add(rows, pieces[start : start + len(rows)])
            start += len(rows)
        for rows in batches(folder, texts):
            picks, into = _expand(_words(rows["digest"])[:, 0], needs, needed_in)
            files.texts.add(rows.take(pa.array(picks)), into)
        files.close()
    finally:
        files.abandon()
    folder.remove(source)
    folder.remove(texts)
    return pieces + np.int32(first)


def _expand(words: UInt64, needs: UInt64, needed_in: Int32) -> tuple[Int64, Int32]:
    """Return indices of texts, each once per piece that needs it, and these pieces."""
    low, high = (np.searchsorted(needs, words, side) for side in ("left", "right"))
    count = high - low
    picks = np.repeat(np.arange(len(words)), count)
    within = np.arange(len(picks)) - np.repeat(np.cumsum(count) - count, count)
    return picks, needed_in[low[picks] + within]


def _pieces(folder: Folder, source: str, size: BucketSize) -> tuple[Int32, UInt64, Int32]:
    """Return the piece of each pair; then, sorted, which texts (one word) each piece needs."""

    def column(name: str) -> pa.Array:
        with folder.open(source) as file:
            rows = pq.read_table(file, columns=[name], use_threads=False)
        return rows[name].combine_chunks()

    def first_words(name: str) -> UInt64:
        return _words(column(name).fill_null(bytes(16)))[:, 0].copy()

    weights = size.weigh(to_ints(column("text_bytes")), list_lengths(column("keys")))
    instruction, a, b = map(first_words, ("instruction", "response_a", "response_b"))
    pieces = split(instruction, a, b, weights, size.target)
    texts, needed_in = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int32)
    for name in TEXT_COLUMNS:  # each alone: there may be millions of pairs
        words = first_words(name)
        if words.any():
            both = (np.concatenate([texts, words]), np.concatenate([needed_in, pieces]))
            texts, needed_in = _distinct(*both)
    return pieces, texts, needed_in


def _distinct(texts: UInt64, pieces: Int32) -> tuple[UInt64, Int32]:
    """Return n texts and pieces sorted, each combination once."""
    order = np.lexsort((pieces, texts))
    texts, pieces = texts[order], pieces[order]
    fresh = np.ones(len(order), dtype=np.bool_)
    fresh[1:] = (texts[1:] != texts[:-1]) | (pieces[1:] != pieces[:-1])
    return texts[fresh], pieces[fresh]


def _words(keys: pa.Array) -> UInt64:
    """View 16-byte values without nulls as two words each, shape (n, 2)."""
    whole = np.frombuffer(keys.buffers()[1], dtype="<u8").reshape(-1, 2)
    return whole[keys.offset : keys.offset + len(keys)]


def split(
    instruction: UInt64, response_a: UInt64, response_b: UInt64, weights: Int64, target: int
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
        weights: of each pair (BucketSize.weigh).
        target: weight of a piece; exceeded by what cannot be divided.

    Returns:
        n numbers of pieces, from 0 on, none left out.
    """
    _, group = np.unique(instruction, return_inverse=True)
    large = np.bincount(group, weights=weights)[group] > 2 * target
    low, high = np.zeros(len(group), dtype=np.uint64), np.zeros(len(group), dtype=np.uint64)
    for number in np.unique(group[large]):
        rows = np.flatnonzero(group == number)
        low[rows], high[rows] = _blocks(response_a[rows], response_b[rows], weights[rows], target)
    order = np.lexsort((high, low, group))
    starts = np.ones(len(order), dtype=np.bool_)
    starts[1:] = np.any([np.diff(column[order]) != 0 for column in (group, low, high)], axis=0)
    cell = np.cumsum(starts) - 1
    weight = np.bincount(cell, weights=weights[order])
    window = (np.cumsum(weight) - weight) // target
    pieces = np.empty(len(order), dtype=np.int32)
    pieces[order] = np.unique(window, return_inverse=True)[1][cell]
    return pieces


def _blocks(a: UInt64, b: UInt64, weights: Int64, target: int) -> tuple[UInt64, UInt64]:
    """Return the blocks of both responses, the lower first; enough that no two are too large."""
    most = 4 * int(weights.sum()) // target
    blocks = 2
    while True:
        of_a, of_b = (((words * _MIX) >> np.uint64(32)) % np.uint64(blocks) for words in (a, b))
        low, high = np.minimum(of_a, of_b), np.maximum(of_a, of_b)
        _, cell = np.unique(low * np.uint64(blocks) + high, return_inverse=True)
        if np.bincount(cell, weights=weights).max() <= target or blocks > most:
            return low, high
        blocks *= 2
