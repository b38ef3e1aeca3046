"""One life of a run: sessions that fail by a schedule, and what has to hold after each."""

from __future__ import annotations

import io
import random
import shutil
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness.simulator.disk import FULL, ROLES, FaultyDisk, Killed
from harness.simulator.judge import Script, SimulatedJudge
from harness.simulator.model import Line, Model, Violation
from harness.simulator.power import PowerModel
from harness.simulator.schedule import Life, Session
from harness.simulator.visitors import Visitors
from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.errors import (
    DiskFull,
    EngineFailed,
    EnvironmentFault,
    JudgeUnavailable,
    RunLocked,
    SteelyardError,
)
from steelyard.prompts import prepared
from steelyard.scoring.run import resume, score
from steelyard.store import locks
from steelyard.store.verdicts import handoff

CLEAN = 3  # sessions without faults that may be needed until a run is complete
PATIENCE = 10.0  # seconds for a thread to end after its session
_compact = handoff.ensure_current


@dataclass
class Result:
    """What a life came to."""

    seed: int
    steps: int = 0
    reads: int = 0
    sessions: int = 0
    fired: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    violation: str | None = None
    log: list[str] = field(default_factory=list)


class Run:
    """A run that lives through sessions."""

    def __init__(self, life: Life, place: Path, *, trace: bool = False) -> None:
        self.life, self.place = life, place
        self.top, self.root = place / "disk", place / "disk" / "run"
        self.result = Result(life.seed)
        self.model = Model(life, self.root)
        self.committed: dict[str, Line] = {}  # acknowledged: the journal was forced with them
        self.complete = False  # a command has said so
        self._torn = False  # the journal's last line
        self.visitors = Visitors(self)
        self.censuses: list[Counter[tuple[str, str, str]]] = []
        self._trace = trace
        self._numbers = random.Random(life.seed + 1)
        self.top.mkdir(parents=True)
        self._write_input(life, place / "input.parquet")
        options = {"inputs": [str(place / "input.parquet")], "judge": "scripted", **life.options}
        if life.reuses:
            options["reuse"] = [str(self._earlier_run())]
        self._config = RunConfig.from_mapping(options, "simulator")

    def live(self) -> Result:
        """Go through all sessions, and then to the end."""
        try:
            for session in self.life.sessions:
                self.session(session)
            for _ in range(CLEAN):
                if self.complete:
                    break
                self.session(Session(resume=True))
            self._check_end()
        except Violation as violation:
            self.result.violation = str(violation)
        return self.result

    def session(self, session: Session) -> None:
        """Run one command, and check what it leaves."""
        power = PowerModel(self.top, self.root) if session.power else None
        disk = FaultyDisk(self.root, session.events, power, self.visitors.visit, self._note_commits)
        disk.trace = self.result.log if self._trace else None
        self.result.sessions += 1
        stop = threading.Event()
        script = self._script(session)
        judge = SimulatedJudge(script, stop)
        known = self.model.read(self.committed.values())
        resumes = session.resume and (self.root / "run.json").exists()
        self._log(f"--- {'resume' if resumes else 'score'}")
        with _patched(judge, compacts=self.life.compacts):
            end = self._carry_out(disk, stop, resumes=resumes)
        disk.release()
        self.result.steps += disk.steps
        self.result.reads += len(judge.answered)
        self.result.fired.update(_kind(event) for event in disk.fired)
        self.result.fired.update(f"engine: {name}" for name in +script.fired)
        self.censuses.append(disk.census)
        words = end if isinstance(end, int | str) else f"{type(end).__name__}: {end.cause}"
        self.result.ends[type(end).__name__ if isinstance(end, SteelyardError) else str(end)] += 1
        self._log(f"--- ended: {words}")
        self._check_end_of_session(session, disk, script, end)
        if again := known & judge.asked.keys():
            raise Violation(f"{len(again)} committed prompts were read again: {sorted(again)[:3]}")
        if power and end == "killed":
            power.lose(session.power or "", random.Random(self._numbers.random()))
            self._log(f"--- power lost: {sorted(map(str, _tree(self.top)))}")
        self._check_disk(disk, end)

    def _carry_out(
        self, disk: FaultyDisk, stop: threading.Event, *, resumes: bool
    ) -> int | str | SteelyardError:
        reporter, before = Reporter(quiet=True, stream=io.StringIO()), set(threading.enumerate())
        try:
            if resumes:
                return resume(self.root, reporter, stop, disk=disk)
            return score(self._config, self.root, reporter, stop, disk=disk)
        except Killed:
            return "killed"
        except SteelyardError as error:
            return error
        except BaseException as error:
            self._log(traceback.format_exc())
            raise Violation(f"internal error: {type(error).__name__}: {error}") from error
        finally:
            disk.freeze()
            locks._held.clear()
            self._wait_for_threads(before)

    def _script(self, session: Session) -> Script:
        return Script(
            deaths=session.deaths,
            unstartable=session.unstartable,
            stop_at=session.stop_at,
            hangs=session.hangs,
            computes=session.computes,
            loads_that_hang=session.loads_that_hang,
            poison=self.life.poison,
            broken=self.life.broken,
            shaky=self.life.shaky,
        )

    def _wait_for_threads(self, before: set[threading.Thread]) -> None:
        end = time.monotonic() + PATIENCE
        while others := [
            thread for thread in set(threading.enumerate()) - before if thread.name in ROLES
        ]:
            if time.monotonic() > end:
                raise Violation(f"threads are left: {[thread.name for thread in others]}")
            others[0].join(0.05)

    def _check_end_of_session(
        self, session: Session, disk: FaultyDisk, script: Script, end: int | str | SteelyardError
    ) -> None:
        """Compare how a command ended with what was done to it."""
        fired = disk.fired
        failed = [event for event in fired if event.action in {"error", "full"}]
        full = any(event.action == "full" or event.error in FULL for event in failed)
        if self.visitors.violation:
            raise Violation(self.visitors.violation)
        if end == "killed":
            right = any(event.action == "kill" for event in fired)
        elif isinstance(end, JudgeUnavailable):
            right = session.unstartable
        elif isinstance(end, RunLocked):
            right = False
        elif isinstance(end, EngineFailed):
            right = script.fired["hang while it loads"] > 1
        elif isinstance(end, DiskFull):
            right = full
        elif isinstance(end, EnvironmentFault):
            right = bool(failed)
        elif end == 130:
            right = script.fired["stop"] > 0
        else:
            right = end == self.model.exit_code
            self.complete = self.complete or right
        if not right:
            raise Violation(f"it ended with {end}, after {', '.join(map(str, fired)) or 'nothing'}")
        if self.complete and end not in {self.model.exit_code, "killed"} and not failed:
            raise Violation(f"a complete run ends with {end}")

    def _check_disk(self, disk: FaultyDisk, end: int | str | SteelyardError) -> None:
        """Check that what was acknowledged is there, and that nothing else is doubtful."""
        lines, torn = self.model.lines()
        excused = self._torn and isinstance(end, SteelyardError)  # before anything was mended
        excused |= end == "killed" or any(event.kind == "truncate" for event in disk.fired)
        if torn and not excused:
            raise Violation("the journal has a torn line after an error")
        self._torn = torn
        there = {line.name: line.digest for line in lines}
        for name, line in self.committed.items():
            if there.get(name) != line.digest:
                raise Violation(f"{name} was acknowledged, and is not in the journal")
        read = self.model.read(lines)
        if self.complete:
            for name in ("run.json", "complete.json", "plan/plan.json", "journal.jsonl"):
                if not (self.root / name).exists():
                    raise Violation(f"the run was complete, and {name} is gone")
            if read != self.model.prompts:
                raise Violation("the run was complete, and reads are gone")
        self.visitors.visit("reader")
        self.visitors.visit("status")
        if self.visitors.violation:
            raise Violation(self.visitors.violation)

    def _check_end(self) -> None:
        if not self.complete:
            raise Violation(f"the run is not complete after {CLEAN} sessions without faults")
        lines, _ = self.model.lines()
        if sum(line.pairs for line in lines) != len(self.model.rows):
            raise Violation(f"the journal counts {[line.pairs for line in lines]} pairs")
        before = [(line.name, line.digest, line.pairs) for line in lines]
        self.session(Session(resume=True))
        after = [(line.name, line.digest, line.pairs) for line in self.model.lines()[0]]
        if before != after:
            raise Violation("a complete run has changed")
        left = [path for path in _tree(self.root) if ".tmp" in path.name or ".wal" in path.name]
        if left:
            raise Violation(f"it leaves {left}")
        self.visitors.check_final()

    def _note_commits(self) -> None:
        lines, torn = self.model.lines()
        if not torn:
            for line in lines:
                self.committed.setdefault(line.name, line)

    def _log(self, words: str) -> None:
        if self._trace:
            self.result.log.append(words)

    def _earlier_run(self) -> Path:
        """Score half of the rows into another run, on a sound disk."""
        other = self.place / "earlier"
        half = self.life.rows[: len(self.life.rows) // 2]
        table = self.place / "half.parquet"
        _write_rows(half, table)
        judge = SimulatedJudge(self._script(Session(resume=False)), threading.Event())
        config = RunConfig.from_mapping({"inputs": [str(table)], "judge": "scripted"}, "simulator")
        with _patched(judge, compacts=False):
            score(config, other, Reporter(quiet=True, stream=io.StringIO()))
        return other

    def _write_input(self, life: Life, path: Path) -> None:
        _write_rows(life.rows, path)


def _write_rows(rows, path: Path) -> None:
    columns: dict[str, list[str | None]] = {
        "instruction": [row.texts[0] for row in rows],
        "response_a": [row.texts[1] for row in rows],
        "response_b": [None if row.reject else row.texts[2] for row in rows],
    }
    pq.write_table(pa.table(columns), path)


@contextmanager
def _patched(judge: SimulatedJudge, *, compacts: bool) -> Iterator[None]:
    """Have the program open this judge, and leave the hand-off file out unless `compacts`."""
    before = prepared.open_judge
    prepared.open_judge = lambda _: judge
    handoff.ensure_current = _compact if compacts else lambda _: None
    try:
        yield
    finally:
        prepared.open_judge = before
        handoff.ensure_current = _compact


def _kind(event) -> str:
    return event.action if event.action != "error" else f"error: {event.kind}"


def _tree(path: Path) -> list[Path]:
    return list(path.rglob("*")) if path.exists() else []


def live(life: Life, place: Path, *, trace: bool = False) -> Result:
    """Live a life in a folder, which is removed afterwards."""
    shutil.rmtree(place, ignore_errors=True)
    try:
        return Run(life, place, trace=trace).live()
    finally:
        shutil.rmtree(place, ignore_errors=True)
