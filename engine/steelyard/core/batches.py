"""Columns that pass between planner, feed, judge and parts: token rows, prompts, reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from steelyard.core.arrow import list_lengths, offsets_of
from steelyard.core.schemas import Bool, Float64, Int32, Int64, UInt64


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
        """Tokens per row."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, rows: Sequence[Sequence[int] | Int32]) -> TokenRows:
        """Join single rows, in their order."""
        parts = [np.zeros(0, dtype=np.int32), *(np.asarray(row, dtype=np.int32) for row in rows)]
        return cls(np.concatenate(parts), offsets_of([len(row) for row in rows]))

    @classmethod
    def concat(cls, tables: Sequence[TokenRows]) -> TokenRows:
        """Join the rows of one or more tables, in their order."""
        lengths = np.concatenate([table.lengths for table in tables])
        return cls(np.concatenate([table.tokens for table in tables]), offsets_of(lengths))

    def split(self) -> list[Int32]:
        """Return the rows, as views."""
        return [self.tokens[start:end] for start, end in pairwise(self.offsets.tolist())]

    def slice(self, start: int, end: int) -> TokenRows:
        """Return rows from `start` up to `end`; the tokens are a view."""
        offsets = self.offsets[start : end + 1]
        return TokenRows(self.tokens[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, indices: Int64) -> TokenRows:
        """Copy the rows at these indices, in their order."""
        from steelyard_kernels.ragged import join  # Numba takes a second to import

        lengths = self.lengths[indices]
        return TokenRows(join(self.tokens, self.offsets[indices], lengths), offsets_of(lengths))


@dataclass(frozen=True, slots=True)
class Planned:
    """Planned pairs, n of them, row by row the same in all columns.

    `digests[name]` is the digest of text `name` as two 64-bit words, shape (n, 2); names without
    any text are left out, and a null among the texts has the digest 0.
    """

    pairs: pa.RecordBatch  # PAIRS without PLACED; the struct `metadata` may follow
    texts: pa.RecordBatch  # TEXTS; no rows where the texts were copied before
    digests: dict[str, UInt64]
    text_bytes: Int64  # UTF-8 of the pair's texts together

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def prompts(self) -> Int64:
        """How many prompts each pair asks."""
        return list_lengths(self.pairs["keys"])


@dataclass(frozen=True, slots=True)
class PlannedResponses:
    """Planned rows of single responses: RESPONSES, which may have metadata, and TEXTS."""

    rows: pa.RecordBatch
    texts: pa.RecordBatch

    def __len__(self) -> int:
        return len(self.rows)

    def filter(self, kept: Bool) -> PlannedResponses:
        """Return the rows where `kept` is true."""
        mask = pa.array(kept)
        return PlannedResponses(self.rows.filter(mask), self.texts.filter(mask))


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
    writes: int = 1  # tokens that the judge may add to a prompt
    images: int = 0  # per prompt, at most
    image_folder: str | None = None  # where they are (store/images.py)


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts of one bucket in feeding order, n of them."""

    bucket: int
    keys: list[bytes]  # KEY_BYTES each
    rows: TokenRows
    truncated: Bool
    images: Sequence[tuple[str, ...]] = ()  # digests of each prompt's images; (): no prompt has any

    def __len__(self) -> int:
        return len(self.keys)

    def slice(self, start: int, end: int) -> PromptBatch:
        """Return the prompts from `start` up to `end`; the tokens are a view."""
        return PromptBatch(
            self.bucket,
            self.keys[start:end],
            self.rows.slice(start, end),
            self.truncated[start:end],
            self.images[start:end],
        )

    def take(self, indices: Int64) -> PromptBatch:
        """Copy the prompts at these indices, in their order."""
        chosen = indices.tolist()
        return PromptBatch(
            self.bucket,
            [self.keys[index] for index in chosen],
            self.rows.take(indices),
            self.truncated[indices],
            [self.images[index] for index in chosen] if self.images else (),
        )

    def ids(self, index: int) -> list[int]:
        """Return the token ids of one prompt, as vLLM takes them."""
        ids: list[int] = self.rows[index].tolist()
        return ids

    def images_of(self, index: int) -> tuple[str, ...]:
        """Return the digests of one prompt's images."""
        return self.images[index] if self.images else ()


@dataclass(frozen=True, slots=True)
class Generations:
    """What judges wrote, by read; READS describes the columns."""

    output: list[str | None]
    numbers: list[list[float] | None]
    forced: Bool
    output_tokens: Int32

    def take(self, indices: Int64) -> Generations:
        """Return the rows at these indices."""
        return Generations(*_take_columns(self, indices))


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """Reads in the order in which they finished; columns of length n, rows are unique prompts.

    `status[i]` is one of the STATUS_ words. Where it is not ok, the row's numbers have no meaning
    and are written as nulls, and `errors[i]` gives the reason.
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

    def take(self, indices: Int64) -> ReadBatch:
        """Return the rows at these indices."""
        return ReadBatch(*_take_columns(self, indices))


def _take_columns(batch: Generations | ReadBatch, indices: Int64) -> Iterator[Any]:
    for entry in fields(batch):
        column = getattr(batch, entry.name)
        if isinstance(column, list):
            yield [column[index] for index in indices.tolist()]
        elif isinstance(column, Generations):
            yield column.take(indices)
        else:
            yield None if column is None else column[indices]
