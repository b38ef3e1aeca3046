"""What reading takes: counts of tokens, and the engine's cache that decides them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Work:
    """What the prompts that an engine has read took, in tokens.

    Attributes:
        prompts: unique prompts sent to the engine.
        logical_tokens: tokens of all prompts that they stand for, duplicates counted each time.
        unique_tokens: their own tokens.
        floor_tokens: what is left when every shared prefix is computed once, token by token.
        oracle_tokens: what an engine with this engine's block cache should compute; None where
            that cannot be told (several engines, an engine without a known cache).
        computed_tokens: what the engine computed of them, by its own count.
        written_tokens: what it computed behind them, where the judge writes.
        reading_seconds: time from the first prompt to the last read, this bucket's share of it.
        engine_seconds: of those, the ones in which the engine had work.
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
        """Add another's sums to these."""
        self.prompts += other.prompts
        self.logical_tokens += other.logical_tokens
        self.unique_tokens += other.unique_tokens
        self.floor_tokens += other.floor_tokens
        self.computed_tokens += other.computed_tokens
        self.written_tokens += other.written_tokens
        self.reading_seconds += other.reading_seconds
        self.engine_seconds += other.engine_seconds
        if self.oracle_tokens is not None and other.oracle_tokens is not None:
            self.oracle_tokens += other.oracle_tokens
        else:
            self.oracle_tokens = None


@dataclass(slots=True)
class BatchProgress:
    """What reads brought.

    Attributes:
        pairs: pairs whose last missing prompt was among them.
        duplicate_tokens: prompt tokens of their duplicates, which no engine computes.
        work: by bucket; prompts that were never sent to an engine have none.
    """

    pairs: int = 0
    duplicate_tokens: int = 0
    work: dict[int, Work] = field(default_factory=dict)

    def share_time(self, reading: float, engine: float) -> None:
        """Share seconds out among the buckets, by their prompts."""
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
    """An engine's prefix cache and the steps that fill it, as far as they decide what is shared.

    Attributes:
        enabled: whether prompts share at all.
        block: tokens a block; only whole blocks are shared.
        blocks: how many the pool holds.
        step_tokens: tokens that one step computes at most.
        step_prompts: prompts that one step holds at most.
        longest: tokens that a prompt has at most, its answer included.
        steps_in_flight: 2 where a step is scheduled before the one ahead of it has ended.
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
    """What an engine reports after loading; goes into sessions.jsonl."""

    settings: dict[str, Any]
    context_length: int
    versions: dict[str, str] = field(default_factory=dict)
    cache: CacheShape | None = None  # None: the engine has no cache to speak of, or several
