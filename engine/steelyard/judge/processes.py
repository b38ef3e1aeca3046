"""What the system knows of an engine's processes, from /proc, and how they are ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import process as multiprocessing_process
from pathlib import Path
from typing import NamedTuple

UNENDING = (
    "process {pid} of {name} cannot be ended, as in a driver that hangs: it may still hold the"
    " memory of its GPU"
)
_PROC = Path("/proc")
_ENDED, _STOPPED, _RUNNABLE = "ZX", "Tt", "R"
_END_SECONDS = 10.0
# A process whose threads only look whether there is work takes less than this share of a core.
_LITTLE = 0.02


class _Stat(NamedTuple):
    state: str
    parent: int
    faults: int  # pages loaded from a disk
    ticks: int  # of processor time


def tree(roots: Iterable[int]) -> set[int]:
    """Return these processes and all that descend from them, as far as they exist."""
    children: dict[int, list[int]] = {}
    for pid, stat in _processes():
        children.setdefault(stat.parent, []).append(pid)
    members: set[int] = set()
    left = [pid for pid in roots if _stat(_PROC / str(pid)) is not None]
    while left:
        pid = left.pop()
        if pid not in members:
            members.add(pid)
            left += children.get(pid, ())
    return members


def children(pid: int) -> set[int]:
    """Return the processes that a process has started and that have not ended."""
    return {
        child for child, stat in _processes() if stat.parent == pid and stat.state not in _ENDED
    }


def end(roots: Iterable[int]) -> set[int]:
    """Kill processes with all that descend from them, and wait until they are gone.

    SIGKILL also ends a process that is stopped. One that hangs in a driver it ends later or never.
    Such a process is forgotten, so that the end of this program does not wait for it.

    Returns:
        those that were still there after ten seconds.
    """
    left = tree(roots)
    for pid in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _END_SECONDS
    while left := {pid for pid in left if _exists(pid)}:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    for child in multiprocessing.active_children():  # also collects those that have ended
        if child.pid in left:
            multiprocessing_process._children.discard(child)  # type: ignore[attr-defined]
    return left


class Vitals:
    """Whether an engine's processes are at work.

    Args:
        roots: returns their ids; what descends from them belongs to the engine as well.
    """

    def __init__(self, roots: Callable[[], Iterable[int]]) -> None:
        self._roots = roots
        self._last: tuple[float, int, int] | None = None

    def at_rest(self) -> bool:
        """Return whether nothing has happened in the processes since the last call.

        At rest is an engine of which a process is stopped, or one that took almost no processor
        time, loaded no page from a disk and has no thread that could run. What cannot be known,
        as at the first call, counts as work.
        """
        stats = {pid: _stat(_PROC / str(pid)) for pid in tree(self._roots())}
        known = [stat for stat in stats.values() if stat is not None]
        before, now = self._last, time.monotonic()
        ticks, faults = (sum(stat.ticks for stat in known), sum(stat.faults for stat in known))
        self._last = now, ticks, faults
        if not known:
            return False
        if any(stat.state in _STOPPED for stat in known):
            return True
        if before is None or faults != before[2]:
            return False
        allowed = 1 + _LITTLE * (now - before[0]) * os.sysconf("SC_CLK_TCK")
        return abs(ticks - before[1]) <= allowed and not any(map(_could_run, stats))


def _could_run(pid: int) -> bool:
    stats = (_stat(thread) for thread in _listed(_PROC / str(pid) / "task"))
    return any(stat is not None and stat.state in _RUNNABLE for stat in stats)


def _exists(pid: int) -> bool:
    stat = _stat(_PROC / str(pid))
    return stat is not None and stat.state not in _ENDED


def _processes() -> Iterator[tuple[int, _Stat]]:
    for entry in _listed(_PROC):
        if entry.name.isdigit() and (stat := _stat(entry)) is not None:
            yield int(entry.name), stat


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _stat(entry: Path) -> _Stat | None:
    """Read the `stat` of a process or thread; see proc(5). None if it is gone."""
    try:
        content = (entry / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = content.rpartition(")")[2].split()  # the name before it may hold anything
    return _Stat(fields[0], int(fields[1]), int(fields[9]), int(fields[11]) + int(fields[12]))
