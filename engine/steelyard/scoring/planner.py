"""Shards -> plan on disk, with bounded memory: trim, hash, assign, write.

Input is taken to be grouped by instruction: then the texts stay in the shards, and the plan is made
of keys only. Shuffled input shows in the first batches, and the pass starts again with a copy of
the texts, each about once, in buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from itertools import chain, islice

import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.config import RunConfig
from steelyard.input import ShardSet, stream
from steelyard.plan.keys import TRIMMED, bucket_count, plan_batch
from steelyard.plan.spec import KeySpec
from steelyard.store.plan.buckets import NotGrouped
from steelyard.store.plan.files import Manifest, PlanWriter
from steelyard.store.run_input import row_limits
from steelyard.store.rundir import RunDir

SAMPLE_BATCHES = 8  # held back to estimate how long rows are
Batches = Iterable[tuple[pa.RecordBatch, pa.RecordBatch]]


def write_plan(
    run: RunDir,
    shards: ShardSet,
    config: RunConfig,
    key_spec: KeySpec,
    on_progress: Callable[[int, int], None],
    *,
    keep_image: Callable[[str, bytes], None] | None = None,
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
    """
    limits, target = row_limits(config), config.bucket_bytes

    def attempt(batches: Batches, buckets: int, target: int) -> Manifest:
        schema = shards.schema
        metadata = schema.field("metadata").type if "metadata" in schema.names else None
        writer = PlanWriter(run, metadata, target=target, buckets=buckets)
        accepted = refused = 0
        try:
            for intake, rejects in batches:
                writer.reject(rejects)
                writer.add(plan_batch(intake, key_spec))
                accepted, refused = accepted + len(intake), refused + len(rejects)
                on_progress(accepted, refused)
            return writer.commit()
        except BaseException:
            writer.abandon()
            raise

    if shards.local and "images" not in shards.roles:
        with suppress(NotGrouped), closing(stream(shards, limits)) as batches:
            return attempt(batches, 0, target)
    with closing(stream(shards, limits, keep_image=keep_image)) as batches:
        head = list(islice(batches, SAMPLE_BATCHES))
        size = _expected_bytes(head, shards.rows)
        buckets = bucket_count(size, target)
        return attempt(chain(head, batches), buckets, max(target, size // buckets))


def _expected_bytes(head: list[tuple[pa.RecordBatch, pa.RecordBatch]], expected: int) -> int:
    """Estimate the text of all rows from the first ones (footers count repeated texts once)."""
    rows = sum(len(intake) + len(rejects) for intake, rejects in head)
    texts = (intake[name] for intake, _ in head for name in TRIMMED)
    size = sum(pc.sum(pc.binary_length(text)).as_py() or 0 for text in texts)
    return size * expected // max(1, rows)
