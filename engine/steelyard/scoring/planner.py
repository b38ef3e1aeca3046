"""Shards -> plan on disk, with bounded memory: trim, hash, assign, write.

Input is taken to be grouped by instruction until it shows otherwise; then the texts stay in the
shards, and the plan is made of keys only. Shuffled input shows it in the first batches, and the
pass starts again with a copy of the texts, each about once, in buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing, suppress
from itertools import chain, islice

import pyarrow as pa
import pyarrow.compute as pc

from steelyard.plan.keys import TRIMMED, bucket_count, plan_batch
from steelyard.plan.spec import KeySpec
from steelyard.store.plan.buckets import NotGrouped
from steelyard.store.plan.files import Manifest, PlanWriter
from steelyard.store.rundir import RunDir

SAMPLE_BATCHES = 8  # held to tell how long rows are
Batches = Iterable[tuple[pa.RecordBatch, pa.RecordBatch]]
Rows = Generator[tuple[pa.RecordBatch, pa.RecordBatch]]


def write_plan(
    run: RunDir,
    rows: Callable[[], Rows],
    *,
    key_spec: KeySpec,
    expected: int,
    bucket_bytes: int,
    schema: pa.Schema,
    local: bool,
    on_progress: Callable[[int, int], None],
) -> Manifest:
    """Plan accepted rows (INTAKE) and keep refused ones (REJECTS).

    Args:
        run: where the plan is written.
        rows: begins a pass over accepted and refused rows, batch by batch, always the same.
        key_spec: what is asked about each pair.
        expected: rows that will come, accepted or not.
        bucket_bytes: text that a bucket should hold.
        schema: of the accepted rows: INTAKE, and the struct `metadata` where there is one.
        local: whether rows can be read again later, in their order, at the cost of reading.
        on_progress: told accepted and refused rows so far; what it raises ends the work, and
            nothing of the plan is left.
    """
    metadata = schema.field("metadata").type if "metadata" in schema.names else None

    def attempt(batches: Batches, buckets: int, target: int) -> Manifest:
        writer = PlanWriter(run, metadata, target=target, buckets=buckets)
        try:
            _fill(writer, batches, key_spec, on_progress)
            return writer.commit()
        except BaseException:
            writer.abandon()
            raise

    if local:
        with suppress(NotGrouped), closing(rows()) as batches:
            return attempt(batches, 0, bucket_bytes)
    with closing(rows()) as batches:
        head = list(islice(batches, SAMPLE_BATCHES))
        size = _expected_bytes(head, expected)
        buckets = bucket_count(size, bucket_bytes)
        return attempt(chain(head, batches), buckets, max(bucket_bytes, size // buckets))


def _fill(
    writer: PlanWriter,
    batches: Batches,
    key_spec: KeySpec,
    on_progress: Callable[[int, int], None],
) -> None:
    accepted = refused = 0
    for intake, rejects in batches:
        writer.reject(rejects)
        writer.add(plan_batch(intake, key_spec))
        accepted, refused = accepted + len(intake), refused + len(rejects)
        on_progress(accepted, refused)


def _expected_bytes(head: list[tuple[pa.RecordBatch, pa.RecordBatch]], expected: int) -> int:
    """Text of all rows, told from the first ones (a footer counts repeated texts once)."""
    rows = sum(len(intake) + len(rejects) for intake, rejects in head)
    size = sum(
        pc.sum(pc.binary_length(intake[name])).as_py() or 0
        for intake, _ in head
        for name in TRIMMED
    )
    return size * expected // max(1, rows)
