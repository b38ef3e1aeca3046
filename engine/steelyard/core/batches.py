"""Batches between plan, feed, judge and parts: token rows, prompts, reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from steelyard.core.schemas import Bool, Float64, Int32, Int64

TokenIds = Sequence[int] | Int32


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Ragged token rows: row i is tokens[offsets[i]:offsets[i + 1]]."""

    tokens: Int32  # flat
    offsets: Int64  # n + 1, from 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Int32:
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Int64:
        """Tokens a row."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, rows: Sequence[TokenIds]) -> TokenRows:
        """Rows of their own, one after the other."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        parts = [np.zeros(0, dtype=np.int32), *(np.asarray(row, dtype=np.int32) for row in rows)]
        return cls(np.concatenate(parts), offsets)

    def split(self) -> list[Int32]:
        """The rows, as views."""
        bounds = self.offsets.tolist()
        return [self.tokens[start:end] for start, end in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class Unique:
    """Unique prompts among the prompts of n pairs, m in all, pair after pair.

    Pair i asks the prompts from starts[i] to starts[i + 1]. `first[u]` is the first prompt with
    unique key u, `inverse[j]` the unique key of prompt j: expanding `keys[inverse]` gives all m
    keys back.
    """

    keys: list[bytes]
    first: Int64
    inverse: Int64
    starts: Int64  # n + 1

    @property
    def pairs(self) -> Int64:
        """The pair of each of the m prompts."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


@dataclass(frozen=True, slots=True)
class Workload:
    """What the planner knows before an engine is loaded, for choosing its settings."""

    prompts: int  # unique prompts at most
    longest_prompt: int  # tokens, an upper bound
    writes: int = 1  # tokens that it may add to a prompt
    images: int = 0  # of a prompt, at most
    image_folder: str | None = None  # where they are (store/images.py)


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts of one bucket in feeding order; prompt i is tokens[offsets[i]:offsets[i + 1]]."""

    bucket: int
    keys: list[bytes]  # n of KEY_BYTES each
    tokens: Int32  # flat
    offsets: Int64  # n + 1
    truncated: Bool  # n
    images: Sequence[tuple[str, ...]] = ()  # digests of each prompt's images; (): none has any

    def __len__(self) -> int:
        return len(self.keys)

    def ids(self, index: int) -> list[int]:
        """Token ids of one prompt, as vLLM wants them."""
        ids: list[int] = self.tokens[self.offsets[index] : self.offsets[index + 1]].tolist()
        return ids


@dataclass(frozen=True, slots=True)
class Generations:
    """What judges wrote, by read; see READS for the columns."""

    output: list[str | None]
    numbers: list[list[float] | None]
    forced: Bool
    output_tokens: Int32

    def take(self, at: Int64) -> Generations:
        """The rows at these indices."""
        return Generations(
            output=[self.output[index] for index in at.tolist()],
            numbers=[self.numbers[index] for index in at.tolist()],
            forced=self.forced[at],
            output_tokens=self.output_tokens[at],
        )


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """Reads in the order in which they finished; columns of length n, rows are unique prompts.

    `status[i]` is one of the STATUS_ words. Where it is not ok, the row's numbers mean nothing,
    are written as nulls, and `errors[i]` says why.
    """

    keys: list[bytes]
    buckets: Int32
    status: list[str]
    label_logprobs: Float64  # n x labels
    label_mass: Float64
    argmax_outside: Bool
    truncated: Bool
    prompt_tokens: Int32
    cached_tokens: Int32
    errors: list[str | None]
    written: Generations | None = None  # where the judge writes

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, indices: list[int]) -> ReadBatch:
        """The rows at these indices."""
        at = np.asarray(indices, dtype=np.int64)
        return ReadBatch(
            keys=[self.keys[index] for index in indices],
            buckets=self.buckets[at],
            status=[self.status[index] for index in indices],
            label_logprobs=self.label_logprobs[at],
            label_mass=self.label_mass[at],
            argmax_outside=self.argmax_outside[at],
            truncated=self.truncated[at],
            prompt_tokens=self.prompt_tokens[at],
            cached_tokens=self.cached_tokens[at],
            errors=[self.errors[index] for index in indices],
            written=None if self.written is None else self.written.take(at),
        )
