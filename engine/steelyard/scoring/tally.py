"""Exact counts while reads come in: pairs completed, and the work that reads took.

The oracle predicts, without an engine, what an engine's prefix cache leaves to compute.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steelyard.core.batches import ReadBatch, TokenRows
from steelyard.core.schemas import STATUS_OVERLONG, Int32, Int64
from steelyard.core.work import BatchProgress, CacheShape, Work
from steelyard.prompts.maker import PreparedBucket
from steelyard_kernels.block_cache import new_cache, simulate


@dataclass(frozen=True, slots=True)
class _Bucket:
    number: int
    need: Int64  # prompts that a pair still waits for
    pairs: Int64  # pairs, by the unique prompt they use
    starts: Int64  # unique prompt u is used by pairs[starts[u]:starts[u + 1]]
    uses: Int64  # prompts with the key of u, in all pairs and orders
    floor: Int32  # by unique prompt; see Work
    oracle: Int32 | None


class Tally:
    """Counts over the prompts that are being read; memory is bounded by the open buckets."""

    def __init__(self) -> None:
        self._where: dict[bytes, tuple[_Bucket, int]] = {}

    def open(self, bucket: PreparedBucket, oracle: Int32 | None) -> None:
        """Register a bucket before its first prompt is read.

        Args:
            bucket: prepared for this engine.
            oracle: tokens that the engine should compute of each prompt; None: not known.
        """
        unique, fed = bucket.unique, bucket.fed
        size = len(unique.keys)
        # A pair may ask the same prompt twice: both orders of two equal responses are one.
        users, pairs = np.divmod(
            np.unique(unique.inverse * len(unique.starts) + unique.pairs), len(unique.starts)
        )
        waiting = np.zeros(size, dtype=np.bool_)
        waiting[bucket.unread] = True
        entry = _Bucket(
            number=bucket.number,
            need=np.bincount(pairs[waiting[users]], minlength=len(unique.starts) - 1),
            pairs=pairs,
            starts=np.searchsorted(users, np.arange(size + 1)),
            uses=np.bincount(unique.inverse, minlength=size),
            floor=_spread(bucket.floor, fed, size),
            oracle=None if oracle is None else _spread(oracle, fed, size),
        )
        for index in fed.tolist():
            self._where[unique.keys[index]] = (entry, index)

    def count(self, reads: ReadBatch) -> BatchProgress:
        """Count reads; every key comes once."""
        rows: dict[int, tuple[_Bucket, list[int], list[int]]] = {}
        for row, key in enumerate(reads.keys):
            bucket, index = self._where.pop(key)
            _, indices, of_bucket = rows.setdefault(bucket.number, (bucket, [], []))
            indices.append(index)
            of_bucket.append(row)
        progress = BatchProgress()
        for bucket, indices, of_bucket in rows.values():
            progress.add(_progress(bucket, np.asarray(indices), of_bucket, reads))
        return progress


def _progress(bucket: _Bucket, indices: Int64, rows: list[int], reads: ReadBatch) -> BatchProgress:
    lengths = reads.prompt_tokens[rows].astype(np.int64)
    uses = bucket.uses[indices]
    sent = np.asarray([reads.status[row] != STATUS_OVERLONG for row in rows])
    work = Work(
        prompts=int(sent.sum()),
        logical_tokens=int((uses * lengths)[sent].sum()),
        unique_tokens=int(lengths[sent].sum()),
        floor_tokens=int(bucket.floor[indices[sent]].sum()),
        oracle_tokens=None if bucket.oracle is None else int(bucket.oracle[indices[sent]].sum()),
        computed_tokens=int((lengths - reads.cached_tokens[rows])[sent].sum()),
        written_tokens=0 if reads.written is None else int(reads.written.output_tokens[rows].sum()),
    )
    return BatchProgress(
        pairs=_completed(bucket, indices),
        duplicate_tokens=int(((uses - 1) * lengths).sum()),
        work={bucket.number: work} if work.prompts else {},
    )


def _completed(bucket: _Bucket, indices: Int64) -> int:
    """Note that prompts are read, and count the pairs that have all of theirs now."""
    spans = zip(bucket.starts[indices].tolist(), bucket.starts[indices + 1].tolist(), strict=True)
    users = np.concatenate([bucket.pairs[start:end] for start, end in spans])
    np.subtract.at(bucket.need, users, 1)
    return len(np.unique(users[bucket.need[users] == 0]))


def _spread(values: Int32, indices: Int64, size: int) -> Int32:
    spread = np.zeros(size, dtype=np.int32)
    spread[indices] = values
    return spread


class BlockOracle:
    """Follows an engine's cache over a stream of buckets.

    Args:
        shape: of the cache. A pool too small for the longest prompt, with which an engine would
            refuse to start, is taken as just large enough.
    """

    def __init__(self, shape: CacheShape) -> None:
        self._cache = None
        if shape.enabled:
            self._cache = new_cache(
                max(shape.blocks, -(-shape.longest // shape.block) + 1),
                shape.block,
                max_model_len=shape.longest,
                max_num_batched_tokens=shape.step_tokens,
                max_num_seqs=shape.step_prompts,
                steps_in_flight=shape.steps_in_flight,
            )

    def computed(self, rows: TokenRows, fitting: int) -> Int32:
        """Predict how many tokens of each prompt the engine computes.

        Args:
            rows: prompts in feeding order.
            fitting: how many of them are fed; those after get 0.
        """
        computed = np.zeros(len(rows), dtype=np.int32)
        offsets = rows.offsets[: fitting + 1]
        computed[:fitting] = np.diff(offsets)
        if self._cache is not None:
            computed[:fitting] -= simulate(rows.tokens, offsets, self._cache)
        return computed


def warm_up() -> None:
    """Load the oracle's kernels, or compile them, which takes seconds the first time."""
    toy = CacheShape(True, block=1, blocks=4, step_tokens=2, step_prompts=1, longest=2)
    BlockOracle(toy).computed(TokenRows.of([[0, 1]]), 1)
