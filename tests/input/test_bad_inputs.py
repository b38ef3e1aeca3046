"""Every case of bad_input_cases.toml: against the package where it can be, and as a user."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from steelyard.errors import SteelyardError
from steelyard.input import Limits, open_shards, stream
from support import bad_inputs
from support.bad_inputs import Case

CASES, COMMANDS = bad_inputs.load()
SHARD_CASES = [case for case in CASES if case.about == "shards"]
HAS_CLI = importlib.util.find_spec("steelyard.cli") is not None
needs_cli = pytest.mark.skipif(not HAS_CLI, reason="the CLI is not there yet (steelyard.cli)")
# Real processes for a handful: one of each kind of trouble.
IN_A_PROCESS = (
    "missing file",
    "half a download",
    "no response_b",
    "map with an unknown role",
    "unknown option",
    "run directory that is a file",
    "sql on a folder that is not a run",
)


def by_name(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name.replace(" ", "-"))


def command_line(case: Case, folder: Path) -> list[str]:
    template = case.args or COMMANDS["score" if case.exit == 4 else "plan"]
    line: list[str] = []
    for word in template:
        if word == "{inputs}":
            line += [inputs(folder, x) for x in case.inputs]
        elif word == "{options}":
            line += case.options
        else:
            line.append(word.replace("{dir}", str(folder)))
    return line


def inputs(folder: Path, text: str) -> str:
    if text == "<empty>":
        return ""
    return text if "://" in text else f"{folder}/{text}"


def check_message(case: Case, text: str) -> None:
    """The expected first line, printable all through, with a next step and no traceback."""
    lines = text.splitlines()
    at = next((i for i, x in enumerate(lines) if re.match(r"error\[|Usage:|Error:", x)), None)
    assert "Traceback" not in text
    assert all(line.isprintable() for line in lines)
    if case.first:
        assert at is not None, f"no message in {text!r}"
        assert re.fullmatch(case.first, lines[at]), lines[at]
        if lines[at].startswith("error["):
            assert any(line.startswith("  next: ") for line in lines[at:])


def test_the_cases_are_well_formed() -> None:
    assert len(CASES) >= 40
    assert max(Counter(case.name for case in CASES).values()) == 1
    for case in CASES:
        assert case.about in {"shards", "config", "run", "sql", "output"}
        assert bool(case.inputs) == (case.about == "shards")
        assert bool(case.args) != bool(case.inputs)
        assert case.first or case.rejects
        assert (case.exit == 4) == bool(case.rejects)
        re.compile(case.first)
        for step in case.make:
            assert step["do"] in bad_inputs.BUILDERS or step["do"] == "run"
    assert set(IN_A_PROCESS) <= {case.name for case in CASES}


@by_name(SHARD_CASES)
def test_the_shards_refuse_it(case: Case, tmp_path: Path) -> None:
    case.build(tmp_path)
    column_map = dict(x.split("=", 1) for x in case.option("--map"))
    limits = Limits(
        row_bytes=int(next(iter(case.option("--max-row-bytes")), 1 << 20)),
        on_bad_row="fail" if "fail" in case.option("--on-bad-row") else "reject",
    )
    rejected: Counter[str] = Counter()

    def run() -> None:
        shards = open_shards([inputs(tmp_path, x) for x in case.inputs], column_map)
        for _, rejects in stream(shards, limits):
            rejected.update(rejects["reason"].to_pylist())

    if case.rejects:
        run()
        assert rejected == case.rejects
        return
    with pytest.raises(SteelyardError) as refused:
        run()
    assert refused.value.exit_code == case.exit
    check_message(case, str(refused.value))


def cli() -> click.Command:
    """The click command of the program; `main` may wrap it."""
    module = importlib.import_module("steelyard.cli")
    found = [getattr(module, name, None) for name in ("main", "cli")]
    return next(command for command in found if isinstance(command, click.Command))


def build(case: Case, folder: Path) -> None:
    """As Case.build, with finished runs where the case asks for one."""
    bad_inputs.BUILDERS["run"] = finished_run
    case.build(folder)


def finished_run(path: Path) -> None:
    line = ["score", f"{path.parent}/p.parquet", "--run", str(path), "--judge", "scripted"]
    result = CliRunner().invoke(cli(), line)
    assert result.exit_code == 0, result.output


@needs_cli
@by_name(CASES)
def test_the_program_says_so(case: Case, tmp_path: Path) -> None:
    build(case, tmp_path)
    result = CliRunner().invoke(cli(), command_line(case, tmp_path))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.exit_code == case.exit, result.output
    check_message(case, result.stderr)


@needs_cli
@by_name([case for case in CASES if case.name in IN_A_PROCESS])
def test_a_process_says_so(case: Case, tmp_path: Path) -> None:
    build(case, tmp_path)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from steelyard.cli import main; main()",
            *command_line(case, tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == case.exit, done.stderr
    check_message(case, done.stderr)
