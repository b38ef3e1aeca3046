"""The run directory: its files, its logs, and the lock of its one writer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from steelyard.core.sealed import seal, unseal
from steelyard.errors import RunLocked, UsageError, escape
from steelyard.store.disk import DISK, Disk, now
from steelyard.store.durable import TEMPORARY, writing
from steelyard.store.folder import Folder
from steelyard.store.locks import Held, held_since, holding, is_held

RECORD = "run.json"  # config, fingerprints, versions, host; written once
JOURNAL = "journal.jsonl"  # the commit log
COMPLETE = "complete.json"  # what the journal held when all prompts were read
SESSIONS = "sessions.jsonl"  # a line when an engine is loaded, and at its end
TELEMETRY = "telemetry.jsonl"  # what the machine spent
PLAN = "plan"  # exists as a whole or not at all
INPUTS = "inputs"  # what was not Parquet, as Parquet; in-memory data
IMAGES = "images"  # of the rows, each once
READS_FOLDER = "reads"  # parts: immutable; only those in the journal count
REJECTS_FOLDER = "rejects"  # refused rows
IMPORTED = "imported"  # verdicts made elsewhere, in a run that has no reads
DATABASE = "verdicts.duckdb"  # the hand-off file
CALIBRATION = "calibration.json"  # the calibrator of the verdicts, if any
LOCK = "lock"


class RunDir:
    """A run directory. Creates nothing by itself.

    `files` is how its entries are read and written; the paths are for messages.
    """

    def __init__(self, root: Path, disk: Disk = DISK) -> None:
        self.root = root
        self.files = Folder(root, disk)
        self.record_file = root / RECORD
        self.plan = root / PLAN
        self.inputs = root / INPUTS
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
        ours = {LOCK, READS_FOLDER, INPUTS}
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

    @property
    def is_begun(self) -> bool:
        """Whether this is a run, perhaps one that lost its record."""
        names = (RECORD, f"{PLAN}/plan.json", f"{IMPORTED}/verdicts.parquet")
        return any(map(self.files.exists, names))

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
        with ExitStack() as held:
            with writing(self.root):
                self.files.make()
                try:
                    held.enter_context(holding(self.files, LOCK))
                except Held as other:
                    owner = escape(other.owner) or "unknown"
                    raise RunLocked(
                        f"a process writes to this run already ({owner})",
                        place=str(self.root),
                        remedy="wait for it or end it; `steelyard status` shows its progress. If it"
                        " ended on another machine, and the file system has no locks, delete"
                        f" {self.root / LOCK}",
                    ) from None
            yield

    @contextmanager
    def lock_new(self) -> Iterator[None]:
        """Hold a run directory that is to be filled at once; a failure leaves what was there.

        Raises:
            RunLocked: another process holds it.
        """
        made = [path for path in (self.root, *self.root.parents) if not path.exists()]
        had = self.files.exists(LOCK)
        with self.lock():
            try:
                yield
            except BaseException:
                with suppress(OSError):
                    if not had and not self.is_begun:
                        self.files.remove(LOCK)
                    for path in made:  # none that holds anything
                        path.rmdir()
                raise

    def locked(self) -> bool:
        """Return whether a writer is at work now."""
        return is_held(self.files, LOCK)

    def locked_since(self) -> datetime | None:
        """Return when the writer at work began; None: nobody writes, or it is not known."""
        return held_since(self.files, LOCK) if self.locked() else None
