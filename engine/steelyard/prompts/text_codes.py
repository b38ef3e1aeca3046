"""The texts of a bucket as codes, so that each is tokenised once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from steelyard.core.schemas import Int32, Int64
from steelyard.protocols.protocol import OPTIONAL_SLOTS


@dataclass(frozen=True, slots=True)
class CodedTexts:
    """The texts of m prompts, each text once.

    A kind is a form with the optional slots that are filled, in the order of OPTIONAL_SLOTS.
    """

    texts: list[str]
    slots: dict[str, Int32]  # for each slot the prompts' texts as indices, -1 where it has none
    kind: Int64  # of each prompt, as an index into `kinds`
    kinds: list[tuple[int, tuple[str, ...]]]

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def of(cls, texts: list[str], slots: dict[str, Int32], form: Int64, count: int) -> CodedTexts:
        """Sort m prompts (`count`) by form and filled slots."""
        optional = [name for name in OPTIONAL_SLOTS if name in slots]
        code = form.astype(np.int64).reshape(count)
        for name in optional:
            code = 2 * code + (slots[name] >= 0)
        distinct_codes, kind = np.unique(code, return_inverse=True)
        kinds = []
        for packed in distinct_codes.tolist():
            bits = range(len(optional) - 1, -1, -1)
            filled = [name for name, bit in zip(optional, bits, strict=True) if packed >> bit & 1]
            kinds.append((packed >> len(optional), tuple(filled)))
        return cls(texts, slots, kind.reshape(-1), kinds)


class TextTable:
    """Distinct texts of several columns; each column is coded once."""

    def __init__(self) -> None:
        self._known: list[pa.Array] = []
        self._count = 0
        self._codes: dict[str, Int64] = {}

    def add(self, texts: pa.Table, name: str) -> Int64:
        """Return a column's rows as indices into all texts so far, -1 for null."""
        if name not in self._codes:
            both = ("response_a", "response_b") if name.startswith("response_") else (name,)
            chunks = [chunk for column in both for chunk in texts[column].chunks]
            code = self._add(pa.chunked_array(chunks, pa.string()))
            self._codes |= zip(both, np.split(code, len(both)), strict=True)
        return self._codes[name]

    def add_texts(self, texts: list[str]) -> Int64:
        """Return the indices of further texts."""
        return self._add(pa.chunked_array([pa.array(texts, pa.string())]))

    def _add(self, column: pa.ChunkedArray) -> Int64:
        code, texts = distinct(column)
        code = np.where(code < 0, -1, code + self._count)
        self._known.append(texts)
        self._count += len(texts)
        return code

    def compact(self, slots: dict[str, Int64]) -> tuple[list[str], dict[str, Int32]]:
        """Return the texts that the slots show, and the slots' indices into those."""
        used = np.unique(np.concatenate(list(slots.values())))
        used = used[used >= 0]
        texts = pa.concat_arrays(self._known).take(pa.array(used)).to_pylist()
        return texts, {
            name: np.where(code < 0, -1, np.searchsorted(used, code)).astype(np.int32)
            for name, code in slots.items()
        }


def distinct(texts: pa.ChunkedArray) -> tuple[Int64, pa.Array]:
    """Return indices into the distinct texts (-1: null), and those texts."""
    coded = texts.combine_chunks()
    if isinstance(coded, pa.ChunkedArray):  # pyarrow keeps several chunks beyond 2 GiB
        coded = pa.concat_arrays(coded.chunks)
    coded = coded.dictionary_encode()
    return np.asarray(coded.indices.fill_null(-1), dtype=np.int64), coded.dictionary
