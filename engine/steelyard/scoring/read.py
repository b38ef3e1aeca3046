"""Prompts -> reads: the judge's, the overlong ones without it, all of them into parts."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np

from steelyard.core.batches import PromptBatch, ReadBatch
from steelyard.core.schemas import STATUS_OVERLONG, Int64
from steelyard.judge.base import Judge
from steelyard.judge.isolation import PoisonIsolation, failed_reads


def read_all(
    judge: Judge,
    batches: Iterator[PromptBatch],
    context: int,
    restart: Callable[[], object],
    on_event: Callable[[str], None],
) -> Generator[ReadBatch]:
    """Reads of all prompts: the judge's, and overlong ones without it."""
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
            f"{length} tokens, the judge takes {context}"
            for length in np.diff(batch.offsets).tolist()
        ]
        yield failed_reads(batch, STATUS_OVERLONG, reasons)


def split_overlong(
    batch: PromptBatch, context: int
) -> tuple[PromptBatch | None, PromptBatch | None]:
    """The prompts that fit into the context, and those that do not; None for no prompt."""
    long = np.diff(batch.offsets) > context
    if not long.any():
        return batch, None
    fits, not_fits = np.flatnonzero(~long), np.flatnonzero(long)
    return _select(batch, fits), _select(batch, not_fits)


def _select(batch: PromptBatch, at: Int64) -> PromptBatch | None:
    if not len(at):
        return None
    offsets = np.zeros(len(at) + 1, dtype=np.int64)
    np.cumsum(np.diff(batch.offsets)[at], out=offsets[1:])
    return PromptBatch(
        bucket=batch.bucket,
        keys=[batch.keys[index] for index in at.tolist()],
        tokens=np.concatenate(
            [batch.tokens[batch.offsets[index] : batch.offsets[index + 1]] for index in at]
        ),
        offsets=offsets,
        truncated=batch.truncated[at],
        images=[batch.images[index] for index in at.tolist()] if batch.images else (),
    )
