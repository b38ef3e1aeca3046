"""Shards -> plan on disk, in one pass with bounded memory: trim, hash, assign, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, islice

import pyarrow as pa
import pyarrow.compute as pc

from steelyard.plan import bucket_count, key_batch, trim
from steelyard.records import KEY, PAIRS, TEXTS
from steelyard.store.plan_files import Manifest, PlanWriter
from steelyard.store.rundir import RunDir

SAMPLE_BATCHES = 8  # held to tell how long rows are
_TRIMMED = ("instruction", "response_a", "response_b", "system", "reference")


def write_plan(
    run: RunDir,
    rows: Iterable[tuple[pa.RecordBatch, pa.RecordBatch]],
    *,
    fingerprint: bytes,
    expected: int,
    bucket_bytes: int,
    schema: pa.Schema,
    on_progress: Callable[[int, int], None],
) -> Manifest:
    """Plan accepted rows (INTAKE) and keep refused ones (REJECTS).

    Args:
        run: where the plan is written.
        rows: accepted and refused rows, batch by batch.
        fingerprint: judge fingerprint, 16 bytes.
        expected: rows that will come, accepted or not.
        bucket_bytes: text that a bucket should hold.
        schema: of the accepted rows: INTAKE, and the struct `metadata` where there is one.
        on_progress: told accepted and refused rows so far; what it raises ends the work, and
            nothing of the plan is left.
    """
    metadata = schema.field("metadata").type if "metadata" in schema.names else None
    batches = iter(rows)
    head = list(islice(batches, SAMPLE_BATCHES))
    buckets = bucket_count(_expected_bytes(head, expected), bucket_bytes)
    writer = PlanWriter(run, buckets, metadata)
    accepted = refused = 0
    try:
        for intake, rejects in chain(head, batches):
            writer.reject(rejects)
            if len(intake):
                writer.add(*plan_batch(intake, fingerprint, buckets))
            accepted, refused = accepted + len(intake), refused + len(rejects)
            on_progress(accepted, refused)
        return writer.commit()
    except BaseException:
        writer.abandon()
        raise


def _expected_bytes(head: list[tuple[pa.RecordBatch, pa.RecordBatch]], expected: int) -> int:
    """Text of all rows, told from the first ones (a footer counts repeated texts once)."""
    rows = sum(len(intake) + len(rejects) for intake, rejects in head)
    size = sum(
        pc.sum(pc.binary_length(intake[name])).as_py() or 0
        for intake, _ in head
        for name in _TRIMMED
    )
    return size * expected // max(1, rows)


def plan_batch(
    intake: pa.RecordBatch, fingerprint: bytes, buckets: int
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Rows of PAIRS (+ metadata) and of TEXTS for a batch of INTAKE."""
    columns = {name: intake[name] for name in intake.schema.names}
    columns |= {name: trim(columns[name]) for name in _TRIMMED}
    for name in ("system", "reference"):  # a text without anything in it is no text
        empty = pc.equal(columns[name], "")
        columns[name] = pc.if_else(empty, pa.scalar(None, pa.string()), columns[name])
    columns["conversation"] = render_turns(columns["turns"])
    keys = key_batch(pa.RecordBatch.from_pydict(columns), fingerprint, buckets)
    columns |= {
        "pair_id": pa.array(keys.pair_id, pa.string()),
        "bucket": pa.array(keys.bucket),
        "length_a": pc.utf8_length(columns["response_a"]).cast(pa.int32()),
        "length_b": pc.utf8_length(columns["response_b"]).cast(pa.int32()),
        "key_ab": pa.array(keys.key_ab, KEY),
        "key_ba": pa.array(keys.key_ba, KEY),
    }
    extra = [intake.schema.field("metadata")] if "metadata" in columns else []
    schema = pa.schema([*PAIRS, *extra])
    return (
        pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema),
        pa.RecordBatch.from_arrays([columns[name] for name in TEXTS.names], schema=TEXTS),
    )


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
