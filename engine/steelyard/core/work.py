"""What reading takes: counts of tokens, and the engine's prefix cache that decides them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class Work:
    """What it took an engine to read prompts, in tokens.

    Attributes:
        prompts: unique prompts sent to the engine.
        logical_tokens: tokens of all prompts that they stand for, duplicates counted each time.
        unique_tokens: their own tokens.
        floor_tokens: what is left when every shared prefix is computed once, token by token.
        oracle_tokens: what an engine with this engine's block cache should compute; None where
            that is unknown (several engines, or an engine without a known cache).
        computed_tokens: what the engine computed of them, by its own count.
        written_tokens: what it computed after them, where the judge writes.
        reading_seconds: this bucket's share of the time from the first prompt to the last read.
        engine_seconds: the part of it in which the engine had work.
    """

    prompts: int = 0
    logical_tokens: int = 0
    unique_tokens: int = 0
    floor_tokens: int = 0
    oracle_tokens: int | None = 0
    computed_tokens: int = 0
    written_tokens: int = 0
    reading_seconds: float = 0.0
    engine_seconds: float = 0.0

    def add(self, other: Work) -> None:
        """Add another's sums to these; what is unknown in one is unknown in the sum."""
        for entry in fields(self):
            mine, theirs = getattr(self, entry.name), getattr(other, entry.name)
            known = mine is not None and theirs is not None
            setattr(self, entry.name, mine + theirs if known else None)


@dataclass(slots=True)
class BatchProgress:
    """What a batch of reads adds to a run.

    Attributes:
        pairs: pairs whose last missing prompt was among them.
        duplicate_tokens: prompt tokens of their duplicates, which no engine computes.
        work: by bucket; prompts that were never sent to an engine have none.
    """

    pairs: int = 0
    duplicate_tokens: int = 0
    work: dict[int, Work] = field(default_factory=dict)

    def share_time(self, reading: float, engine: float) -> None:
        """Divide seconds among the buckets in proportion to their prompts."""
        prompts = sum(work.prompts for work in self.work.values())
        for work in self.work.values():
            work.reading_seconds += reading * work.prompts / prompts
            work.engine_seconds += engine * work.prompts / prompts

    def add(self, other: BatchProgress) -> None:
        """Add another's sums to these."""
        self.pairs += other.pairs
        self.duplicate_tokens += other.duplicate_tokens
        for bucket, work in other.work.items():
            self.work.setdefault(bucket, Work()).add(work)


@dataclass(frozen=True, slots=True)
class CacheShape:
    """An engine's prefix cache and its steps, as far as they decide what prompts share.

    Attributes:
        enabled: whether prompts share at all.
        block: tokens per block; only whole blocks are shared.
        blocks: blocks in the pool.
        step_tokens: tokens per engine step, at most.
        step_prompts: prompts per engine step, at most.
        longest: tokens of a prompt and its answer, at most.
        steps_in_flight: 2 where a step is scheduled before the previous one has ended.
    """

    enabled: bool
    block: int
    blocks: int
    step_tokens: int
    step_prompts: int
    longest: int
    steps_in_flight: int = 1


@dataclass(slots=True)
class EngineReport:
    """What an engine reports after loading; it is written to sessions.jsonl."""

    settings: dict[str, Any]
    context_length: int
    versions: dict[str, str] = field(default_factory=dict)
    cache: CacheShape | None = None  # None: no known cache, or several engines
