"""Plan -> prompts in prefix order, bucket by bucket -> reads; prompts are made while it reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator

import numpy as np

from steelyard.core.background import NotReady, Prefetch
from steelyard.core.batches import PromptBatch, ReadBatch
from steelyard.core.schemas import STATUS_OVERLONG
from steelyard.judge.base import NOTHING_READY, Judge
from steelyard.judge.isolation import BATCH_PROMPTS, PoisonIsolation, failed_reads
from steelyard.plan.dedupe import unique_prompts
from steelyard.prompts.maker import PreparedBucket, PromptMaker
from steelyard.store.plan.buckets import BucketTexts
from steelyard.store.plan.files import Manifest

PATIENCE = 0.002  # seconds to wait for the next bucket while the engine may have work


def feed(
    bucket_texts: BucketTexts,
    manifest: Manifest,
    maker: PromptMaker,
    done: Callable[[int], set[bytes]],
) -> Generator[PreparedBucket]:
    """Prepare all buckets that have unread prompts, in the plan's order.

    `done` returns the keys of a bucket that are read already.
    """
    for bucket, prompts in enumerate(manifest.unique):
        read = done(bucket)
        if len(read) >= prompts:
            continue
        texts = bucket_texts.texts(bucket)
        unique = unique_prompts(texts["keys"].combine_chunks())
        unread = np.asarray(
            [index for index, key in enumerate(unique.keys) if key not in read], dtype=np.int64
        )
        prepared = maker.prepare(bucket, texts, unique, unread)
        if prepared is not None:
            yield prepared


def batches(bucket: PreparedBucket) -> Iterator[PromptBatch]:
    """Yield a bucket's prompts in small batches, in their order."""
    prompts = PromptBatch(bucket.number, bucket.keys, bucket.rows, bucket.truncated, bucket.images)
    for start in range(0, len(prompts), BATCH_PROMPTS):
        yield prompts.slice(start, start + BATCH_PROMPTS)


def prompt_batches(
    buckets: Prefetch[PreparedBucket], stop: threading.Event
) -> Iterator[PromptBatch]:
    """Yield prompts in small batches until `stop` is set, without a break between buckets.

    While the next bucket is not ready, NOTHING_READY is yielded, so that an engine with requests
    in its queue can go on with them.
    """
    while not stop.is_set():
        try:
            bucket = buckets.take(PATIENCE)
        except NotReady:
            yield NOTHING_READY
            continue
        if bucket is None:
            return
        for batch in batches(bucket):
            if stop.is_set():
                return
            yield batch
        del bucket  # before the next one is waited for


def read_all(
    judge: Judge,
    batches: Iterator[PromptBatch],
    context: int,
    restart: Callable[[], object],
    on_event: Callable[[str], None],
) -> Generator[ReadBatch]:
    """Read all prompts: with the judge, or without it where they are too long."""
    overlong: list[PromptBatch] = []

    def fitting() -> Iterator[PromptBatch]:
        for batch in batches:
            long = batch.rows.lengths > context
            if not long.any():
                yield batch
                continue
            overlong.append(batch.take(np.flatnonzero(long)))
            if not long.all():
                yield batch.take(np.flatnonzero(~long))

    for reads in PoisonIsolation(judge, restart, on_event).read(fitting()):
        yield from _overlong_reads(overlong, context)
        yield reads
    yield from _overlong_reads(overlong, context)


def _overlong_reads(batches: list[PromptBatch], context: int) -> Iterator[ReadBatch]:
    while batches:
        batch = batches.pop()
        reasons = [
            f"{length} tokens, the judge takes {context}" for length in batch.rows.lengths.tolist()
        ]
        yield failed_reads(batch, STATUS_OVERLONG, reasons)
