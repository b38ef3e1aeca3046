"""Inputs that somebody cuts, replaces or removes while they are read: never internal.

Kind of fault: the machine or Ctrl-C ends the work.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from steelyard.comparisons import read as comparisons
from steelyard.comparisons.read import read_comparisons
from steelyard.errors import EXIT_INTEGRITY, GoldRefused, InputRefused
from steelyard.input import Limits, open_shards, stream
from steelyard.input.gold_file import read_gold_file
from steelyard.input.tables import ParquetTable
from steelyard.scoring import run as scoring
from steelyard.scoring import shard_texts
from support.helpers import command, rows
from support.shard_files import pairs

GROUP = 500


def write(path: Path, groups: int = 8, **columns: list) -> Path:
    """Row groups of 1 MB that do not compress: a reader cannot have them all when it begins."""
    draw = random.Random(groups)
    long = [draw.randbytes(1000).hex() for _ in range(groups * GROUP)]
    table = pairs(groups * GROUP, response_a=long, **columns)
    pq.write_table(table, path, row_group_size=GROUP, use_dictionary=False, compression="none")
    return path


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def replace(path: Path) -> None:
    """Give another file its name, as tools do that write a file and rename it."""
    write(path.with_name("new"), groups=3).replace(path)


def rewrite(path: Path) -> None:
    """Write another file over it, in place."""
    data = write(path.with_name("new"), groups=3).read_bytes()
    path.write_bytes(data)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES = {
    "emptied": lambda path: cut(path, 0),
    "cut near its beginning": lambda path: cut(path, 0.02),
    "cut in the middle": lambda path: cut(path, 0.5),
    "cut by its footer": lambda path: cut(path, 0.999),
    "replaced": replace,
    "written over": rewrite,
    "removed": Path.unlink,
    "a folder now": make_folder,
}
LOST = ("emptied", "cut near its beginning", "cut in the middle", "written over")
changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@changes
def test_a_shard_that_changes_while_it_is_read_is_refused(tmp_path, change):
    path = write(tmp_path / "p.parquet")
    batches = stream(open_shards([path]), Limits(batch_rows=50))
    next(batches)
    change(path)
    with pytest.raises(InputRefused) as refused:
        list(batches)
    assert (refused.value.place or "").startswith("p.parquet")
    assert "nothing was scored" in refused.value.effect
    assert refused.value.remedy
    assert "internal" not in str(refused.value)


@changes
def test_a_run_whose_input_changes_while_it_is_planned_can_be_begun_again(
    tmp_path, monkeypatch, change
):
    path, whole = write(tmp_path / "p.parquet"), (tmp_path / "p.parquet").read_bytes()
    plan_of, steps = scoring.write_plan, []

    def changing(run, shards, config, key_spec, on_progress, **more):
        def step(accepted, refused):
            if not steps:
                change(path)
            steps.append(accepted)
            on_progress(accepted, refused)

        return plan_of(run, shards, config, key_spec, step, **more)

    monkeypatch.setattr(scoring, "write_plan", changing)
    arguments = ("score", path, "--run", tmp_path / "run", "--judge", "scripted", "--quiet")
    done = command(*arguments)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("error[input]: p.parquet")
    assert "next:" in done.stderr
    names = {entry.name for entry in (tmp_path / "run").iterdir()}
    assert not [name for name in names if "tmp" in name or name == "plan"]
    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    path.write_bytes(whole)
    assert command(*arguments).returncode == 0


@changes
def test_a_shard_that_changes_after_it_was_planned_is_an_integrity_error(
    tmp_path, monkeypatch, change
):
    """Grouped rows are read once more from the shards: the plan is of what they were."""
    path = write(tmp_path / "p.parquet")
    select, calls = shard_texts.PlannedShards.texts, []

    def changing(self, bucket):
        if len(calls) == 1:
            change(path)
        calls.append(bucket)
        return select(self, bucket)

    monkeypatch.setattr(shard_texts.PlannedShards, "texts", changing)
    (tmp_path / "c.toml").write_text("bucket_bytes = 1_000_000\n")
    done = command(
        "score", path, "--run", tmp_path / "run", "--judge", "scripted", "--quiet",
        "--config", tmp_path / "c.toml",
    )  # fmt: skip
    assert len(calls) > 1
    if done.returncode == 0:  # the file was open, with all its rows as they were planned
        assert change not in map(CHANGES.get, LOST)
        assert rows(tmp_path / "run", "SELECT count(*) AS n FROM verdicts") == [{"n": 8 * GROUP}]
        return
    assert done.returncode == EXIT_INTEGRITY, done.stderr
    assert "the shard changed since it was planned" in done.stderr
    assert str(path) in done.stderr
    assert "next: put the shards back" in done.stderr


TABLE = {
    "model_a": ["x", "y"] * 2000,
    "model_b": ["z"] * 4000,
    "preference": [0.25, 0.75] * 2000,
    "gold": ["a", "b"] * 2000,
}


@changes
def test_comparisons_that_change_while_they_are_read_are_refused(tmp_path, monkeypatch, change):
    path = write(tmp_path / "t.parquet", **TABLE)
    read = comparisons._read

    def changing(reader, *more):
        change(path)
        return read(reader, *more)

    monkeypatch.setattr(comparisons, "_read", changing)
    with pytest.raises(InputRefused) as refused:
        read_comparisons(path, {}, ("model_a", "model_b", "preference"), ("response_a",))
    assert (refused.value.place or "").startswith("t.parquet") or str(path) in str(refused.value)
    assert refused.value.remedy


@changes
def test_gold_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, change):
    path = write(tmp_path / "g.parquet", **TABLE)
    reading = ParquetTable.reading

    def changing(self, *more):
        change(path)
        return reading(self, *more)

    monkeypatch.setattr(ParquetTable, "reading", changing)
    with pytest.raises(GoldRefused) as refused:
        read_gold_file(path, {})
    assert refused.value.remedy
