"""Shards of made-up text, as long and as compressible as real pairs are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

RESPONSES = 8
SHARD_ROWS = 250_000


def vocabulary(draw: np.random.Generator, words: int = 20_000) -> pa.Array:
    """Make words of one to five syllables; longer ones are rarer."""
    onset = [*"bcdfghlmnprstvw", "st", "th", "ch", "pr", "tr"]
    vowel = [*"aeiou", "ea", "ou", "io"]
    end = ["", "", "n", "r", "s", "t", "l", "nd", "ng", "ck"]
    return pa.array(
        [
            "".join(
                onset[draw.integers(20)] + vowel[draw.integers(8)] + end[draw.integers(10)]
                for _ in range(1 + int(2 * draw.random() + min(2.0, rank / 3000)))
            )
            for rank in range(words)
        ]
    )


def make_texts(draw: np.random.Generator, words: pa.Array, count: int, mean: int) -> pa.Array:
    """Make texts of about `mean` bytes, words drawn by Zipf's law: they compress like English."""
    weight = 1 / np.arange(2.7, 2.7 + len(words))
    upto = np.cumsum(weight / weight.sum())
    each = float(np.diff(upto, prepend=0) @ pc.binary_length(words).to_numpy()) + 1
    lengths = np.maximum(2, mean / each * draw.lognormal(-0.08, 0.4, count)).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    picks = np.searchsorted(upto, draw.random(int(offsets[-1]))).clip(0, len(words) - 1)
    lists = pa.ListArray.from_arrays(pa.array(offsets), words.take(pa.array(picks)))
    return pc.binary_join(lists, " ")


def make_shards(folder: Path, rows: int, size: int, *, distinct: bool, shuffled: bool) -> None:
    """Write pairs of about `size` bytes; texts are made for thousands of instructions at once."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    words = vocabulary(draw)
    ab = np.array(np.triu_indices(RESPONSES, 1))
    pairs = ab.shape[1]
    groups = -(-rows // pairs)
    order = np.arange(rows)
    if shuffled:
        draw.shuffle(order)
    instructions = make_texts(draw, words, groups, size // 8)
    pool_size = min(2 * rows if distinct else groups * RESPONSES, (1 << 30) // size)
    pool = make_texts(draw, words, pool_size, size * 7 // 16)
    for start in range(0, rows, SHARD_ROWS):
        at = order[start : start + SHARD_ROWS]
        group, pair = np.divmod(at, pairs)
        a, b = (2 * at, 2 * at + 1) if distinct else group * RESPONSES + ab[:, pair]
        columns = {"instruction": instructions.take(pa.array(group))}
        for name, number in (("response_a", a), ("response_b", b)):
            # Numbers make texts differ where the pool is too small for all of them.
            texts = [pa.array(number).cast(pa.string()), pool.take(pa.array(number % pool_size))]
            columns[name] = pc.binary_join_element_wise(*texts, " ")
            columns[name.replace("response", "model")] = pa.array(number % 8).cast(pa.string())
        path = folder / f"{start // SHARD_ROWS:05}.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=50_000)
