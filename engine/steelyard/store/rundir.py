"""The run directory: its files, its logs, and the lock of its one writer."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steelyard.core.sealed import seal, unseal
from steelyard.errors import RunLocked, UsageError, escape
from steelyard.store.disk import DISK, Disk, is_alive
from steelyard.store.durable import TEMPORARY, writing
from steelyard.store.folder import Folder

RECORD = "run.json"  # config, fingerprints, versions, host; written once
JOURNAL = "journal.jsonl"  # the commit log
COMPLETE = "complete.json"  # what the journal held when all prompts were read
SESSIONS = "sessions.jsonl"  # a line when an engine is loaded, and at its end
TELEMETRY = "telemetry.jsonl"  # what the machine spent
PLAN = "plan"  # exists as a whole or not at all
IMAGES = "images"  # of the rows, each once
READS_FOLDER = "reads"  # parts: immutable; only those in the journal count
REJECTS_FOLDER = "rejects"  # refused rows
IMPORTED = "imported"  # verdicts made elsewhere, in a run that has no reads
DATABASE = "verdicts.duckdb"  # the hand-off file
CALIBRATION = "calibration.json"  # the calibrator of the verdicts, if any
LOCK = "lock"

# What file systems answer that have no locks of any kind.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_OWNER = re.compile(r"process (\d+) on (\S+) since ")
_held: set[str] = set()  # run directories that this process has locked


class RunDir:
    """A run directory. Creates nothing by itself.

    `files` is how its entries are read and written; the paths are for messages.
    """

    def __init__(self, root: Path, disk: Disk = DISK) -> None:
        self.root = root
        self.files = Folder(root, disk)
        self.record_file = root / RECORD
        self.plan = root / PLAN
        self.images = root / IMAGES
        self.imported = root / IMPORTED
        self.database = root / DATABASE
        self.calibration = root / CALIBRATION

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
        ours = {LOCK, READS_FOLDER}
        ours |= {f"{name}{end}" for name in (RECORD, JOURNAL, IMPORTED) for end in ("", TEMPORARY)}
        if self.root.is_dir() and not self.files.exists(RECORD):
            strange = [name for name in self.files.names() if name not in ours]
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
            self.files.make()
            self.files.inside(READS_FOLDER).make()

    def log(self, name: str, **content: Any) -> None:  # noqa: ANN401 - JSON values
        """Add a line to a log of the run."""
        with writing(self.root / name):
            self.files.append(name, seal(content), durable=False)

    def log_session(self, event: str, **content: Any) -> None:  # noqa: ANN401 - JSON values
        """Add what an engine reports of itself to the log of sessions."""
        self.log(SESSIONS, event=event, at=now(), pid=os.getpid(), **content)

    def read_log(self, name: str) -> tuple[list[dict[str, Any]], int]:
        """Read a log.

        Returns:
            Its entries, and how many lines were left out because they are damaged or torn.
        """
        try:
            lines = self.files.read(name).splitlines(keepends=True)
        except FileNotFoundError:
            return [], 0
        entries = []
        for line in lines:
            with suppress(ValueError):
                entries.append(unseal(line)[0])
        return entries, len(lines) - len(entries)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run directory as its one writer; the lock ends with the process.

        Raises:
            RunLocked: another process holds it.
        """
        with writing(self.root):
            self.files.make()
            if self._held():  # file systems without `flock` do not ask a process's own locks
                raise self._locked()
            try:
                handle = self.files.lock(
                    LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB, os.O_RDWR | os.O_CREAT
                )
            except BlockingIOError:
                raise self._locked() from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                if self._owner_lives():
                    raise self._locked() from None
                handle = self.files.open_handle(LOCK, os.O_RDWR | os.O_CREAT)
        disk, name = self.files.disk, self._name
        _held.add(name)
        try:
            with writing(self.root):
                owner = f"process {os.getpid()} on {platform.node()} since {now()}"
                disk.truncate(handle, 0)
                disk.write(handle, owner.encode())
            yield
        finally:
            _held.discard(name)
            with suppress(OSError):
                disk.truncate(handle, 0)
            disk.close(handle)

    def locked(self) -> bool:
        """Return whether a writer is at work now."""
        if self._held():
            return True
        try:
            handle = self.files.lock(LOCK, fcntl.LOCK_SH | fcntl.LOCK_NB, os.O_RDONLY)
        except BlockingIOError:
            return True
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return self._owner_lives()
        self.files.disk.close(handle)
        return False

    @property
    def _name(self) -> str:
        return os.path.realpath(self.root)

    def _held(self) -> bool:
        """Return whether this process is the writer; a look at the file would end a POSIX lock."""
        return self._name in _held

    def _owner_lives(self) -> bool:
        """Return whether the writer that a lock file names may be at work, without asking locks."""
        owner = _OWNER.match(self._owner())
        if owner is None or owner[2] != platform.node():
            return owner is not None  # another machine cannot be asked
        return is_alive(int(owner[1]))

    def _owner(self) -> str:
        if self._held():
            return "this one"
        try:
            return self.files.read(LOCK)[:80].decode("ascii", "replace").strip()
        except OSError:
            return ""

    def _locked(self) -> RunLocked:
        return RunLocked(
            f"another process writes to this run ({escape(self._owner()) or 'unknown'})",
            place=str(self.root),
            remedy="wait for it or end it; `steelyard status` shows its progress. If it ended on"
            f" another machine whose file system has no locks, delete {self.root / LOCK}",
        )


def now() -> str:
    """Return the time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
