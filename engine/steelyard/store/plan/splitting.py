"""Divides buckets that hold far too much text: prompts that share a prefix stay together."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.core.arrow import to_ints
from steelyard.core.schemas import TEXT_COLUMNS, Int32, Int64, UInt64
from steelyard.store.folder import Folder
from steelyard.store.plan.scatter import BucketFiles, batches, pairs_name, texts_name

_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: mixes words whose remainders were used already


def split_bucket(folder: Folder, bucket: int, target: int, first: int) -> Int32:
    """Divide a bucket's files into pieces, numbered from `first` on; streams them.

    Returns:
        the new bucket of each of its pairs, in the order of its file.
    """
    source, texts = pairs_name(bucket), texts_name(bucket)
    pieces, needs, needed_in = _pieces(folder, source, target)
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


def _pieces(folder: Folder, source: str, target: int) -> tuple[Int32, UInt64, Int32]:
    """Return the piece of each pair; then, sorted, which texts (one word) each piece needs."""

    def column(name: str) -> pa.Array:
        with folder.open(source) as file:
            rows = pq.read_table(file, columns=[name], use_threads=False)
        return rows[name].combine_chunks()

    words = {name: _words(column(name).fill_null(bytes(16)))[:, 0].copy() for name in TEXT_COLUMNS}
    instruction, a, b = (words[name] for name in ("instruction", "response_a", "response_b"))
    pieces = split(instruction, a, b, to_ints(column("text_bytes")), target)
    filled = [digests for digests in words.values() if digests.any()]
    texts, needed_in = np.concatenate(filled), np.tile(pieces, len(filled))
    order = np.lexsort((needed_in, texts))
    texts, needed_in = texts[order], needed_in[order]
    fresh = np.ones(len(order), dtype=np.bool_)
    fresh[1:] = (texts[1:] != texts[:-1]) | (needed_in[1:] != needed_in[:-1])
    return pieces, texts[fresh], needed_in[fresh]


def _words(keys: pa.Array) -> UInt64:
    """View 16-byte values without nulls as two words each, shape (n, 2)."""
    whole = np.frombuffer(keys.buffers()[1], dtype="<u8").reshape(-1, 2)
    return whole[keys.offset : keys.offset + len(keys)]


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
