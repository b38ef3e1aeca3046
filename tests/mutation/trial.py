"""What happens inside a forked process: pytest on a copy of the project, and what it reached."""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MEMORY = 8 << 30  # bytes of data that a process may hold: a change can make a loop endless
PROBE = "__reached__"
DEFINITION = f"import builtins; {PROBE} = getattr(builtins, {PROBE!r}, lambda *_: None)"
MARKS = "not slow and not vllm and not train"


def with_probes(source: str, module: str) -> tuple[str, set[int]]:
    """Return a module that reports statements of functions when they are reached, and their lines.

    Other statements run when the module is imported.
    """
    tree, lines = ast.parse(source), set[int]()
    for node in list(ast.walk(tree)):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and not isinstance(node, ast.ClassDef | ast.Module):
                setattr(node, field, _probed(block, module))
                lines |= {statement.lineno for statement in block}
    tree.body = [s for s in tree.body if _is_first(s)] + [
        *ast.parse(
            f"import builtins; {PROBE} = getattr(builtins, {PROBE!r}, lambda *_: None)"
        ).body,
        *(s for s in tree.body if not _is_first(s)),
    ]
    return ast.unparse(ast.fix_missing_locations(tree)), lines


def _is_first(statement: ast.stmt) -> bool:
    return (isinstance(statement, ast.ImportFrom) and statement.module == "__future__") or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _probed(block: list[ast.stmt], module: str) -> list[ast.stmt]:
    probed = []
    for statement in block:
        if not _is_first(statement):
            probed += ast.parse(f"{PROBE}({module!r}, {statement.lineno})").body
        probed.append(statement)
    return probed


class OutOfTime(BaseException):
    """Raised in a test that takes too long; nothing in the project catches it."""


class Coverage:
    """A plugin that notes what each test takes, and which statements it reaches.

    What is reached while a test is set up counts for all tests of its file that share a fixture.
    """

    def __init__(self, limit: float) -> None:
        self.limit = int(limit)
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self.reached: dict[str, set[tuple[str, int]]] = {}
        self.shared: dict[str, set[tuple[str, int]]] = {}
        self.sharing: set[str] = set()
        self.current = self.at_import = set[tuple[str, int]]()
        setattr(builtins, PROBE, lambda module, line: self.current.add((module, line)))

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        for item in items:
            definitions = item._fixtureinfo.name2fixturedefs.values()
            ours = [d for several in definitions for d in several if d.baseid]
            if any(definition.scope != "function" for definition in ours):
                self.sharing.add(item.nodeid)

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        self.current = set()
        signal.alarm(self.limit)

    def pytest_runtest_logreport(self, report: Any) -> None:
        name = report.nodeid
        self.seconds[name] = self.seconds.get(name, 0.0) + report.duration
        self.reached.setdefault(name, set()).update(self.current)
        if report.when == "setup":
            self.shared.setdefault(name.partition("::")[0], set()).update(self.current)
            self.current = set()
        if not report.passed:
            self.failed.add(name)
        if report.when == "teardown":
            signal.alarm(0)

    def write(self, target: Path) -> None:
        """Write what was noted, and the modules that were imported meanwhile."""
        for name in self.sharing & set(self.reached):
            self.reached[name] |= self.shared[name.partition("::")[0]]
        tests = {
            name: {"seconds": seconds, "reached": sorted(self.reached[name])}
            for name, seconds in self.seconds.items()
            if name not in self.failed
        }
        imported = [
            name
            for name, module in list(sys.modules.items())
            if "site-packages" in (getattr(module, "__file__", None) or "")
        ]
        content = {
            "tests": tests,
            "failed": sorted(self.failed),
            "at_import": sorted(self.at_import),
            "imported": imported,
        }
        target.write_text(json.dumps(content), encoding="utf-8")


class Selection:
    """A plugin that runs certain tests in their order, and writes which of them failed.

    Args:
        seconds: by test, in the order in which they run: what each usually takes.
        target: file for the name of the test that failed.
    """

    def __init__(self, seconds: Mapping[str, float], target: Path) -> None:
        self.seconds, self.target = seconds, target
        self.position = {name: k for k, name in enumerate(seconds)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid in self.position]
        items.sort(key=lambda item: self.position[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        signal.alarm(int(10 + 5 * self.seconds[nodeid]))

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            late = OutOfTime.__name__ in str(report.longrepr)
            verdict = "timeout" if late else "killed"
            self.target.write_text(f"{verdict} {report.nodeid}", encoding="utf-8")


def run(
    copy: Path, files: Iterable[str], *options: str, plugin: object, environment: Mapping[str, str]
) -> int:
    """Fork a process that runs tests of a copy of the project, and return its number."""
    if process := os.fork():
        return process
    code = 70
    try:
        os.setsid()
        os.nice(5)
        _prepare(copy, environment)
        import hypothesis
        import pytest

        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        slow = (hypothesis.HealthCheck.too_slow,)
        hypothesis.settings.register_profile(
            "mutation", deadline=None, database=None, phases=phases, suppress_health_check=slow
        )
        hypothesis.settings.load_profile("mutation")
        code = int(
            pytest.main(
                [
                    *("-q", "-m", MARKS, "-p", "no:cacheprovider", "-p", "no:xdist"),
                    *("--assert=plain", "-W", "ignore::pytest.PytestAssertRewriteWarning"),
                    *("-W", "ignore::hypothesis.errors.HypothesisSideeffectWarning"),
                    *("--hypothesis-seed=0", f"--basetemp={copy.parent / 'temporary'}"),
                    *options,
                    *files,
                ],
                plugins=[plugin],
            )
        )
        if isinstance(plugin, Coverage):
            plugin.write(copy.parent / "coverage.json")
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _prepare(copy: Path, environment: Mapping[str, str]) -> None:
    """Make this process one that was started in the copy."""
    output = os.open(copy.parent / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.chdir(copy)
    roots = [str(copy / "engine"), str(copy / "kernels")]
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    os.environ["PYTHONPATH"] = os.pathsep.join([*roots, *paths])
    os.environ.update(environment)
    if "numba" in sys.modules:
        sys.modules["numba.core.config"].reload_config()  # reads NUMBA_DISABLE_JIT again
    sys.path[:0] = roots
    signal.signal(signal.SIGALRM, _give_up)


def _give_up(*_: object) -> None:
    raise OutOfTime
