"""A bucket's texts -> its prompts as token rows, in the order in which neighbours share most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from steelyard.prompt import (
    EMPTY,
    Compiled,
    Prompts,
    TextEncoder,
    compile_template,
    compose,
)
from steelyard.records import Bool, Int32, Int64, TokenRows, Unique
from steelyard_kernels.prefix import lexicographic_order
from steelyard_kernels.ragged import join

_SHARED_SLOTS = ("system", "conversation", "instruction")
ENCODE_BYTES = 4 << 20  # texts given to the tokenizer at once: its own records are many times that


@dataclass(frozen=True, slots=True)
class PreparedBucket:
    """A bucket's prompts in feeding order: neighbours share as long a beginning as they can.

    Attributes:
        number: of the bucket.
        unique: the bucket's unique prompts.
        fed: for each prompt here, its index in `unique`.
        keys: of the prompts.
        rows: their token ids.
        truncated: those whose data was cut.
        floor: tokens that a prompt does not share with the one before it: together the least that
            any cache of prefixes leaves to compute. 0 for overlong prompts, which stand last and
            are never computed.
        fitting: how many prompts are not overlong.
    """

    number: int
    unique: Unique
    fed: Int64
    keys: list[bytes]
    rows: TokenRows
    truncated: Bool
    floor: Int32
    fitting: int


@dataclass(slots=True)
class PromptMaker:
    """Texts -> prompts, bucket after bucket.

    Attributes:
        encoder: the judge's.
        templates: compiled, by the optional slots present (`prompt.render_templates`).
        context: tokens that a prompt may have.
        truncate: whether longer ones are cut; else they are overlong.
    """

    encoder: TextEncoder
    templates: dict[str, Compiled]
    context: int
    truncate: bool
    _last: Int32  # the prompt before the next bucket, which shares its template with it

    @classmethod
    def build(
        cls, encoder: TextEncoder, templates: dict[str, str], context: int, *, truncate: bool
    ) -> PromptMaker:
        """Compile rendered templates."""
        compiled = {name: compile_template(text, encoder) for name, text in templates.items()}
        return cls(encoder, compiled, context, truncate, np.zeros(0, dtype=np.int32))

    @property
    def template_tokens(self) -> int:
        """Tokens of the longest template without data."""
        return max(template.fixed for template in self.templates.values())

    def prepare(
        self, bucket: int, texts: pa.Table, unique: Unique, pending: Int64
    ) -> PreparedBucket:
        """Prompts of a bucket in feeding order.

        Args:
            bucket: its number.
            texts: TEXTS of its n pairs.
            unique: its unique prompts.
            pending: indices of the unique prompts to be read.
        """
        coded = _Coded.of(texts, unique.first[pending])
        prompts = self._compose(coded)
        order, floor, fitting = self._order(prompts.rows)
        fed = pending[order]
        return PreparedBucket(
            number=bucket,
            unique=unique,
            fed=fed,
            keys=[unique.keys[index] for index in fed.tolist()],
            rows=take_rows(prompts.rows, order),
            truncated=prompts.truncated[order],
            floor=floor,
            fitting=fitting,
        )

    def _compose(self, coded: _Coded) -> Prompts:
        """Every segment is tokenised once; prompts are put together from them."""
        pieces = [np.zeros(0, dtype=np.int32)]  # EMPTY
        width = 1 + 2 * max(len(template.slots) for template in self.templates.values())
        parts = np.full((len(coded), width), EMPTY, dtype=np.int32)
        for name, template in self.templates.items():
            rows = np.flatnonzero(coded.kind == name)
            for column, piece in enumerate(template.pieces):
                parts[rows, 2 * column] = len(pieces)
                pieces.append(piece)
        for name, template in self.templates.items():
            rows = np.flatnonzero(coded.kind == name)
            for column, slot in enumerate(template.slots):
                parts[rows, 2 * column + 1] = len(pieces) + coded.slots[slot][rows]
        segments = stack(pieces, self._encode(coded.texts))
        return compose(segments, parts, self.context if self.truncate else None)

    def _encode(self, texts: list[str]) -> list[TokenRows]:
        found, start, size = [], 0, 0
        for end, text in enumerate(texts, 1):
            size += len(text)
            if size >= ENCODE_BYTES or end == len(texts):
                found.append(self.encoder.encode_data(texts[start:end]))
                start, size = end, 0
        return found

    def _order(self, rows: TokenRows) -> tuple[Int64, Int32, int]:
        """Prefix order with overlong rows last, the floor of each, and how many fit."""
        fits = rows.lengths <= self.context
        fit, long = np.flatnonzero(fits), np.flatnonzero(~fits)
        fitting = rows if fits.all() else take_rows(rows, fit)
        order, shared = lexicographic_order(fitting.tokens, fitting.offsets)
        floor = np.zeros(len(rows), dtype=np.int32)
        if len(order):
            floor[: len(order)] = fitting.lengths[order] - shared
            first = fitting.tokens[fitting.offsets[order[0]] :][: fitting.lengths[order[0]]]
            floor[0] -= common_beginning(self._last, first)
            end = order[-1]
            self._last = fitting.tokens[fitting.offsets[end] : fitting.offsets[end + 1]].copy()
        return np.concatenate([fit[order], long]), floor, len(order)


@dataclass(frozen=True, slots=True)
class _Coded:
    """The texts of m prompts, each text once.

    Attributes:
        texts: distinct texts.
        slots: for each slot the prompts' texts as indices, -1 where a prompt has none.
        kind: which optional slots a prompt has, as `render_templates` names them.
    """

    texts: list[str]
    slots: dict[str, Int32]
    kind: np.typing.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def of(cls, texts: pa.Table, prompts: Int64) -> _Coded:
        """Code the texts that these prompts use: prompt j shows pair j % n, from n on swapped."""
        row, swapped = prompts % max(1, len(texts)), prompts >= len(texts)
        responses = pa.chunked_array(
            [*texts["response_a"].chunks, *texts["response_b"].chunks], pa.string()
        )
        code, words = _distinct(responses)
        a, b = code[: len(texts)][row], code[len(texts) :][row]
        slots = {"first": np.where(swapped, b, a), "second": np.where(swapped, a, b)}
        for name in _SHARED_SLOTS:
            code, more = _distinct(texts[name])
            slots[name] = np.where(code < 0, -1, code + len(words))[row]
            words = pa.concat_arrays([words, more])
        used, slots = _used(slots)
        kind = np.where(slots["conversation"] < 0, "", "conversation")
        system = np.where(kind == "", "system", "conversation+system")
        return cls(words.take(used).to_pylist(), slots, np.where(slots["system"] < 0, kind, system))


def _distinct(texts: pa.ChunkedArray) -> tuple[Int64, pa.Array]:
    """Indices into the distinct texts (-1: null), and those."""
    coded = texts.combine_chunks()
    if isinstance(coded, pa.ChunkedArray):  # pyarrow keeps several chunks beyond 2 GiB
        coded = pa.concat_arrays(coded.chunks)
    coded = coded.dictionary_encode()
    return np.asarray(coded.indices.fill_null(-1), dtype=np.int64), coded.dictionary


def _used(slots: dict[str, Int64]) -> tuple[pa.Array, dict[str, Int32]]:
    """The texts in use, and the slots' indices into those."""
    used = np.unique(np.concatenate(list(slots.values())))
    used = used[used >= 0]
    return pa.array(used), {
        name: np.where(code < 0, -1, np.searchsorted(used, code)).astype(np.int32)
        for name, code in slots.items()
    }


def stack(arrays: Sequence[Int32], rows: Sequence[TokenRows]) -> TokenRows:
    """Single rows and then the rows of several tables, as one table."""
    lengths = np.concatenate(
        [np.asarray([len(one) for one in arrays], dtype=np.int64), *(one.lengths for one in rows)]
    )
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return TokenRows(np.concatenate([*arrays, *(one.tokens for one in rows)]), offsets)


def take_rows(rows: TokenRows, order: Int64) -> TokenRows:
    """The rows at these indices, in their order."""
    lengths = rows.lengths[order]
    offsets = np.zeros(len(order) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return TokenRows(join(rows.tokens, rows.offsets[order], lengths), offsets)


def common_beginning(a: Int32, b: Int32) -> int:
    """Tokens that two rows have in common at their beginning."""
    both = min(len(a), len(b))
    differs = np.flatnonzero(a[:both] != b[:both])
    return int(differs[0]) if len(differs) else both
