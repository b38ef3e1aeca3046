"""What reading takes: counts of tokens, and the engine's prefix cache that decides them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class Work:
    """What it took an engine to read prompts."""

    prompts: int = 0  # unique prompts sent to the engine
    logical_tokens: int = 0  # of all prompts that they stand for, duplicates counted each time
    unique_tokens: int = 0  # their own
    floor_tokens: int = 0  # left when every shared prefix is computed once, token by token
    # What an engine with this engine's block cache should compute; None: unknown, with several
    # engines or an engine without a known cache.
    oracle_tokens: int | None = 0
    computed_tokens: int = 0  # what the engine computed of them, by its own count
    written_tokens: int = 0  # what it computed after them, where the judge writes
    reading_seconds: float = 0.0  # this bucket's share of the time from first prompt to last read
    engine_seconds: float = 0.0  # the part of it in which the engine had work

    def add(self, other: Work) -> None:
        """Add another's sums to these; what is unknown in one is unknown in the sum."""
        for entry in fields(self):
            mine, theirs = getattr(self, entry.name), getattr(other, entry.name)
            known = mine is not None and theirs is not None
            setattr(self, entry.name, mine + theirs if known else None)


@dataclass(slots=True)
class BatchProgress:
    """What a batch of reads adds to a run."""

    pairs: int = 0  # pairs whose last missing prompt was among them
    duplicate_tokens: int = 0  # prompt tokens of their duplicates, which no engine computes
    # By bucket; prompts that were never sent to an engine have none.
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
    """An engine's prefix cache and its steps, as far as they decide what prompts share."""

    enabled: bool  # whether prompts share at all
    block: int  # tokens per block; only whole blocks are shared
    blocks: int  # blocks in the pool
    step_tokens: int  # tokens per engine step, at most
    step_prompts: int  # prompts per engine step, at most
    longest: int  # tokens of a prompt and its answer, at most
    steps_in_flight: int = 1  # 2 where a step is scheduled before the previous one has ended


@dataclass(slots=True)
class EngineReport:
    """What an engine reports after loading; it is written to sessions.jsonl."""

    settings: dict[str, Any]
    context_length: int
    versions: dict[str, str] = field(default_factory=dict)
    cache: CacheShape | None = None  # None: no known cache, or several engines
