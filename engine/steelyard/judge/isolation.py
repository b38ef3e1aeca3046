"""A prompt that kills the engine ends as an error read, and the run goes on.

When the engine dies, the prompts in flight are suspects. They are read again in halves until the
culprit is alone; a prompt is given up at its third crash, if it was alone in the last one. Reads
that are not finite are repeated with other prompts, up to three times.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator

import numpy as np

from steelyard.core.batches import PromptBatch, ReadBatch, TokenRows
from steelyard.core.schemas import STATUS_ERROR
from steelyard.errors import EngineFailed
from steelyard.judge.base import Judge

MAX_CRASHES = MAX_FAILURES = 3
LOGGED_CRASHES = 10  # each of these is logged; then every hundredth
# This many prompts in a row that each kill the engine alone: the engine is broken, not the prompts.
MAX_LONE_CRASHES = 8
# The judge takes prompts in small batches, so that it can stop soon: what it took, it reads.
BATCH_PROMPTS = 32

_Prompt = tuple[PromptBatch, int]  # a batch, and the index in it


class PoisonIsolation:
    """Wraps a started judge; `read` has the same contract, without the engine's deaths.

    `restart` loads the engine again after it died; `on_event` shows the user what happened. Once
    the judge's owner wants to stop, nothing is read again and no engine is restarted.
    """

    def __init__(
        self, judge: Judge, restart: Callable[[], object], on_event: Callable[[str], None]
    ) -> None:
        self._judge, self._restart, self._on_event = judge, restart, on_event
        self._flight: dict[bytes, _Prompt] = {}
        self._strikes: Counter[bytes] = Counter()  # crashes at which a prompt was in flight
        self._failures: Counter[bytes] = Counter()  # reads of a prompt that were not finite
        self._retry: deque[_Prompt] = deque()
        self._dead = False
        self._lone_deaths = 0
        self._deaths = 0

    def read(self, batches: Iterator[PromptBatch]) -> Iterator[ReadBatch]:
        """Read all prompts; those given up come back with status error.

        Raises:
            EngineFailed: the engine dies whatever it reads, or died while the run is stopped.
        """
        source = iter(batches)
        while True:
            try:
                yield from self._attempt(source)
                if not self._retry or self._judge.owner.stopping():
                    return
            except EngineFailed as error:
                yield from self._bisect(error)

    def _attempt(self, batches: Iterator[PromptBatch]) -> Iterator[ReadBatch]:
        if self._dead and self._judge.owner.stopping():
            return
        if self._dead:
            self._restart()
            self._dead = False
        for reads in self._judge.read(self._track(batches)):
            self._lone_deaths = 0
            yield from self._settle(reads)

    def _track(self, batches: Iterator[PromptBatch]) -> Iterator[PromptBatch]:
        """Remember what goes in; prompts to be repeated come before new ones."""
        while True:
            yield from map(self._remember, self._again(self._retry))
            following = next(batches, None)
            if following is None:
                return
            yield self._remember(following)

    def _again(self, prompts: deque[_Prompt]) -> Iterator[PromptBatch]:
        """Take prompts that are read again; those that no judge has pulled stay in `prompts`."""
        while prompts and not self._judge.owner.stopping():
            bucket, taken = prompts[0][0].bucket, [prompts.popleft()]
            while prompts and len(taken) < BATCH_PROMPTS and prompts[0][0].bucket == bucket:
                taken.append(prompts.popleft())
            yield _join(taken)

    def _remember(self, batch: PromptBatch) -> PromptBatch:
        self._flight |= {key: (batch, index) for index, key in enumerate(batch.keys)}
        return batch

    def _settle(self, reads: ReadBatch) -> Iterator[ReadBatch]:
        """Forget what was read; keep what has to be repeated."""
        kept = []
        for index, (key, status) in enumerate(zip(reads.keys, reads.status, strict=True)):
            prompt = self._flight.pop(key)
            if status == STATUS_ERROR:
                self._failures[key] += 1
                if self._failures[key] < MAX_FAILURES:
                    self._retry.append(prompt)
                    continue
            kept.append(index)
        if kept:
            yield reads if len(kept) == len(reads) else reads.take(np.asarray(kept))

    def _bisect(self, error: EngineFailed) -> Iterator[ReadBatch]:
        """Read the suspects in ever smaller groups."""
        groups = deque([self._suspects(error)])
        while groups and not self._judge.owner.stopping():
            group = deque(groups.popleft())
            if self._dead and (self._deaths <= LOGGED_CRASHES or self._deaths % 100 == 0):
                self._on_event(
                    f"the engine died ({self._deaths} times so far; {error.cause});"
                    f" restarting it to find the cause among {len(group)} prompts"
                )
            try:
                yield from self._attempt(self._again(group))
                continue
            except EngineFailed as again:
                left = self._suspects(again)
            if group:  # not pulled, so not suspected: after those that were
                groups.appendleft(list(group))
            batch, index = left[0]
            if len(left) > 1:
                half = len(left) // 2
                groups.extendleft((left[half:], left[:half]))
            elif self._strikes[batch.keys[index]] < MAX_CRASHES:
                groups.appendleft(left)
            else:
                self._lone_deaths += 1
                if self._lone_deaths >= MAX_LONE_CRASHES:
                    raise error
                reason = f"the engine died {MAX_CRASHES} times: {error.cause}"
                yield failed_reads(_join(left), STATUS_ERROR, [reason])

    def _suspects(self, error: EngineFailed) -> list[_Prompt]:
        self._dead = True
        self._deaths += 1
        flight, self._flight = self._flight, {}
        if not flight or self._judge.owner.stopping():
            raise error
        self._strikes.update(flight.keys())
        return list(flight.values())


def _join(prompts: list[_Prompt]) -> PromptBatch:
    return PromptBatch(
        bucket=prompts[0][0].bucket,
        keys=[batch.keys[index] for batch, index in prompts],
        rows=TokenRows.of([batch.rows[index] for batch, index in prompts]),
        truncated=np.asarray([batch.truncated[index] for batch, index in prompts]),
        images=[batch.images_of(index) for batch, index in prompts],
    )


def failed_reads(batch: PromptBatch, status: str, reasons: list[str]) -> ReadBatch:
    """Make reads without numbers, for prompts that no engine read."""
    count = len(batch)
    return ReadBatch(
        keys=batch.keys,
        buckets=np.full(count, batch.bucket, dtype=np.int32),
        status=[status] * count,
        label_logprobs=np.full((count, 1), np.nan),
        label_mass=np.full(count, np.nan),
        argmax_outside=np.zeros(count, dtype=np.bool_),
        truncated=batch.truncated,
        prompt_tokens=batch.rows.lengths.astype(np.int32),
        cached_tokens=np.zeros(count, dtype=np.int32),
        errors=list(reasons),
    )
