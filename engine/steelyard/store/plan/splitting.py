"""Divides buckets that hold far too much text, so that a bucket fits into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from steelyard.core.schemas import TEXT_COLUMNS, Int32, Int64, UInt64
from steelyard.plan.splitting import split
from steelyard.store.plan.scatter import BucketFiles, batches, pairs_name, texts_name


def split_bucket(folder: Path, bucket: int, target: int, first: int) -> Int32:
    """Divide a bucket's files into pieces, numbered from `first` on; streams them.

    Returns:
        the new bucket of each of its pairs, in the order of its file.
    """
    source, texts = folder / pairs_name(bucket), folder / texts_name(bucket)
    pieces, needs, needed_in = _pieces(source, target)
    files = BucketFiles(folder, int(pieces.max()) + 1, first)
    try:
        start = 0
        for rows in batches(source):
            files.pairs.add(rows, pieces[start : start + len(rows)])
            start += len(rows)
        for rows in batches(texts):
            picks, into = _expand(_words(rows["digest"])[:, 0], needs, needed_in)
            files.texts.add(rows.take(pa.array(picks)), into)
        files.close()
    finally:
        files.abandon()
    source.unlink()
    texts.unlink()
    return pieces + np.int32(first)


def _expand(words: UInt64, needs: UInt64, needed_in: Int32) -> tuple[Int64, Int32]:
    """Return indices of texts, each once per piece that needs it, and these pieces."""
    low, high = (np.searchsorted(needs, words, side) for side in ("left", "right"))
    count = high - low
    picks = np.repeat(np.arange(len(words)), count)
    within = np.arange(len(picks)) - np.repeat(np.cumsum(count) - count, count)
    return picks, needed_in[low[picks] + within]


def _pieces(source: Path, target: int) -> tuple[Int32, UInt64, Int32]:
    """Return the piece of each pair; then, sorted, which texts (one word) each piece needs."""
    words: dict[str, list[UInt64]] = {name: [] for name in TEXT_COLUMNS}
    sizes: list[Int64] = []
    for rows in batches(source):
        sizes.append(rows["text_bytes"].to_numpy().astype(np.int64))
        for name in TEXT_COLUMNS:
            words[name].append(_words(rows[name].fill_null(bytes(16)))[:, 0])
    whole = {name: np.concatenate(parts) for name, parts in words.items()}
    pieces = split(
        whole["instruction"],
        whole["response_a"],
        whole["response_b"],
        np.concatenate(sizes),
        target,
    )
    filled = [column for column in whole.values() if column.any()]
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
