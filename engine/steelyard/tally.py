"""Exact counts while reads come in: pairs completed, tokens that duplicates did not cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steelyard.records import Int64, ReadBatch, Unique


@dataclass(frozen=True, slots=True)
class Gain:
    """What a batch of reads brought."""

    pairs: int  # pairs whose last missing prompt was among them
    duplicate_tokens: int  # prompt tokens of their duplicates, which no engine computes


@dataclass(frozen=True, slots=True)
class _Bucket:
    need: np.typing.NDArray[np.int8]  # prompts that a pair still waits for
    pairs: Int64  # pairs, by the unique prompt they use
    starts: Int64  # unique prompt u is used by pairs[starts[u]:starts[u + 1]]
    uses: Int64  # prompts with the key of u, in all pairs and orders


class Tally:
    """Knows the prompts that are on their way, and nothing else: bounded by the open buckets."""

    def __init__(self) -> None:
        self._where: dict[bytes, tuple[_Bucket, int]] = {}

    def open(self, unique: Unique, pending: Int64) -> None:
        """Note a bucket before its first prompt is fed.

        Args:
            unique: its unique prompts.
            pending: indices of those that are not read yet.
        """
        count, size = len(unique.inverse) // 2, len(unique.keys)
        ab, ba = unique.inverse[:count], unique.inverse[count:]
        other = np.where(ab != ba, ba, size)  # a pair of equal responses has one prompt
        waiting = np.zeros(size + 1, dtype=np.int8)
        waiting[pending] = 1
        users = np.concatenate([ab, other])
        order = np.argsort(users, kind="stable")
        bucket = _Bucket(
            need=waiting[ab] + waiting[other],
            pairs=order % max(1, count),
            starts=np.searchsorted(users[order], np.arange(size + 1)),
            uses=np.bincount(unique.inverse, minlength=size),
        )
        for index in pending.tolist():
            self._where[unique.keys[index]] = (bucket, index)

    def count(self, reads: ReadBatch) -> Gain:
        """Take reads in; every key comes once."""
        pairs = tokens = 0
        for key, length in zip(reads.keys, reads.prompt_tokens.tolist(), strict=True):
            bucket, index = self._where.pop(key)
            users = bucket.pairs[bucket.starts[index] : bucket.starts[index + 1]]
            bucket.need[users] -= 1
            pairs += int((bucket.need[users] == 0).sum())
            tokens += (int(bucket.uses[index]) - 1) * length
        return Gain(pairs, tokens)
