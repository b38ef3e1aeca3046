"""Prompts -> reads: by the judge, and without it for prompts that are too long."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np

from steelyard.core.batches import PromptBatch, ReadBatch
from steelyard.core.schemas import STATUS_OVERLONG
from steelyard.judge.base import Judge
from steelyard.judge.isolation import PoisonIsolation, failed_reads


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
            fits, long = split_overlong(batch, context)
            if long is not None:
                overlong.append(long)
            if fits is not None:
                yield fits

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


def split_overlong(
    batch: PromptBatch, context: int
) -> tuple[PromptBatch | None, PromptBatch | None]:
    """Return the prompts that fit into the context, and the others; None for none."""
    long = batch.rows.lengths > context
    if not long.any():
        return batch, None
    fitting = None if long.all() else batch.take(np.flatnonzero(~long))
    return fitting, batch.take(np.flatnonzero(long))
