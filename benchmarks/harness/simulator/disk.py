"""A disk that fails by a schedule: errors, short writes, a kill at any call, visitors in between.

Calls are counted by thread, kind and place (what the file is for), so that a schedule hits the same
call whatever else goes on at the same time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from harness.simulator.power import PowerModel
from steelyard.store.disk import Disk

PLACES = (  # a run directory's entries by what they are for; the first that fits
    (r"\.\..*", "above"),
    (r"\.", "run"),
    (r"lock", "lock"),
    (r"run\.json.*", "record"),
    (r"journal\.jsonl.*", "journal"),
    (r"complete\.json.*", "complete"),
    (r"reads", "reads"),
    (r"reads/damaged.*", "damaged"),
    (r"reads/.*", "part"),
    (r"(plan|rejects)(\.tmp)?", "plan"),
    (r"(plan|rejects)(\.tmp)?/plan\.json.*", "manifest"),
    (r"(plan|rejects)(\.tmp)?/.*", "plan file"),
    (r"(sessions|telemetry)\.jsonl", "log"),
    (r"verdicts\.duckdb.*", "database"),
    (r".*", "other"),
)
CREATING = {"write", "make_folder", "create"}
ROLES = {  # threads by name; all others are Arrow's, which read for somebody who waits
    "MainThread": "main",
    "part-writer": "writer",
    "prompt-maker": "feeder",
    "telemetry": "sampler",
    "bucket-writer": "scatterer",
}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Killed(BaseException):
    """The process ends here; nothing that it does from now on reaches the disk."""


@dataclass(frozen=True)
class Event:
    """What happens at the n-th call of a kind, at a place, by a thread.

    `action` is error, short, full, kill, or the name of a visitor; `late`: after the call.
    """

    role: str
    kind: str
    place: str
    nth: int
    action: str
    error: int = 0
    late: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """Which calls are counted."""
        return self.role, self.kind, self.place

    def __str__(self) -> str:
        what = errno.errorcode[self.error] if self.error else self.action
        when = "after" if self.late else "at"
        return f"{what} {when} {self.kind} {self.place} #{self.nth} of {self.role}"


class FaultyDisk(Disk):
    """A real folder below `top`, as one process sees it."""

    def __init__(
        self,
        root: Path,
        events: list[Event],
        power: PowerModel | None,
        visit: Callable[[str], None],
        on_commit: Callable[[], None],
    ) -> None:
        self.root, self.power = str(root), power
        self.events = {(*event.key, event.nth): event for event in events}
        self.fired: list[Event] = []
        self.census: Counter[tuple[str, str, str]] = Counter()
        self.steps = 0
        self.trace: list[str] | None = None
        self._visit, self._on_commit = visit, on_commit
        self._names: dict[int, str] = {}
        self._frozen = self._full = False
        self._serial = threading.RLock()
        self._ticks, self._seconds = 0, 0.0

    def freeze(self) -> None:
        """End the process: no call has an effect from now on."""
        self._frozen = True

    def release(self) -> None:
        """Close what a process that has ended left open, and its lock with it."""
        with self._serial:
            for handle in self._names:
                os.close(handle)
            self._names.clear()

    @property
    def open_names(self) -> list[str]:
        """Names of what is open."""
        return sorted(self._names.values())

    def _call(self, kind: str, name: str, act: Callable[[Event | None], object]) -> object:
        with self._serial:
            if self._frozen:
                raise Killed
            self.steps += 1
            role = ROLES.get(threading.current_thread().name, "arrow")
            place = place_of(name)
            key = role, kind, place
            self.census[key] += 1
            event = self.events.get((*key, self.census[key]))
            if self.trace is not None:
                self.trace.append(f"{role} {kind} {name}{f'   <- {event}' if event else ''}")
            if event is not None:
                self.fired.append(event)
            return self._act(kind, event, act)

    def _act(self, kind: str, event: Event | None, act: Callable[[Event | None], object]) -> object:
        if event is not None and not event.late:
            if event.action == "error":
                raise OSError(event.error, os.strerror(event.error))
            if event.action == "kill":
                self.freeze()
                raise Killed
            if event.action not in {"full", "short"}:
                self._visit(event.action)
        if self._full and kind in CREATING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        result = act(event)
        if event is not None and event.action == "full":
            self._full = True  # what was written just now is a part of it
        if event is not None and event.late:
            if event.action == "kill":
                self.freeze()
                raise Killed
            raise OSError(event.error, os.strerror(event.error))
        return result

    def _name(self, name: str, folder: int | None) -> str:
        if folder is None:
            return os.path.relpath(name, self.root)
        return os.path.normpath(f"{self._names[folder]}/{name}")

    @override
    def open_folder(self, name: str, folder: int | None = None) -> int:
        full = self._name(name, folder)

        def act(_):
            handle = super(FaultyDisk, self).open_folder(name, folder)
            self._names[handle] = full
            if self.power:
                self.power.opened(handle, full)
            return handle

        return self._call("open_folder", full, act)

    @override
    def open_file(self, name: str, flags: int, folder: int) -> int:
        full = self._name(name, folder)
        new = bool(flags & os.O_CREAT) and not _exists(name, folder)

        def act(_):
            handle = super(FaultyDisk, self).open_file(name, flags, folder)
            self._names[handle] = full
            if self.power:
                if new:
                    self.power.created(full, is_folder=False)
                self.power.opened(handle, full)
            return handle

        return self._call("create" if new else "open", full, act)

    @override
    def close(self, handle: int) -> None:
        with self._serial:
            if self._names.pop(handle, None) is None:
                return  # of a process that has ended
            super().close(handle)
            if self.power:
                self.power.closed(handle)

    @override
    def status(self, name: str, folder: int) -> os.stat_result:
        full = self._name(name, folder)
        return self._call("status", full, lambda _: super(FaultyDisk, self).status(name, folder))

    @override
    def names(self, folder: int) -> list[str]:
        act = super().names
        return self._call("names", self._names[folder], lambda _: act(folder))

    @override
    def read(self, handle: int, size: int) -> bytes:
        act = super().read
        return self._call("read", self._names[handle], lambda _: act(handle, size))

    @override
    def write(self, handle: int, data) -> int:
        write = super().write

        def act(event: Event | None) -> int:
            view = memoryview(data).cast("B")
            partly = event is not None and (event.action in {"short", "full"} or event.late)
            return write(handle, view[: max(1, len(view) // 3)] if partly else view)

        return self._call("write", self._names[handle], act)

    @override
    def truncate(self, handle: int, size: int) -> None:
        act = super().truncate
        self._call("truncate", self._names[handle], lambda _: act(handle, size))

    @override
    def sync(self, handle: int) -> None:
        sync, name = super().sync, self._names[handle]

        def act(_):
            sync(handle)
            if self.power:
                self.power.synced(handle)

        self._call("sync", name, act)
        if name == "journal.jsonl":
            self._on_commit()  # the caller knows it now

    @override
    def make_folder(self, name: str, folder: int | None = None) -> None:
        full = self._name(name, folder)

        def act(_):
            super(FaultyDisk, self).make_folder(name, folder)
            if self.power:
                self.power.created(full, is_folder=True)

        self._call("make_folder", full, act)

    @override
    def rename(self, name: str, folder: int, new_name: str, new_folder: int) -> None:
        old, new = self._name(name, folder), self._name(new_name, new_folder)

        def act(_):
            super(FaultyDisk, self).rename(name, folder, new_name, new_folder)
            if self.power:
                self.power.renamed(old, new)

        self._call("rename", new, act)

    @override
    def remove(self, name: str, folder: int) -> None:
        full = self._name(name, folder)

        def act(_):
            super(FaultyDisk, self).remove(name, folder)
            if self.power:
                self.power.removed(full)

        self._call("remove", full, act)

    @override
    def remove_tree(self, name: str, folder: int) -> None:
        full = self._name(name, folder)

        def act(_):
            super(FaultyDisk, self).remove_tree(name, folder)
            if self.power:
                self.power.removed(full)

        self._call("remove_tree", full, act)

    @override
    def lock(self, handle: int, operation: int) -> None:
        self._call("lock", self._names[handle], lambda _: fcntl.flock(handle, operation))

    @override
    def sync_everything(self) -> None:
        def act(_):
            if self.power:
                self.power.synced_everything()

        self._call("sync_everything", ".", act)

    @override
    def seconds(self) -> float:  # each look at the clock takes a second
        with self._serial:
            self._seconds += 1.0
            return self._seconds

    @override
    def now_ns(self) -> int:
        with self._serial:
            self._ticks += 1_000_000
            return 1_700_000_000_000_000_000 + self._ticks


def place_of(name: str) -> str:
    """Return what an entry of a run directory is for."""
    return next(place for pattern, place in PLACES if re.fullmatch(pattern, name))


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
