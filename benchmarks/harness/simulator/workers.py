"""Lives in several processes. A life that takes too long, or kills its process, is a violation."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

from harness.simulator.life import Result, live
from harness.simulator.plants import PLANTS
from harness.simulator.schedule import Census, expand

_CONTEXT = multiprocessing.get_context("spawn")


def folder() -> str:
    """Return where runs live: in memory, if the machine allows it."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else tempfile.gettempdir()


class Workers:
    """Processes that live lives.

    Args:
        count: how many.
        census: what schedules choose from.
        limit: seconds that a life may take.
        place: a folder for their runs.
        plant: a known bug to put into them.
    """

    def __init__(
        self,
        count: int,
        census: dict[str, Census],
        *,
        limit: float,
        place: Path,
        plant: str | None = None,
    ) -> None:
        self._census, self._limit, self._place, self._plant = census, limit, place, plant
        self._doing: dict[Connection, int] = {}
        self._processes: dict[Connection, object] = {}
        self._count = count

    def live(self, seeds: Iterator[int]) -> Iterator[Result]:
        """Yield what comes of each seed, in the order in which lives end."""
        try:
            for _ in range(self._count):
                self._begin(seeds)
            while self._doing:
                for ready in wait(list(self._doing)):
                    yield self._take(ready, seeds)
        finally:
            for process in self._processes.values():
                process.kill()
                process.join()

    def _begin(self, seeds: Iterator[int]) -> None:
        mine, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(
            target=_work,
            args=(theirs, self._census, self._limit, self._place, self._plant),
            daemon=True,
        )
        process.start()
        theirs.close()
        self._processes[mine] = process
        self._next(mine, seeds)

    def _next(self, worker: Connection, seeds: Iterator[int]) -> None:
        seed = next(seeds, None)
        if seed is None:
            self._doing.pop(worker, None)
        else:
            self._doing[worker] = seed
            worker.send(seed)

    def _take(self, worker: Connection, seeds: Iterator[int]) -> Result:
        try:
            result = worker.recv()
        except EOFError:
            seed = self._doing.pop(worker)
            process = self._processes.pop(worker)
            process.join()
            self._begin(seeds)
            words = f"it hangs, or its process died ({process.exitcode}); stderr has the stacks"
            return Result(seed, violation=words)
        if result.violation:  # what it left may disturb the next
            self._processes.pop(worker).kill()
            self._doing.pop(worker)
            self._begin(seeds)
        else:
            self._next(worker, seeds)
        return result


def _work(
    parent: Connection, census: dict[str, Census], limit: float, place: Path, plant: str | None
) -> None:
    noise: list[str] = []
    threading.excepthook = lambda args: noise.append(f"in {args.thread}: {args.exc_value!r}")
    sys.unraisablehook = lambda args: noise.append(f"{args.object!r}: {args.exc_value!r}")
    if plant:
        PLANTS[plant]()
    while True:
        try:
            seed = parent.recv()
        except EOFError:
            return
        faulthandler.dump_traceback_later(limit, exit=True)
        result = live(expand(seed, census), place / str(os.getpid()))
        faulthandler.cancel_dump_traceback_later()
        if noise and not result.violation:
            result.violation = f"errors that nobody caught: {noise[:3]}"
        noise.clear()
        parent.send(result)
