"""What filters and splits depend on: digests of a dataset's instructions, and their likeness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from steelyard.core.schemas import Bool, Float64, UInt64
from steelyard.export.options import ExportOptions
from steelyard.export.overlap import HeldOutText, NearDuplicates
from steelyard.plan.keys import digests, render_turns, trim


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """Features of n instructions."""

    digest: UInt64  # with the system message and the turns before it
    cluster_leader: UInt64  # digest of the first instruction that is nearly the same
    split_hash: Float64  # in [0, 1): decides the split
    contaminated: Bool


class TextObserver:
    """Features of instructions, each batch compared with those before it."""

    def __init__(self, options: ExportOptions, held_out: HeldOutText | None) -> None:
        self._seed = options.seed % 2**64
        self._held_out = held_out
        self._near = NearDuplicates(options.near_duplicates) if options.near_duplicates else None
        self._leaders: list[int] = []  # digests by the number that NearDuplicates gives

    def observe(self, instruction: pa.Array, system: pa.Array, turns: pa.Array) -> TextFeatures:
        """Return the features of n instructions, which come in the order of the input."""
        digest = _context_digests(instruction, system, render_turns(turns))
        plain = (" ".join(text.lower().split()) for text in instruction.to_pylist())
        split = np.array(
            [xxhash.xxh3_64_intdigest(text.encode(), self._seed) for text in plain], dtype=np.uint64
        )
        leader, contaminated = digest.copy(), np.zeros(len(digest), dtype=np.bool_)
        if self._near or self._held_out:
            _, first, inverse = np.unique(digest, return_index=True, return_inverse=True)
            texts = instruction.take(pa.array(first)).to_pylist()
            for i in np.argsort(first, kind="stable").tolist():
                rows = inverse == i
                if self._held_out:
                    contaminated[rows] = self._held_out.holds(texts[i])
                if self._near:
                    number = self._near.leader(texts[i])
                    if number == len(self._leaders):
                        self._leaders.append(int(digest[first[i]]))
                    leader[rows] = self._leaders[number]
        return TextFeatures(digest, leader, split / 2.0**64, contaminated)


def is_text(texts: pa.Array) -> pa.Array:
    """Return which texts hold anything but white space."""
    return pc.fill_null(pc.not_equal(trim(texts), ""), False)


def or_null(texts: pa.Array) -> pa.Array:
    """Replace texts that hold nothing but white space by null."""
    return pc.if_else(is_text(texts), texts, None)


def text_hashes(texts: pa.Array) -> UInt64:
    """Return 64 bits of each text's digest; those of a null mean nothing."""
    return _first_words(digests(texts))


def _context_digests(instruction: pa.Array, system: pa.Array, conversation: pa.Array) -> UInt64:
    """Return digests of instructions with what comes before them."""
    own = digests(trim(instruction))
    if system.null_count == len(system) and conversation.null_count == len(system):
        return _first_words(own)
    parts = zip(own, digests(or_null(system)), digests(conversation), strict=True)
    return np.array([xxhash.xxh3_64_intdigest(b"".join(row)) for row in parts], dtype=np.uint64)


def _first_words(keys: list[bytes]) -> UInt64:
    return np.frombuffer(b"".join(keys), dtype="<u8").reshape(-1, 2)[:, 0]
