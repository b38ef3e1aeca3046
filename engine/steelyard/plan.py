"""Content addresses, bucket assignment and prefix order: what is read, where, and in which order.

A prompt's key needs no tokenisation: it is a hash of the judge fingerprint and of the digests of
the prompt's texts. Prompts share prefixes only inside an instruction (beyond the template), so
pairs go to buckets by the instruction's digest, and a bucket is ordered by itself.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from steelyard.records import KEY, PAIRS, TEXT_COLUMNS, TEXTS, Int32, Int64, Planned, UInt64

ABSENT = bytes(16)

# Loading a bucket takes memory of its order; many small buckets take open files while planning.
BUCKET_BYTES = 32 << 20
MAX_BUCKETS = 512
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: mixes words whose remainders were used already


def bucket_count(text_bytes: int, bucket_bytes: int = BUCKET_BYTES) -> int:
    """How many buckets keep a bucket near `bucket_bytes` of text, at most MAX_BUCKETS."""
    return max(1, min(MAX_BUCKETS, -(-text_bytes // bucket_bytes)))


def digests(texts: pa.Array) -> list[bytes]:
    """xxh3_128 of each UTF-8 text; ABSENT for null."""
    if texts.null_count == len(texts):
        return [ABSENT] * len(texts)
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


def binary_column(values: list[bytes], absent: pa.Array | None = None) -> pa.Array:
    """16-byte values as an Arrow column; `absent` (bool) tells which are null."""
    column = pa.Array.from_buffers(KEY, len(values), [None, pa.py_buffer(b"".join(values))])
    return column if absent is None else pc.if_else(absent, pa.scalar(None, KEY), column)


def plan_batch(intake: pa.RecordBatch, fingerprint: bytes) -> Planned:
    """Trim, hash and measure a batch of INTAKE.

    Args:
        intake: accepted rows; the struct `metadata` may follow.
        fingerprint: judge fingerprint, 16 bytes.
    """
    columns = {name: intake[name] for name in intake.schema.names}
    columns |= {name: trim(columns[name]) for name in TRIMMED}
    for name in ("system", "reference"):  # a text without anything in it is no text
        empty = pc.equal(columns[name], "")
        columns[name] = pc.if_else(empty, pa.scalar(None, pa.string()), columns[name])
    columns["conversation"] = render_turns(columns["turns"])
    hashed = {name: digests(columns[name]) for name in TEXT_COLUMNS}
    heads, key_ab, key_ba = _keys(hashed, fingerprint)
    columns |= {
        "pair_id": _pair_ids(columns, heads, hashed),
        "length_a": pc.utf8_length(columns["response_a"]).cast(pa.int32()),
        "length_b": pc.utf8_length(columns["response_b"]).cast(pa.int32()),
        "key_ab": binary_column(key_ab),
        "key_ba": binary_column(key_ba),
    }
    extra = [intake.schema.field("metadata")] if "metadata" in columns else []
    schema = pa.schema([*PAIRS.remove(PAIRS.get_field_index("bucket")), *extra])
    return Planned(
        pairs=_select(columns, schema),
        texts=_select(columns, TEXTS),
        digests={
            name: np.frombuffer(b"".join(hashed[name]), dtype="<u8").reshape(-1, 2)
            for name in TEXT_COLUMNS
            if columns[name].null_count < len(intake)
        },
        text_bytes=_text_bytes(columns, len(intake)),
    )


TRIMMED = ("instruction", "response_a", "response_b", "system", "reference")


def _select(columns: dict[str, pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _keys(
    hashed: dict[str, list[bytes]], fingerprint: bytes
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """What both prompts of a pair have in front, and their keys."""
    key = xxhash.xxh3_128_digest
    a, b = hashed["response_a"], hashed["response_b"]
    heads = [
        fingerprint + system + conversation + text
        for system, conversation, text in zip(
            hashed["system"], hashed["conversation"], hashed["instruction"], strict=True
        )
    ]
    rows = list(zip(heads, a, b, strict=True))
    return (
        heads,
        [key(head + first + second) for head, first, second in rows],
        [key(head + second + first) for head, first, second in rows],
    )


def _pair_ids(
    columns: dict[str, pa.Array], heads: list[bytes], hashed: dict[str, list[bytes]]
) -> pa.Array:
    """Given ids as they are; others from content, the same in every run and under every judge."""
    given = columns["pair_id"]
    if given.null_count == 0:
        return given
    key = xxhash.xxh3_128_hexdigest
    parts = zip(
        heads,
        hashed["response_a"],
        hashed["response_b"],
        _repeated_digests(columns["model_a"]),
        _repeated_digests(columns["model_b"]),
        hashed["reference"],
        strict=True,
    )
    derived = [key(head[16:] + a + b + one + two + last) for head, a, b, one, two, last in parts]
    return pc.coalesce(given, pa.array(derived, pa.string()))


def _repeated_digests(names: pa.Array) -> list[bytes]:
    """`digests` for a column of few different texts."""
    coded = names.dictionary_encode()
    known = [*digests(coded.dictionary), ABSENT]
    return [known[code] for code in coded.indices.fill_null(-1).to_pylist()]


def _text_bytes(columns: dict[str, pa.Array], rows: int) -> Int64:
    total = np.zeros(rows, dtype=np.int64)
    for name in TEXT_COLUMNS:
        if columns[name].null_count < rows:
            total += np.asarray(pc.fill_null(pc.binary_length(columns[name]), 0))
    return total


def trim(texts: pa.Array) -> pa.Array:
    """Outer white space away; part of the segment rule."""
    return pc.utf8_trim_whitespace(texts)


def render_turns(turns: pa.Array) -> pa.Array:
    """Earlier turns as one text, `User: ...` and `Assistant: ...`; null where there are none."""
    if turns.null_count == len(turns):
        return pa.nulls(len(turns), pa.string())
    return pa.array([_conversation(turn) for turn in turns.to_pylist()], pa.string())


def _conversation(turns: list[dict[str, str]] | None) -> str | None:
    if not turns:
        return None
    return "\n\n".join(
        f"{turn['role'].capitalize()}: {turn['content'].strip()}" for turn in turns
    ).strip()


def split(
    instruction: UInt64, response_a: UInt64, response_b: UInt64, text_bytes: Int64, target: int
) -> Int32:
    """Divide n pairs into pieces near `target` bytes; equal prompts stay in one piece.

    Whole instructions stay together. Where one alone is too large, each response has a block by
    its digest, and the pairs of two blocks, in whichever order, go together: neighbouring pieces
    have the same first block. With R blocks a prefix that ends with the first response is
    computed at most R times, and R is about the square root of twice the number of pieces where
    all responses meet each other.

    Args:
        instruction: n digests, one word of each; likewise the responses.
        response_a: see there.
        response_b: see there.
        text_bytes: of each pair.
        target: bytes of a piece; one is larger by what cannot be divided.

    Returns:
        n numbers of pieces, from 0 on, none left out.
    """
    _, group = np.unique(instruction, return_inverse=True)
    large = np.bincount(group, weights=text_bytes)[group] > 2 * target
    low, high = np.zeros(len(group), dtype=np.uint64), np.zeros(len(group), dtype=np.uint64)
    for one in np.unique(group[large]):
        rows = np.flatnonzero(group == one)
        low[rows], high[rows] = _blocks(
            response_a[rows], response_b[rows], text_bytes[rows], target
        )
    order = np.lexsort((high, low, group))
    starts = np.ones(len(order), dtype=np.bool_)
    starts[1:] = np.any([np.diff(column[order]) != 0 for column in (group, low, high)], axis=0)
    cell = np.cumsum(starts) - 1
    weight = np.bincount(cell, weights=text_bytes[order])
    window = (np.cumsum(weight) - weight) // target
    pieces = np.empty(len(order), dtype=np.int32)
    pieces[order] = np.unique(window, return_inverse=True)[1][cell]
    return pieces


def _blocks(a: UInt64, b: UInt64, text_bytes: Int64, target: int) -> tuple[UInt64, UInt64]:
    """The blocks of both responses, the lower first; so many that no two blocks are too large."""
    most = 4 * int(text_bytes.sum()) // target
    blocks = 2
    while True:
        one, other = (((words * _MIX) >> np.uint64(32)) % np.uint64(blocks) for words in (a, b))
        low, high = np.minimum(one, other), np.maximum(one, other)
        _, cell = np.unique(low * np.uint64(blocks) + high, return_inverse=True)
        if np.bincount(cell, weights=text_bytes).max() <= target or blocks > most:
            return low, high
        blocks *= 2
