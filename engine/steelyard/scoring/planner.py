"""Shards -> plan on disk, with bounded memory: trim, hash, assign, write.

Input is taken to be grouped by instruction: then the texts stay in the shards, and the plan is made
of keys only. Shuffled input shows in the first batches, and the pass starts again with a copy of
the texts, each about once, in buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from itertools import chain, islice

import pyarrow as pa

from steelyard.core.batches import Planned
from steelyard.core.config import RunConfig
from steelyard.input import ShardSet, stream
from steelyard.input.chosen_rows import ChosenRows
from steelyard.plan.keys import BucketSize, bucket_count, plan_batch
from steelyard.plan.spec import KeySpec
from steelyard.store.plan.buckets import NotGrouped
from steelyard.store.plan.files import Manifest, PlanWriter
from steelyard.store.run_input import row_limits
from steelyard.store.rundir import RunDir

SAMPLE_BATCHES = 8  # held back to estimate how long rows are
Batches = Iterable[tuple[Planned, pa.RecordBatch]]  # planned rows, and rejects


def write_plan(
    run: RunDir,
    shards: ShardSet,
    config: RunConfig,
    key_spec: KeySpec,
    on_progress: Callable[[int, int], None],
    *,
    keep_image: Callable[[str, bytes], None] | None = None,
    run_id: str = "",
) -> Manifest:
    """Plan the accepted rows of shards and keep the refused ones.

    Args:
        run: where the plan is written.
        shards: what is planned.
        config: limits of rows and buckets.
        key_spec: what decides the prompts' keys.
        on_progress: gets the numbers of rows accepted and refused so far; what it raises ends the
            work, and nothing of the plan is left.
        keep_image: takes each image's digest and bytes.
        run_id: of run.json; empty: the plan is of no run that is kept.
    """
    limits, chosen = row_limits(config), ChosenRows(shards, config.limit, config.sample)
    size = BucketSize(config.bucket_bytes, key_spec.template_bytes)

    def planned(batches: Generator[tuple[pa.RecordBatch, pa.RecordBatch]]) -> Batches:
        for intake, rejects in batches:
            yield plan_batch(intake, key_spec), rejects

    def attempt(batches: Batches, buckets: int) -> Manifest:
        schema = shards.schema
        metadata = schema.field("metadata").type if "metadata" in schema.names else None
        writer = PlanWriter(run, metadata, size=size, buckets=buckets, run_id=run_id)
        accepted = refused = 0
        try:
            for rows, rejects in batches:
                writer.reject(rejects)
                writer.add(rows)
                accepted, refused = accepted + len(rows), refused + len(rejects)
                on_progress(accepted, refused)
            return writer.commit()
        except BaseException:
            writer.abandon()
            raise

    if shards.local and "images" not in shards.roles:
        with suppress(NotGrouped), closing(stream(shards, limits, chosen=chosen)) as batches:
            return attempt(planned(batches), 0)
    read = stream(shards, limits, keep_image=keep_image, chosen=chosen)
    with closing(read) as batches:
        rows = iter(planned(batches))
        head = list(islice(rows, SAMPLE_BATCHES))
        buckets = bucket_count(_expected_weight(head, config.rows_of(shards.rows), size), size)
        return attempt(chain(head, rows), buckets)


def _expected_weight(
    head: Sequence[tuple[Planned, pa.RecordBatch]], expected: int, size: BucketSize
) -> int:
    """Estimate the weight of all rows from the first ones (footers count repeated texts once)."""
    count = sum(len(rows) + len(rejects) for rows, rejects in head)
    weight = sum(int(size.weigh(rows.text_bytes, rows.prompts).sum()) for rows, _ in head)
    return weight * expected // max(1, count)
