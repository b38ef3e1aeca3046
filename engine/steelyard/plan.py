"""Content addresses and bucket assignment: what is read, and where.

A prompt's key needs no tokenisation: it is a hash of the judge fingerprint and of the digests of
the prompt's texts. Prompts share prefixes only inside an instruction (beyond the template), so
pairs go to buckets by the instruction's digest, and a bucket is ordered by itself (prompting.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from steelyard.records import Int32

ABSENT = bytes(16)

# Loading a bucket takes memory of its order; many small buckets take open files while planning.
BUCKET_BYTES = 32 << 20
MAX_BUCKETS = 512


@dataclass(frozen=True, slots=True)
class Keys:
    """Content addresses of a batch of pairs; lists of 16-byte digests, `bucket` of int32."""

    pair_id: list[str]
    key_ab: list[bytes]
    key_ba: list[bytes]
    bucket: Int32


def bucket_count(text_bytes: int, bucket_bytes: int = BUCKET_BYTES) -> int:
    """How many buckets keep a bucket near `bucket_bytes` of text, at most MAX_BUCKETS."""
    return max(1, min(MAX_BUCKETS, -(-text_bytes // bucket_bytes)))


def digests(texts: pa.Array) -> list[bytes]:
    """xxh3_128 of each UTF-8 text; ABSENT for null."""
    texts = texts.cast(pa.large_binary())
    _, offsets_buffer, data = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64)[
        texts.offset : texts.offset + len(texts) + 1
    ].tolist()
    view = memoryview(data) if data is not None else memoryview(b"")
    hashed = xxhash.xxh3_128_digest
    if texts.null_count == 0:
        return [hashed(view[start:end]) for start, end in pairwise(offsets)]
    valid = texts.is_valid().to_pylist()
    return [
        hashed(view[offsets[at] : offsets[at + 1]]) if valid[at] else ABSENT
        for at in range(len(texts))
    ]


def key_batch(texts: pa.RecordBatch, fingerprint: bytes, buckets: int) -> Keys:
    """Keys of a batch whose texts are trimmed.

    Args:
        texts: columns instruction, response_a, response_b, system, conversation; model_a, model_b
            and reference enter derived pair ids; pair_id where the input gives one.
        fingerprint: judge fingerprint, 16 bytes.
        buckets: how many there are.
    """
    hashed = xxhash.xxh3_128_digest
    a, b = digests(texts["response_a"]), digests(texts["response_b"])
    instruction = digests(texts["instruction"])
    heads = [
        fingerprint + system + conversation + text
        for system, conversation, text in zip(
            digests(texts["system"]), digests(texts["conversation"]), instruction, strict=True
        )
    ]
    rows = list(zip(heads, a, b, strict=True))
    place = np.frombuffer(b"".join(instruction), dtype="<u8")[::2] % np.uint64(buckets)
    return Keys(
        pair_id=_pair_ids(texts, rows),
        key_ab=[hashed(head + first + second) for head, first, second in rows],
        key_ba=[hashed(head + second + first) for head, first, second in rows],
        bucket=place.astype(np.int32),
    )


def _pair_ids(texts: pa.RecordBatch, rows: list[tuple[bytes, bytes, bytes]]) -> list[str]:
    """Given ids as they are; others from content, the same in every run and under every judge."""
    given = texts["pair_id"]
    if given.null_count == 0:
        ids: list[str] = given.to_pylist()
        return ids
    hashed = xxhash.xxh3_128_hexdigest
    rest = zip(
        digests(texts["model_a"]),
        digests(texts["model_b"]),
        digests(texts["reference"]),
        strict=True,
    )
    derived = [
        hashed(b"".join((head[16:], a, b, *more)))
        for (head, a, b), more in zip(rows, rest, strict=True)
    ]
    return [old or new for old, new in zip(given.to_pylist(), derived, strict=True)]


def trim(texts: pa.Array) -> pa.Array:
    """Outer white space away; part of the segment rule."""
    return pc.utf8_trim_whitespace(texts)
