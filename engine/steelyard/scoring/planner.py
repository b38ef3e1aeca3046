"""Shards -> plan on disk, with bounded memory: trim, hash, assign, write.

Input is taken to be grouped by instruction: then the texts stay in the shards, and the plan is made
of keys only. Shuffled input shows in the first batches, and the pass starts again with a copy of
the texts, each about once, in buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from itertools import chain, islice
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from steelyard.core.batches import Planned, PlannedResponses
from steelyard.core.config import RunConfig
from steelyard.core.schemas import Int64
from steelyard.input import ShardSet, stream
from steelyard.input.chosen_rows import ChosenRows
from steelyard.plan.keys import BucketSize, bucket_count, plan_batch
from steelyard.plan.spec import KeySpec
from steelyard.scoring.response_planner import ResponsePlanner, chosen_instructions
from steelyard.store.plan.buckets import NotGrouped
from steelyard.store.plan.files import Manifest, PlanWriter
from steelyard.store.run_input import row_limits
from steelyard.store.rundir import RunDir

SAMPLE_BATCHES = 8  # held back to estimate how long rows are
LIKELY_PAIRS = 2  # per response
PlannedRows: TypeAlias = Planned | PlannedResponses
Batches = Iterable[tuple[PlannedRows, pa.RecordBatch]]  # planned rows, and rejects


def write_plan(
    run: RunDir,
    shards: ShardSet,
    config: RunConfig,
    key_spec: KeySpec,
    on_progress: Callable[[int, int], None],
    *,
    keep_image: Callable[[str, bytes], None] | None = None,
    run_id: str = "",
    on_note: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Plan the accepted rows of shards and keep the refused ones.

    Args:
        run: where the plan is written.
        shards: what is planned.
        config: limits of rows and buckets, and which rows are taken.
        key_spec: what decides the prompts' keys.
        on_progress: gets the numbers of rows accepted and refused so far; what it raises ends the
            work, and nothing of the plan is left.
        keep_image: takes each image's digest and bytes.
        run_id: of run.json; empty: the plan is of no run that is kept.
        on_note: takes what users should know about pairs that were made of responses.

    Raises:
        UsageError: `config.pairs` makes no pair of these rows.
        InputRefused: the shards cannot be read, or would make too many pairs.
    """
    limits = row_limits(config)
    size = BucketSize(config.bucket_bytes, key_spec.template_bytes)
    kept, chosen = None, None
    if config.pairs is None:
        chosen = ChosenRows(shards, config.limit, config.sample)
    else:
        kept = chosen_instructions(shards, limits, config)

    def planner() -> RowPlanner | ResponsePlanner:
        if config.pairs is None:
            return RowPlanner(shards, key_spec)
        return ResponsePlanner(shards, key_spec, config.pairs, kept)

    def attempt(batches: Batches, rows: RowPlanner | ResponsePlanner, buckets: int) -> Manifest:
        writer = PlanWriter(run, rows.metadata, size=size, buckets=buckets, run_id=run_id)
        return _write_rows(writer, batches, rows, on_progress, on_note)

    if shards.local and "images" not in shards.roles:
        rows = planner()
        with suppress(NotGrouped), closing(stream(shards, limits, chosen=chosen)) as batches:
            return attempt(_planned(rows, batches), rows, 0)
    rows = planner()
    with closing(stream(shards, limits, keep_image=keep_image, chosen=chosen)) as batches:
        planned = iter(_planned(rows, batches))
        head = list(islice(planned, SAMPLE_BATCHES))
        weight = _expected_weight(head, config.rows_of(shards.rows), size)
        return attempt(chain(head, planned), rows, bucket_count(weight, size))


def _write_rows(
    writer: PlanWriter,
    batches: Batches,
    rows: RowPlanner | ResponsePlanner,
    on_progress: Callable[[int, int], None],
    on_note: Callable[[str], None],
) -> Manifest:
    """Write a plan whole, or nothing of it."""
    accepted = refused = 0
    try:
        for planned, rejects in batches:
            writer.reject(rejects)
            rows.add(writer, planned)
            accepted, refused = accepted + len(planned), refused + len(rejects)
            on_progress(accepted, refused)
        for note in rows.finish(writer):
            on_note(note)
        return writer.commit()
    except BaseException:
        writer.abandon()
        raise


class RowPlanner:
    """Plans rows that are pairs, or single responses, as they are."""

    def __init__(self, shards: ShardSet, key_spec: KeySpec) -> None:
        self._key_spec = key_spec
        schema = shards.schema
        self.metadata = schema.field("metadata").type if "metadata" in schema.names else None

    def plan(self, intake: pa.RecordBatch) -> PlannedRows:
        """Plan accepted rows."""
        return plan_batch(intake, self._key_spec)

    def add(self, writer: PlanWriter, rows: PlannedRows) -> None:
        """Give planned rows to the plan; raise NotGrouped as `PlanWriter.add` does."""
        assert isinstance(rows, Planned)  # noqa: S101 - made by `plan`
        writer.add(rows)

    def finish(self, _writer: PlanWriter) -> list[str]:
        """Return notes for users: there are none."""
        return []


def _planned(
    rows: RowPlanner | ResponsePlanner,
    batches: Generator[tuple[pa.RecordBatch, pa.RecordBatch]],
) -> Batches:
    for intake, rejects in batches:
        yield rows.plan(intake), rejects


def _expected_weight(
    head: Sequence[tuple[PlannedRows, pa.RecordBatch]], expected: int, size: BucketSize
) -> int:
    """Estimate the weight of all rows from the first ones (footers count repeated texts once)."""
    count = sum(len(rows) + len(rejects) for rows, rejects in head)
    weight = sum(int(_weights(rows, size).sum()) for rows, _ in head)
    return weight * expected // max(1, count)


def _weights(rows: PlannedRows, size: BucketSize) -> Int64:
    if isinstance(rows, Planned):
        return size.weigh(rows.text_bytes, rows.prompts)
    # How many pairs there are shows later; a bucket that becomes too large is split.
    of_a_pair = 2 * np.asarray(rows.rows["text_bytes"])
    return LIKELY_PAIRS * size.weigh(of_a_pair, np.full(len(rows), 2, dtype=np.int64))
