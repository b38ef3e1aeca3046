"""What filters and splits go by: digests and likeness of a dataset's instructions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from steelyard.core.schemas import Float64, UInt64
from steelyard.export.options import ExportOptions
from steelyard.export.overlap import HeldOutText, NearDuplicates
from steelyard.plan.keys import digests, render_turns, trim


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """What was seen of n instructions."""

    digest: UInt64
    leader: UInt64
    spread: Float64
    contaminated: list[bool]


class TextObserver:
    """Looks at instructions, for what filters and splits go by."""

    def __init__(self, options: ExportOptions, evaluation: HeldOutText | None) -> None:
        self._seed = options.seed
        self._evaluation = evaluation
        self._near = NearDuplicates(options.near_duplicates) if options.near_duplicates else None
        self._leaders: list[int] = []  # digests by the number that NearDuplicates gives

    def look(self, instruction: pa.Array, system: pa.Array, turns: pa.Array) -> TextFeatures:
        """Look at n instructions, in the order of the input."""
        digest = _context_digests(instruction, system, render_turns(turns))
        seed = self._seed % 2**64
        plain = (" ".join(text.lower().split()) for text in instruction.to_pylist())
        spread = np.array(
            [xxhash.xxh3_64_intdigest(text.encode(), seed) for text in plain], dtype=np.uint64
        )
        leader, bad = digest.copy(), np.zeros(len(digest), dtype=np.bool_)
        if self._near or self._evaluation:
            _, first, back = np.unique(digest, return_index=True, return_inverse=True)
            texts = instruction.take(pa.array(first)).to_pylist()
            for at in np.argsort(first, kind="stable").tolist():
                rows = back == at
                if self._evaluation:
                    bad[rows] = self._evaluation.holds(texts[at])
                if self._near:
                    leader[rows] = self._leader(texts[at], int(digest[first[at]]))
        return TextFeatures(digest, leader, spread / 2.0**64, bad.tolist())

    def _leader(self, text: str, digest: int) -> int:
        assert self._near is not None  # noqa: S101 - the caller has looked
        number = self._near.leader(text)
        if number == len(self._leaders):
            self._leaders.append(digest)
        return self._leaders[number]


def is_text(texts: pa.Array) -> pa.Array:
    """Which texts have anything in them."""
    return pc.fill_null(pc.not_equal(trim(texts), ""), False)


def or_null(texts: pa.Array) -> pa.Array:
    """Texts with anything in them."""
    return pc.if_else(is_text(texts), texts, pa.scalar(None, pa.string()))


def numbers_of(texts: pa.Array) -> UInt64:
    """64 bits of each text's digest; those of a null mean nothing."""
    found: UInt64 = np.frombuffer(b"".join(digests(texts)), dtype="<u8").reshape(-1, 2)[:, 0]
    return found


def _context_digests(instruction: pa.Array, system: pa.Array, conversation: pa.Array) -> UInt64:
    """Of the instruction with what stands before it."""
    own = digests(trim(instruction))
    if system.null_count == len(system) and conversation.null_count == len(system):
        return np.frombuffer(b"".join(own), dtype="<u8").reshape(-1, 2)[:, 0]
    parts = zip(own, digests(or_null(system)), digests(conversation), strict=True)
    return np.array([xxhash.xxh3_64_intdigest(b"".join(row)) for row in parts], dtype=np.uint64)
