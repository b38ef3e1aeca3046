"""An engine whose every read is a pure function of its prompt, and that fails by a schedule."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from typing_extensions import override

from steelyard.core.batches import ReadBatch
from steelyard.core.judges import JudgeCard
from steelyard.core.schemas import STATUS_ERROR, STATUS_OK
from steelyard.core.work import EngineReport
from steelyard.errors import EngineFailed, JudgeUnavailable
from steelyard.judge.base import EngineClock, Judge
from steelyard.judge.patience import LOADING, READING, Limits, Patience
from steelyard.judge.scripted import ByteEncoder

CONTEXT = 3000
LONGEST_HANG = 10_000  # seconds
_MARK = re.compile(r"\[([QR]\d+)\]")

Prompt = tuple[str, ...]  # the marks of instruction, first and second response


def truth(prompt: Prompt) -> tuple[float, float]:
    """Return the log-probabilities of both labels, different for every prompt."""
    raw = hashlib.blake2b("|".join(prompt).encode(), digest_size=16).digest()
    share, mass = (0.02 + 0.96 * int.from_bytes(raw[start : start + 8]) / 2**64 for start in (0, 8))
    mass = 0.5 + mass / 2
    return math.log(mass * share), math.log(mass * (1 - share))


def marks(text: str) -> Prompt:
    """Return the marks in a text, in their order."""
    return tuple(_MARK.findall(text))


@dataclass
class Script:
    """What an engine does wrong."""

    deaths: tuple[int, ...] = ()  # batches, counted over a session, at which it dies once
    unstartable: bool = False
    hangs: tuple[int, ...] = ()  # batches at which it hangs once
    computes: bool = False  # while it hangs; else it is at rest
    loads_that_hang: int = 0
    poison: frozenset[Prompt] = frozenset()  # prompts that kill it, always
    broken: frozenset[Prompt] = frozenset()  # prompts whose numbers are never finite
    shaky: frozenset[Prompt] = frozenset()  # prompts whose numbers are not finite the first time
    stop_at: int | None = None  # batch at which the user presses Ctrl-C
    fired: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Vitals:
    computes: bool

    def at_rest(self) -> bool:
        return not self.computes


class SimulatedJudge(Judge):
    """A judge in this process."""

    def __init__(self, script: Script, stop) -> None:
        self.card = JudgeCard("simulated", "simulated", "1", "0", ByteEncoder.digest, "float64")
        self.encoder = ByteEncoder()
        self.clock = EngineClock()
        self.context_length = CONTEXT
        self.asked: Counter[Prompt] = Counter()
        self.answered: list[Prompt] = []
        self._script, self._stop = script, stop
        self._batches = 0
        self._started = False

    @override
    def start(self, workload, answer) -> EngineReport:
        if self._script.fired["hang while it loads"] < self._script.loads_that_hang:
            self._script.fired["hang while it loads"] += 1
            self._hang(LOADING)
        if self._script.unstartable:
            self._script.fired["unstartable"] += 1
            raise JudgeUnavailable("the simulated engine does not load", remedy="try again")
        self._started = True
        return EngineReport({}, self.context_length)

    @override
    def read(self, batches):
        if not self._started:
            raise EngineFailed("the simulated engine is not started", remedy="call start first")
        for batch in batches:
            if not len(batch):
                continue
            self._batches += 1
            if self._batches == self._script.stop_at:
                self._script.fired["stop"] += 1
                self._stop.set()
            prompts = [
                marks(bytes(id_ for id_ in batch.ids(i) if id_ < 256).decode())
                for i in range(len(batch))
            ]
            self.asked.update(prompts)
            if self._batches in self._script.deaths:
                self._script.fired["death"] += 1
                self._die()
            if self._batches in self._script.hangs:
                self._script.fired["hang"] += 1
                self._started = False
                self._hang(READING)
            if self._script.poison.intersection(prompts):
                self._script.fired["poison"] += 1
                self._die()
            yield self._answer(batch, prompts)

    def _hang(self, limits: Limits) -> None:
        """Be silent, by a separate clock, until it is given up."""
        patience = Patience("simulated", _Vitals(self._script.computes), limits)
        for _ in range(LONGEST_HANG):
            patience.wait(1.0, self.owner)
        raise AssertionError("an engine that hangs was never given up")

    def _die(self) -> None:
        self._started = False
        raise EngineFailed("the simulated engine died", remedy="start it again")

    def _answer(self, batch, prompts: list[Prompt]) -> ReadBatch:
        bad = []
        for prompt in prompts:
            shaky = prompt in self._script.shaky and self.asked[prompt] == 1
            bad.append(shaky or prompt in self._script.broken)
        self.answered += [prompt for prompt, wrong in zip(prompts, bad, strict=True) if not wrong]
        self._script.fired["not finite"] += any(bad)
        values = np.asarray([truth(prompt) for prompt in prompts])
        mass = np.exp(values).sum(axis=1)
        values[bad] = np.nan
        count = len(batch)
        return ReadBatch(
            keys=batch.keys,
            buckets=np.full(count, batch.bucket, dtype=np.int32),
            status=[STATUS_ERROR if wrong else STATUS_OK for wrong in bad],
            label_logprobs=values,
            label_mass=mass,
            argmax_outside=np.zeros(count, dtype=np.bool_),
            truncated=batch.truncated,
            prompt_tokens=batch.rows.lengths.astype(np.int32),
            cached_tokens=np.zeros(count, dtype=np.int32),
            errors=["not finite" if wrong else None for wrong in bad],
        )

    @override
    def close(self) -> None:
        self._started = False
