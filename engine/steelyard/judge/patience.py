"""When an engine that gives no sign of life is given up.

A sign of life is whatever an engine completes: a step, which may be one token of each prompt, or a
read. Silence is time in which the engine has work, completes nothing, and its owner is awake and
waits for it; time in which the whole program is stopped does not count. An engine is at rest while
a process of it is stopped, or none computes, loads pages from a disk or could run.

| the engine | is given up after |
|---|---|
| is at rest | 20 s, or 5 times its longest rest so far between two signs |
| computes | 20 minutes, or 20 times its longest silence so far between two signs |
| is loaded, at rest | 2 minutes |
| is loaded, and computes | 2 hours |
| is to stop, after Ctrl-C | 2 s, or twice its longest silence so far; at once while it is loaded |

The time before the first sign, in which kernels may be compiled, is not taken as an example of what
is usual. A warning comes after half the time, after 10 minutes at the latest. An engine that runs
in its owner's process cannot be ended: there the warning is all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from steelyard.core.progress import duration
from steelyard.errors import EngineFailed
from steelyard.judge.processes import Vitals


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds of silence after which an engine is given up, and how they grow."""

    rest: float
    computing: float
    stopping: float
    rests: float  # the limit is at least this many times the longest rest before
    silences: float  # and this many times the longest silence
    doing: str


READING = Limits(20.0, 1200.0, 2.0, 5.0, 20.0, "completed nothing for")
LOADING = Limits(120.0, 7200.0, 0.0, 0.0, 0.0, "been loading for")
WARN_SECONDS = 600.0
STOPPING_SILENCES = 2.0
SAMPLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Owner:
    """Those who wait for a judge, as far as it has something to say to them or to ask."""

    warn: Callable[[str], None] = lambda _: None
    stopping: Callable[[], bool] = lambda: False  # whether the run is to end soon
    progress: Callable[[], None] = lambda: None  # called at each sign of life


class Patience:
    """Follows the silence of one engine.

    Args:
        name: of the engine, as warnings and errors call it.
        vitals: of its processes; None: it runs in this process, and is never given up.
        limits: READING or LOADING.
    """

    def __init__(self, name: str, vitals: Vitals | None, limits: Limits) -> None:
        self._name, self._vitals, self._limits = name, vitals, limits
        self._silence = self._rest = 0.0  # seconds since the last sign, and those at rest of them
        self._longest_silence = self._longest_rest = 0.0
        self._sampled = 0.0  # the silence up to which `_rest` counts
        self._alive = self._warned = False

    def sign(self) -> None:
        """Note a sign of life."""
        if self._alive:
            self._longest_silence = max(self._longest_silence, self._silence)
            self._longest_rest = max(self._longest_rest, self._rest)
        self._silence = self._rest = self._sampled = 0.0
        self._alive, self._warned = True, False

    def wait(self, seconds: float, owner: Owner) -> None:
        """Count seconds of silence; warn the owner when half of the patience is used.

        Raises:
            EngineFailed: the engine is given up. The caller ends its processes.
        """
        self._silence += seconds
        unsampled = self._silence - self._sampled
        if self._vitals is not None and unsampled >= SAMPLE_SECONDS:
            self._sampled = self._silence
            # Short work, such as a thread that looks around, does not excuse a long rest.
            change = unsampled if self._vitals.at_rest() else -unsampled
            self._rest = max(0.0, self._rest + change)
        most_rest, most = self._limits_now(stopping=owner.stopping())
        if self._vitals is not None and (self._rest >= most_rest or self._silence >= most):
            raise self._given_up()
        for passed, limit in ((self._rest, most_rest), (self._silence, most)):
            if not self._warned and passed >= min(limit / 2, WARN_SECONDS):
                self._warned = True
                owner.warn(self._warning(limit - passed))

    def _limits_now(self, *, stopping: bool) -> tuple[float, float]:
        """Return seconds at rest, and seconds of silence, after which the engine is given up."""
        limits = self._limits
        most_rest = max(limits.rest, limits.rests * self._longest_rest)
        if stopping and self._vitals is not None:
            return most_rest, max(limits.stopping, STOPPING_SILENCES * self._longest_silence)
        return most_rest, max(limits.computing, limits.silences * self._longest_silence)

    def _said(self) -> str:
        text = f"{self._name} has {self._limits.doing} {duration(self._silence)}"
        if 2 * self._rest < self._limits.rest:
            return text
        return f"{text}, and its processes have been at rest for {duration(self._rest)}"

    def _warning(self, left: float) -> str:
        if self._vitals is None:
            return f"{self._said()}; if it hangs, kill process {os.getpid()} and resume the run"
        return f"{self._said()}; it is given up if nothing happens for another {duration(left)}"

    def _given_up(self) -> EngineFailed:
        return EngineFailed(
            f"{self._said()}: it was given up",
            effect="prompts in flight were not read; they will be sent again",
            remedy="look for errors of the device in dmesg, then run the same command again",
        )
