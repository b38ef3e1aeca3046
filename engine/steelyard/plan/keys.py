"""Content addresses, bucket assignment and prefix order: what is read, where, and in which order.

A prompt's key needs no tokenisation: it is a hash of the judge fingerprint and of the digests of
the prompt's texts. Prompts share prefixes only inside an instruction (beyond the template), so
pairs go to buckets by the instruction's digest, and each bucket is ordered separately.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from steelyard.core.arrow import to_ints
from steelyard.core.batches import Planned
from steelyard.core.schemas import KEY, KEYS, PAIRS, PLACED, TEXT_COLUMNS, TEXTS, Int64, UInt64
from steelyard.plan.spec import KeySpec
from steelyard.protocols.axes import PromptAxes
from steelyard.protocols.protocol import SLOT_COLUMNS

ABSENT = bytes(16)
TRIMMED = ("instruction", "response_a", "response_b", "system", "reference")

MAX_BUCKETS = 512  # each takes open files while planning
PROMPT_SHARE = 2  # a bucket's prompts may take this many times the bytes of its texts,
LEAST_PROMPTS = 16 << 20  # and in small buckets this many bytes
PROMPT_BYTES = 256  # of memory for a prompt besides its tokens: its key, its place in arrays


@dataclass(frozen=True, slots=True)
class BucketSize:
    """How much a bucket should hold: texts, and prompts, which are in memory while it is read."""

    target: int  # UTF-8 bytes of text
    template_bytes: int  # of a prompt without its texts

    def weigh(self, text_bytes: Int64, prompts: Int64) -> Int64:
        """Return the part of `target` that each pair takes, by its texts or by its prompts.

        A token takes as many bytes, four, as the text that it stands for. Many short texts in a
        long template, or many prompts per pair, take far more as prompts than as texts.

        Args:
            text_bytes: UTF-8 of each pair's texts together.
            prompts: how many prompts each pair asks.
        """
        as_prompts = prompts * (PROMPT_BYTES + self.template_bytes + text_bytes)
        room = max(PROMPT_SHARE * self.target, LEAST_PROMPTS)
        return np.maximum(text_bytes, (as_prompts * (self.target / room)).astype(np.int64))


def bucket_count(weight: int, size: BucketSize) -> int:
    """Return how many buckets hold pairs of this weight (BucketSize.weigh), up to MAX_BUCKETS."""
    return max(1, min(MAX_BUCKETS, -(-weight // size.target)))


def digests(texts: pa.Array) -> list[bytes]:
    """Hash each UTF-8 text with xxh3_128; ABSENT for null."""
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
        hashed(view[start:end]) if there else ABSENT
        for (start, end), there in zip(pairwise(offsets), valid, strict=True)
    ]


def plan_batch(intake: pa.RecordBatch, spec: KeySpec) -> Planned:
    """Trim, hash and measure accepted rows (INTAKE; the struct `metadata` may follow)."""
    columns, items = trimmed(intake)
    hashed = {name: digests(columns[name]) for name in TEXT_COLUMNS}
    extra = [intake.schema.field("metadata")] if "metadata" in columns else []
    columns["keys"] = prompt_keys(hashed, columns["category"], items, spec)
    words = digest_words(hashed)
    pairs = columns | {
        "pair_id": pair_ids(columns["pair_id"], hashed, columns["model_a"], columns["model_b"]),
        "instruction_id": pa.array(words["instruction"][:, 0]),
        "length_a": lengths(columns["response_a"]),
        "length_b": lengths(columns["response_b"]),
        "criteria": intake["criteria"],
    }
    own = [field for field in PAIRS if field.name not in PLACED]
    return Planned(
        pairs=select(pairs, pa.schema([*own, *extra])),
        texts=select(columns, TEXTS),
        digests=words,
        text_bytes=text_bytes(columns, TEXT_COLUMNS),
    )


def trimmed(intake: pa.RecordBatch) -> tuple[dict[str, pa.Array], list[list[str]] | None]:
    """Return the columns of accepted rows with TEXT_COLUMNS as judges see them, and criteria."""
    columns = {name: intake[name] for name in intake.schema.names}
    columns |= {name: trim(columns[name]) for name in TRIMMED}
    for name in ("system", "reference"):  # an empty text counts as missing
        empty = pc.equal(columns[name], "")
        columns[name] = pc.if_else(empty, pa.scalar(None, pa.string()), columns[name])
    columns["conversation"] = render_turns(columns["turns"])
    for name in ("turns_a", "turns_b"):
        columns[name] = render_turns(columns[name])
    columns["criteria"], items = _criteria(columns["criteria"])
    return columns, items


def digest_words(hashed: Mapping[str, list[bytes]]) -> dict[str, UInt64]:
    """Return digests as two 64-bit words each, shape (n, 2); without columns that have no text."""
    joined = {name: b"".join(values) for name, values in hashed.items()}
    return {
        name: np.frombuffer(values, dtype="<u8").reshape(-1, 2)
        for name, values in joined.items()
        if name == "instruction" or values.strip(b"\0")
    }


def as_keys(words: UInt64) -> pa.Array:
    """Return digests (n, 2) as KEY; ABSENT becomes null."""
    buffer = pa.py_buffer(np.ascontiguousarray(words))
    keys = pa.Array.from_buffers(KEY, len(words), [None, buffer])
    there = words.any(axis=1)
    return keys if there.all() else pc.if_else(pa.array(there), keys, pa.scalar(None, KEY))


def as_words(keys: pa.Array) -> UInt64:
    """Return digests (KEY) as two 64-bit words each, shape (n, 2); null becomes ABSENT."""
    filled = keys.fill_null(ABSENT) if keys.null_count else keys
    start = filled.offset * KEY.byte_width
    words = np.frombuffer(filled.buffers()[1], dtype="<u8", count=2 * len(keys), offset=start)
    return words.reshape(-1, 2)


def text_bytes(columns: Mapping[str, pa.Array], names: Sequence[str]) -> Int64:
    """Return the UTF-8 bytes of each row in these columns together."""
    filled = [columns[name] for name in names if columns[name].null_count < len(columns[name])]
    none = np.zeros(len(columns[names[0]]), dtype=np.int64)
    return sum((to_ints(pc.binary_length(values)) for values in filled), start=none)


def lengths(texts: pa.Array) -> pa.Array:
    """Return the characters of each text."""
    return pc.utf8_length(texts).cast(pa.int32())


def select(columns: Mapping[str, pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    """Return the columns of a schema as a batch."""
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def prompt_keys(
    hashed: Mapping[str, list[bytes]],
    category: pa.Array,
    items: list[list[str]] | None,
    spec: KeySpec,
) -> pa.ListArray:
    """Return the keys of each pair's prompts, in the order of PromptAxes.

    A key is xxh3_128(fingerprint of the form, digests of the texts that the prompt shows). Images
    count as one of the texts (their digests in their order), and where a pair has none, its keys
    are what they are in a run without images.

    Args:
        hashed: digests of n pairs' texts by text column; ABSENT for missing texts.
        category: of each pair, null for none.
        items: criteria of each pair, where rows bring them.
        spec: what decides the keys.
    """
    heads, bodies, tails = _parts(hashed, items, spec)
    which = form_of(category, spec.categories).tolist()
    key = xxhash.xxh3_128_digest
    columns: list[list[bytes | None]] = []
    images = hashed["images"]
    for plain, pictured in zip(spec.forms, spec.pictured or spec.forms, strict=True):
        width = len(spec.categories) + 1
        for start in range(0, len(plain), width):
            begun = [
                plain[start + form] + head
                if image == ABSENT
                else pictured[start + form] + image + head
                for form, head, image in zip(which, heads, images, strict=True)
            ]
            for tail in tails:
                columns += [
                    [
                        None if text is None or end is None else key(front + text + end)
                        for front, text, end in zip(begun, body, tail, strict=True)
                    ]
                    for body in bodies
                ]
    rows = list(zip(*columns, strict=True))
    flat = [digest for row in rows for digest in row if digest is not None]
    offsets = np.full(len(rows) + 1, len(columns), dtype=np.int32)
    offsets[0] = 0
    if len(flat) != len(rows) * len(columns):
        offsets[1:] = [len(row) - row.count(None) for row in rows]
    values = pa.Array.from_buffers(KEY, len(flat), [None, pa.py_buffer(b"".join(flat))])
    return pa.ListArray.from_arrays(pa.array(np.cumsum(offsets, dtype=np.int32)), values, type=KEYS)


def _parts(
    hashed: Mapping[str, list[bytes]], items: list[list[str]] | None, spec: KeySpec
) -> tuple[list[bytes], list[list[bytes | None]], list[list[bytes | None]]]:
    """Return what all prompts of a pair show, what those of each order show, and what comes last.

    None where a pair has no such prompt: a response alone has one order, and rows that bring
    criteria differ in their number.
    """
    shown, axes = spec.shown, spec.axes
    rows = len(hashed["instruction"])
    alike = [SLOT_COLUMNS[name] for name in sorted(shown) if name != "criterion"]
    shared = [hashed[first] for first, second in alike if first == second]
    heads = [b"".join(parts) for parts in zip(*shared, strict=True)]
    bodies: list[list[bytes | None]] = []
    for side, _ in enumerate(axes.orders):
        own = [hashed[both[side]] for both in alike if both[0] != both[1]]
        bodies.append([b"".join(parts) for parts in zip(*own, strict=True)])
    alone = hashed["response_b"]
    if axes.shows == "response" and ABSENT in alone:
        bodies[1] = [
            None if there == ABSENT else body for there, body in zip(alone, bodies[1], strict=True)
        ]
    samples = [bytes([number]) if number else b"" for number in range(axes.samples)]
    criteria = _criterion_digests(items, axes, rows)
    tails = [
        [None if digest is None else digest + sample for digest in column]
        for column in criteria
        for sample in samples
    ]
    return heads, bodies, tails


def _criterion_digests(
    items: list[list[str]] | None, axes: PromptAxes, rows: int
) -> list[list[bytes | None]]:
    """Return, by number of the criterion, the digest of each pair's."""
    digest = cache(lambda text: xxhash.xxh3_128_digest(text.encode()))
    if axes.row_criteria:
        own = items or [[]] * rows
        most = max(map(len, own), default=0)
        return [
            [digest(row[number]) if number < len(row) else None for row in own]
            for number in range(most)
        ]
    if axes.criteria:
        return [[digest(criterion.text)] * rows for criterion in axes.criteria]
    return [[b""] * rows]


def form_of(category: pa.Array | pa.ChunkedArray, categories: tuple[str, ...]) -> Int64:
    """Return which form of a variant each pair sees: 0, or that of its category."""
    codes = pc.index_in(category, value_set=pa.array(categories, pa.string()))
    return to_ints(codes, null=-1) + 1


def _criteria(weighted: pa.Array) -> tuple[pa.Array, list[list[str]] | None]:
    """Return the texts of each row's criteria, as JSON and as they are."""
    if weighted.null_count == len(weighted):
        return pa.nulls(len(weighted), pa.string()), None
    items = [[item["text"].strip() for item in row or ()] for row in weighted.to_pylist()]
    texts = [json.dumps(row, ensure_ascii=False) if row else None for row in items]
    return pa.array(texts, pa.string()), items


def pair_ids(
    given: pa.Array, hashed: Mapping[str, list[bytes]], model_a: pa.Array, model_b: pa.Array
) -> pa.Array:
    """Keep given ids; derive others from content, the same in every run and under every judge."""
    if given.null_count == 0:
        return given
    key = xxhash.xxh3_128_hexdigest
    parts = [hashed[name] for name in TEXT_COLUMNS if name not in {"category", "images"}]
    parts.append([b"" if image == ABSENT else image for image in hashed["images"]])
    models = [_repeated_digests(names) for names in (model_a, model_b)]
    derived = [key(b"".join(row)) for row in zip(*parts, *models, strict=True)]
    return pc.coalesce(given, pa.array(derived, pa.string()))


def _repeated_digests(names: pa.Array) -> list[bytes]:
    """Hash a column of few different texts, as `digests` does."""
    coded = names.dictionary_encode()
    known = [*digests(coded.dictionary), ABSENT]
    return [known[code] for code in coded.indices.fill_null(-1).to_pylist()]


def trim(texts: pa.Array) -> pa.Array:
    """Remove outer white space; part of the segment rule."""
    return pc.utf8_trim_whitespace(texts)


def render_turns(turns: pa.Array) -> pa.Array:
    """Join earlier turns to one text, `User: ...`, `Assistant: ...`; null without turns."""
    if turns.null_count == len(turns):
        return pa.nulls(len(turns), pa.string())
    return pa.array([_conversation(turn) for turn in turns.to_pylist()], pa.string())


def _conversation(turns: list[dict[str, str]] | None) -> str | None:
    if not turns:
        return None
    return "\n\n".join(
        f"{turn['role'].capitalize()}: {turn['content'].strip()}" for turn in turns
    ).strip()
