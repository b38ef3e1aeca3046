"""Who comes while a run is written: readers, and other writers. Each is another process."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from harness.simulator.model import Violation
from steelyard.errors import IntegrityFault, RunLocked, SteelyardError, UsageError
from steelyard.scoring.status import run_status
from steelyard.store import locks
from steelyard.store.reads import journal
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import database, user_queries

if TYPE_CHECKING:
    from harness.simulator.life import Run

VERDICTS = 'SELECT "row", raw_preference FROM verdicts'


class Visitors:
    """Look at a run at any time; the first wrong thing that one saw is kept."""

    def __init__(self, run: Run) -> None:
        self._run, self._root = run, run.root
        self.violation: str | None = None

    def visit(self, kind: str) -> None:
        """Look once."""
        look = {
            "reader": self._read,
            "status": self._status,
            "second writer": self._write,
        }[kind]
        try:
            with _another_process():
                look()
        except Violation as violation:
            self._keep(f"a visitor ({kind}) saw: {violation}")
        except SteelyardError as error:
            self._keep(f"a visitor ({kind}) got {type(error).__name__}: {error}")
        except Exception:
            self._keep(f"a visitor ({kind}) failed: {traceback.format_exc()}")

    def _keep(self, words: str) -> None:
        self.violation = self.violation or words

    def _read(self) -> None:
        lines, torn = self._run.model.lines()
        try:
            snapshot = RunSnapshot.take(self._root)
            journal.require_sound(snapshot.run, snapshot.journal)
        except UsageError:
            if (self._root / "run.json").exists():
                raise
            return
        except IntegrityFault:
            if torn and not RunDir(self._root).locked():
                return
            raise
        if torn and not RunDir(self._root).locked():
            raise Violation("a torn journal and no error")
        names = [part.name for part in snapshot.journal.parts]
        if names != [line.name for line in lines]:
            raise Violation(f"a reader sees {names}, the journal has {lines}")
        if missing := self._run.committed.keys() - set(names):
            raise Violation(f"a reader does not see {missing}, which were acknowledged")
        rows = 0
        for name in names:
            with snapshot.run.files.open(name) as file:
                rows += len(pq.read_table(file))
        if rows != len(self._run.model.read(lines)):
            raise Violation("a reader sees other reads than there are")
        if self._run.life.compacts and snapshot.manifest is not None:
            self._query(snapshot, lines)

    def _query(self, snapshot: RunSnapshot, lines) -> None:
        table = user_queries.query(snapshot, VERDICTS).to_pylist()
        shown = {row["row"]: row["raw_preference"] for row in table}
        expected = self._run.model.verdicts(self._run.model.read(lines))
        if len(table) != len(shown) or shown.keys() != expected.keys():
            raise Violation(f"verdicts of the rows {sorted(shown)}, not {sorted(expected)}")
        for row, value in expected.items():
            same = shown[row] is None if value is None else abs(shown[row] - value) < 1e-12
            if not same:
                raise Violation(f"the verdict of row {row} is {shown[row]}, not {value}")

    def _status(self) -> None:
        if not (self._root / "run.json").exists():
            return
        lines, torn = self._run.model.lines()
        content = run_status(self._root)
        if content["state"] == "damaged":
            if not torn:
                raise Violation(f"damaged: {content['damage']}")
            return
        if content["prompts"]["read"] != sum(line.rows for line in lines):
            raise Violation(f"status counts {content['prompts']}, the journal has {lines}")
        if content["state"] == "complete" and self._run.model.prompts != self._run.model.read(
            lines
        ):
            raise Violation("status says complete")

    def _write(self) -> None:
        """Try to become a second writer; where nobody writes, that is allowed."""
        run = RunDir(self._root)
        if not self._root.exists() or not run.locked():
            return
        try:
            with run.lock():
                raise Violation("a second writer got the lock")
        except RunLocked:
            pass

    def check_final(self) -> None:
        """Look at a complete run by SQL."""
        if not self._run.life.compacts:
            return
        with _another_process():
            snapshot = RunSnapshot.take(self._root)
            connection = database.open_handoff(snapshot)
            if connection is None:
                raise Violation("the hand-off file of a complete run is not up to date")
            connection.close()
            self._query(snapshot, self._run.model.lines()[0])


@contextmanager
def _another_process() -> Iterator[None]:
    """Hide which locks this process holds."""
    held, locks._held = locks._held, set()
    try:
        yield
    finally:
        locks._held = held
