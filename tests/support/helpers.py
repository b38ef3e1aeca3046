"""What several tests use: real shards on disk, the program as a process, its answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from steelyard.cli import main
from steelyard.plan.spec import KeySpec
from steelyard.protocols.axes import PromptAxes

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("STEELYARD_DATA", ROOT.parent / "shared" / "data"))
PROGRAM = [sys.executable, "-m", "steelyard"]


def data_file(name):
    """A file of the real data; the test is skipped where it is not at hand (CI has it)."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not at {DATA}; set STEELYARD_DATA")
    return path


def pairwise_key_spec(fingerprint=bytes(16)):
    """What `pairwise` asks about a pair: one form, and all the texts that it shows."""
    shown = {"conversation", "first", "instruction", "reference", "second", "system"}
    return KeySpec(PromptAxes(), ((fingerprint,),), (), frozenset(shown))


def pairs_table(count, *, instructions=None, width=40, seed=0):
    """Pairs in which every text differs; instruction i % instructions is shared."""
    instructions = instructions or max(1, count // 4)
    rows = range(count)
    filler = "weigh the words " * (width // 16 + 1)
    return pa.table(
        {
            "instruction": [f"question {i % instructions} {filler[:width]}" for i in rows],
            "response_a": [f"answer {seed}/{i} first {filler[:width]}" for i in rows],
            "response_b": [f"answer {seed}/{i} second {filler[:width]}" for i in rows],
            "model_a": [f"m{i % 3}" for i in rows],
            "model_b": [f"m{3 + i % 3}" for i in rows],
            "source": [f"s{i % 5}" for i in rows],
        }
    )


def write_pairs(path, count, **options):
    pq.write_table(pairs_table(count, **options), path)
    return path


def program(*arguments, **options):
    """Run the program to its end."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def command(*arguments):
    """Run a command in this process, which saves the seconds of importing everything again."""
    done = CliRunner().invoke(main, list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def rows(run, query):
    """The rows of a query, through the command line."""
    done = command("sql", "--json", run, query)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
