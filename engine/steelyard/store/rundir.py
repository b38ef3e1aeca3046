"""The run directory: its paths, its log of sessions, and the lock of its one writer."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steelyard.errors import RunLocked, UsageError, escape
from steelyard.store.durable import writing


class RunDir:
    """The paths of a run directory. Creates nothing by itself."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record_file = root / "run.json"  # config, fingerprints, versions, host; written once
        self.sessions = root / "sessions.jsonl"  # a line when an engine is loaded, and at its end
        self.plan = root / "plan"  # exists as a whole or not at all
        self.images = root / "images"  # of the rows, each once
        self.reads = root / "reads"  # parts: immutable; only those in the journal count
        self.rejects = root / "rejects"  # refused rows
        self.imported = root / "imported"  # verdicts made elsewhere, in a run that has no reads
        self.database = root / "verdicts.duckdb"  # the hand-off file
        self.calibration = root / "calibration.json"  # the calibrator of the verdicts, if any

    def check(self) -> None:
        """Check that there is a run, or that one can be made.

        Raises:
            UsageError: the path is a file, or a folder with something else in it.
        """
        nearest = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        if not nearest.is_dir():
            raise UsageError(
                "the run directory is a file, or below one",
                place=str(nearest),
                effect="nothing was written",
                remedy="name a new folder with --run",
            )
        ours = {"lock", "reads", "run.json.tmp", "journal.jsonl", "journal.jsonl.tmp"}
        ours |= {"imported", "imported.tmp"}
        if self.root.is_dir() and not self.record_file.exists():
            strange = [entry.name for entry in self.root.iterdir() if entry.name not in ours]
            if strange:
                raise UsageError(
                    f"the folder is not a run and holds {escape(strange[0])}",
                    place=str(self.root),
                    effect="nothing was written",
                    remedy="name a new or empty folder with --run",
                )

    def create(self) -> None:
        """Make the folders of a new run."""
        with writing(self.root):
            self.reads.mkdir(parents=True, exist_ok=True)

    def log_session(self, event: str, **content: Any) -> None:  # noqa: ANN401 - JSON values
        """Append what an engine reports of itself."""
        line = {"event": event, "at": now(), "pid": os.getpid(), **content}
        with writing(self.sessions), self.sessions.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, default=str) + "\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run directory as its one writer; the lock ends with the process.

        Raises:
            RunLocked: another process holds it.
        """
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(handle, 80, 0).decode("ascii", "replace").strip()
                raise RunLocked(
                    f"another process writes to this run ({escape(owner) or 'unknown'})",
                    place=str(self.root),
                    remedy="wait for it or end it; `steelyard status` shows its progress",
                ) from None
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} since {now()}".encode(), 0)
            yield
        finally:
            os.close(handle)

    def locked(self) -> bool:
        """Return whether a writer is at work now."""
        try:
            handle = os.open(self.root / "lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(handle)


def now() -> str:
    """Return the time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
