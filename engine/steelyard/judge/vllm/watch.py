"""A thread that notices when vLLM's engine dies or hangs, and wakes the reader that waits."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

from steelyard.errors import EngineFailed
from steelyard.judge import processes
from steelyard.judge.patience import LOADING, READING, Limits, Owner, Patience

_LOOK_SECONDS = 0.5


class EngineWatch:
    """Follows one engine, while it is loaded and in each step.

    An engine in a separate process that hangs (`patience.py`) is killed. One that runs in this
    process cannot be ended; its owner is warned.

    Args:
        name: of the judge.
        owner: is warned, and says whether the run is to be stopped.
    """

    def __init__(self, name: str, owner: Owner) -> None:
        self._name, self._owner = name, owner
        self._separate, self._before = False, set[int]()
        self._patience: Patience | None = None
        self._core: Any = None
        self._steps = self._seen = 0  # completed; of which the thread knows
        self._in_step = False
        self._ended = threading.Event()
        self.failure: EngineFailed | None = None  # why the engine was given up

    @contextlib.contextmanager
    def loading(self, *, separate: bool) -> Iterator[None]:
        """Watch an engine that is built inside, in a separate process or in this one."""
        self._separate, self._before = separate, processes.children(os.getpid())
        self._in_step = True
        self._patience = self._new_patience(LOADING)
        threading.Thread(target=self._watch, name="engine-watch", daemon=True).start()
        try:
            yield
        finally:
            self._in_step = False

    def reading(self, core: Any) -> None:
        """Watch the steps from now on; `core` is vLLM's client of a separate process, or None."""
        self._core = core
        self._patience = self._new_patience(READING)

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Watch an engine step, and report it to the owner."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False
        self._steps += 1
        self._owner.progress()

    def close(self) -> None:
        """End the thread, without waiting for it."""
        self._ended.set()

    def _new_patience(self, limits: Limits) -> Patience:
        vitals = processes.Vitals(self._processes) if self._separate else None
        return Patience(self._name, vitals, limits)

    def _processes(self) -> set[int]:
        """Return the processes that were started since loading began."""
        return processes.children(os.getpid()) - self._before

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            if self._core is not None and self._core.resources.engine_dead:
                # vLLM 0.32 notices this, but its step waits for ever.
                self._wake(RuntimeError("the engine's process has ended"))
                return
            try:
                self._look()
            except EngineFailed as hung:
                self._give_up(hung)
                return

    def _give_up(self, hung: EngineFailed) -> None:
        self.failure = hung
        for pid in processes.end(self._processes()):
            self._owner.warn(processes.UNENDING.format(pid=pid, name=self._name))
        self._wake(hung)

    def _wake(self, error: Exception) -> None:
        """End the step that waits for the engine, if one does."""
        if self._core is not None:
            self._core.outputs_queue.put_nowait(error)

    def _look(self) -> None:
        """Count the time since the last look. All of `Patience` happens in this thread."""
        patience = self._patience
        if patience is None:
            return
        if self._steps != self._seen:
            self._seen = self._steps
            patience.sign()
        elif self._in_step:
            patience.wait(_LOOK_SECONDS, self._owner)
