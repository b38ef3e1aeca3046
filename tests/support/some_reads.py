"""Reads made by hand, and a small run directory that holds them."""

from __future__ import annotations

import numpy as np

from steelyard.core.batches import Generations, ReadBatch
from steelyard.core.schemas import STATUS_OK
from steelyard.core.work import BatchProgress, Work
from steelyard.store.reads import journal
from steelyard.store.reads.parts import commit_part, reads_table
from steelyard.store.rundir import RunDir


def key(number):
    return number.to_bytes(16, "big")


def batch(numbers, *, bucket=0, status=STATUS_OK, written=False):
    """Reads of the prompts with these numbers: number n has log-probabilities -n and -2n."""
    count = len(numbers)
    values = np.asarray(numbers, dtype=np.float64)
    words = [status] * count if isinstance(status, str) else status
    texts = Generations(
        [f"text {n}" for n in numbers], [[float(n), 0.5] for n in numbers],
        np.zeros(count, dtype=np.bool_), np.arange(count, dtype=np.int32),
    ) if written else None  # fmt: skip
    return ReadBatch(
        keys=[key(number) for number in numbers],
        buckets=np.full(count, bucket, dtype=np.int32),
        status=list(words),
        label_logprobs=np.stack([-values, -2 * values], axis=1),
        label_mass=np.full(count, 0.75),
        argmax_outside=np.zeros(count, dtype=np.bool_),
        truncated=np.zeros(count, dtype=np.bool_),
        prompt_tokens=np.full(count, 10, dtype=np.int32),
        cached_tokens=np.full(count, 4, dtype=np.int32),
        errors=[None if word == STATUS_OK else f"because of {word}" for word in words],
        written=texts,
    )


def table(numbers, **options):
    return reads_table([batch(numbers, **options)], [1_000])


def run_with_parts(root, sizes, disk=None):
    """A run directory with a journal and parts of so many reads; no plan."""
    run = RunDir(root, disk) if disk else RunDir(root)
    run.create()
    journal.create(run)
    start = 0
    for number, size in enumerate(sizes, 1):
        work = {0: Work(prompts=size, unique_tokens=10 * size)}
        progress = BatchProgress(pairs=size, duplicate_tokens=3, work=work)
        commit_part(run, table(range(start, start + size)), number, progress)
        start += size
    return run
