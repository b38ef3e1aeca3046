"""Copies of the project, and processes that run tests in them, forked from one that is warm."""

from __future__ import annotations

import gc
import importlib
import json
import os
import shutil
import signal
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trial
from changes import Mutant

COPIED = ("engine", "kernels", "tests", "benchmarks", "docs", "pyproject.toml")
BASELINE = 3600  # seconds for all candidates


class BaselineFailed(Exception):
    """The tests cannot be run at all."""


@dataclass(frozen=True)
class Verdict:
    """What became of a change."""

    module: str
    line: int
    where: str
    change: str
    verdict: str  # killed, timeout, survived, uncovered or equivalent
    killer: str = ""  # the test that failed
    seconds: float = 0.0


@dataclass
class Baseline:
    """What tests take, and the statements that they reach, as (module, line)."""

    seconds: dict[str, float]
    reached: dict[str, set[tuple[str, int]]]
    at_import: set[tuple[str, int]]
    failed: list[str]
    lines: dict[str, set[int]] = field(default_factory=dict)  # with a probe, by module

    def tests_for(self, mutant: Mutant) -> dict[str, float]:
        """Return what the tests that reach a change take, the fastest first."""
        place = (mutant.module, mutant.statement)
        tests = self._sorted({test for test, places in self.reached.items() if place in places})
        if place in self.at_import or mutant.statement not in self.lines[mutant.module]:
            module = {
                t for t, places in self.reached.items() if any(p[0] == place[0] for p in places)
            }
            files = {
                test.partition("::")[0] for test in module
            }  # others may use a constant, a type
            tests += self._sorted(module)
            tests += self._sorted({t for t in self.seconds if t.partition("::")[0] in files})
        return {test: self.seconds[test] for test in tests}

    def forget(self, test: str) -> None:
        """Leave out a test that fails without a change."""
        if not test:
            raise BaselineFailed("tests cannot be collected again without a change")
        if self.seconds.pop(test, None) is not None:
            print(f"left out, as it depends on what runs before it: {test}", flush=True)
            del self.reached[test]

    def _sorted(self, tests: set[str]) -> list[str]:
        return sorted(tests, key=lambda test: (self.seconds[test], test))


@dataclass(frozen=True)
class _Job:
    mutant: Mutant
    tests: dict[str, float]
    process: int
    copy: Path
    started: float
    ends: float
    doubted: Verdict | None = None  # of a run with the change, which this one makes without


class Server:
    """Runs tests in copies of the project.

    Args:
        root: of the project.
        folder: an empty one for the copies.
        jobs: processes that run tests at a time.
        environment: variables of the tests.
    """

    def __init__(self, root: Path, folder: Path, jobs: int, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.trusted = set[str]()  # tests that pass without a change after the same others
        self.copies = [folder / str(k) / "project" for k in range(jobs)]
        for copy in self.copies:
            copy.mkdir(parents=True)
            for name in COPIED:
                if (root / name).is_dir():
                    shutil.copytree(root / name, copy / name, symlinks=True)
                elif (root / name).exists():
                    shutil.copy2(root / name, copy / name)

    def measure(self, modules: Sequence[str], files: Sequence[str], limit: float) -> Baseline:
        """Run candidates without a change; raise BaselineFailed if none passes.

        Tests that fail, are skipped or take over `limit` seconds are left out from then on.
        """
        copy, lines = self.copies[0], {}
        sources = {module: (copy / module).read_text("utf-8") for module in modules}
        for module, source in sources.items():
            probed, lines[module] = trial.with_probes(source, module)
            _write(copy / module, probed)
        process = trial.run(copy, files, plugin=trial.Coverage(limit), environment=self.environment)
        _wait(process, BASELINE)
        for module, source in sources.items():
            _write(copy / module, source)
        target = copy.parent / "coverage.json"
        content = json.loads(target.read_text("utf-8")) if target.exists() else {"tests": {}}
        if not content["tests"]:
            output = (copy.parent / "output").read_text("utf-8", errors="replace")
            raise BaselineFailed(f"no test passes without a change\n{output[-4000:]}")
        with warnings.catch_warnings(action="ignore"):
            for name in content["imported"]:
                with suppress(Exception):
                    importlib.import_module(name)
        gc.collect()
        gc.freeze()
        tests = content["tests"]
        return Baseline(
            {name: test["seconds"] for name, test in tests.items()},
            {name: set(map(tuple, test["reached"])) for name, test in tests.items()},
            set(map(tuple, content["at_import"])),
            content["failed"],
            lines,
        )

    def judge(self, mutants: Sequence[Mutant], baseline: Baseline) -> Iterator[Verdict]:
        """Yield a verdict per change, as they come.

        A test that kills for the first time is run without the change, after the same tests. If it
        fails there as well it depends on what runs before it, and is left out with a note.
        """
        waiting, free, jobs = list(reversed(mutants)), list(self.copies), list[_Job]()
        while waiting or jobs:
            while waiting and free:
                mutant = waiting.pop()
                if tests := baseline.tests_for(mutant):
                    jobs.append(self._start(mutant, tests, free.pop()))
                else:
                    yield _verdict(mutant, "uncovered")
            time.sleep(0.01)
            for job in tuple(jobs):
                if (code := _poll(job)) is None:
                    continue
                jobs.remove(job)
                verdict = self._finish(job, code)
                if job.doubted is None and code and verdict.killer not in self.trusted:
                    tests = _up_to(verdict.killer, job.tests)
                    jobs.append(self._start(job.mutant, tests, job.copy, doubted=verdict))
                    continue
                free.append(job.copy)
                if job.doubted is None:
                    yield verdict
                elif code == 0:
                    self.trusted.add(job.doubted.killer)
                    yield job.doubted
                else:
                    baseline.forget(verdict.killer)
                    waiting.append(job.mutant)

    def _start(
        self,
        mutant: Mutant,
        tests: dict[str, float],
        copy: Path,
        doubted: Verdict | None = None,
    ) -> _Job:
        if doubted is None:
            (copy.parent / "before").write_bytes((copy / mutant.module).read_bytes())
            _write(copy / mutant.module, mutant.source)
        killer = copy.parent / "killer"
        killer.unlink(missing_ok=True)
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        plugin = trial.Selection(tests, killer)
        process = trial.run(copy, files, "-x", plugin=plugin, environment=self.environment)
        now = time.monotonic()
        ends = now + 60 + 5 * sum(tests.values())
        return _Job(mutant, tests, process, copy, now, ends, doubted)

    def _finish(self, job: _Job, code: int) -> Verdict:
        folder, seconds = job.copy.parent, time.monotonic() - job.started
        _write(job.copy / job.mutant.module, (folder / "before").read_text("utf-8"))
        shutil.rmtree(folder / "temporary", ignore_errors=True)
        if code == 0:
            return _verdict(job.mutant, "survived", seconds=seconds)
        killer = folder / "killer"  # there is none if the tests could not be collected
        kind, _, test = (killer.read_text("utf-8") if killer.exists() else "").partition(" ")
        kind = "timeout" if code == -signal.SIGKILL else kind or "killed"
        return _verdict(job.mutant, kind, killer=test, seconds=seconds)


def _up_to(last: str, tests: Mapping[str, float]) -> dict[str, float]:
    names = list(tests)
    return {test: tests[test] for test in names[: names.index(last) + 1 if last else None]}


def _verdict(mutant: Mutant, verdict: str, **more: object) -> Verdict:
    return Verdict(mutant.module, mutant.line, mutant.where, mutant.change, verdict, **more)


def _write(path: Path, source: str) -> None:
    """Write a module, so that no compiled file of it passes for current."""
    path.write_text(source, encoding="utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def _poll(job: _Job) -> int | None:
    """Return the exit code of a process that has ended, or that is killed as it takes too long."""
    done, status = os.waitpid(job.process, os.WNOHANG)
    if done:
        _kill_children(job.process)
        return os.waitstatus_to_exitcode(status)
    if time.monotonic() < job.ends:
        return None
    os.killpg(job.process, signal.SIGKILL)
    os.waitpid(job.process, 0)
    return -signal.SIGKILL


def _wait(process: int, seconds: float) -> None:
    nothing = Mutant("", 0, 0, "", "", "")
    job = _Job(nothing, {}, process, Path(), 0.0, time.monotonic() + seconds)
    while _poll(job) is None:
        time.sleep(0.05)


def _kill_children(process: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
