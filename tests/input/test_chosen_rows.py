"""The first rows, and rows drawn at random: by hand, and the same in every run."""

from __future__ import annotations

import json
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.errors import EXIT_USAGE
from steelyard.input import open_shards, stream
from steelyard.input.chosen_rows import ChosenRows, drawn
from support.helpers import command, pairs_table, rows


@pytest.fixture
def folder(tmp_path):
    """100 rows in three shards, of which every tenth has no instruction."""
    table = pairs_table(100)
    texts = [
        None if i % 10 == 9 else text for i, text in enumerate(table["instruction"].to_pylist())
    ]
    table = table.set_column(0, "instruction", pa.array(texts))
    (tmp_path / "in").mkdir()
    for name, start, end in (("a", 0, 40), ("b", 40, 41), ("c", 41, 100)):
        piece = table.slice(start, end - start)
        pq.write_table(piece, tmp_path / "in" / f"{name}.parquet", row_group_size=16)
    return tmp_path / "in"


def taken(folder, **chosen):
    shards = open_shards([folder])
    good, bad = [], []
    with closing(stream(shards, chosen=ChosenRows(shards, **chosen))) as batches:
        for accepted, rejects in batches:
            good += zip(accepted["shard"].to_pylist(), accepted["row"].to_pylist(), strict=True)
            bad += zip(rejects["shard"].to_pylist(), rejects["row"].to_pylist(), strict=True)
    return good, bad


def test_the_first_rows_count_bad_ones_too(folder):
    good, bad = taken(folder, limit=42)
    assert bad == [("a.parquet", row) for row in (9, 19, 29, 39)]
    assert good == [
        *(("a.parquet", row) for row in range(40) if row % 10 != 9),
        ("b.parquet", 0), ("c.parquet", 0),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 37, 99])
def test_a_sample_has_the_rows_with_the_smallest_numbers(folder, count):
    draws = [
        (int(number), f"{name}.parquet", row)
        for name, size in (("a", 40), ("b", 1), ("c", 59))
        for row, number in enumerate(drawn(f"{name}.parquet", np.arange(size)))
    ]
    good, bad = taken(folder, sample=count)
    assert sorted(good + bad) == sorted((name, row) for _, name, row in sorted(draws)[:count])


@pytest.mark.parametrize("chosen", [{}, {"limit": 100}, {"limit": 10**9}, {"sample": 100}])
def test_all_rows_are_taken_where_nothing_is_left_out(folder, chosen):
    good, bad = taken(folder, **chosen)
    assert (len(good), len(bad)) == (90, 10)


def test_numbers_drawn_are_spread_evenly():
    draws = np.sort(drawn("x", np.arange(100_000)).astype(float) / 2**64)
    # Kolmogorov-Smirnov: 0.0062 is exceeded once in a thousand.
    assert np.abs(draws - (np.arange(100_000) + 0.5) / 100_000).max() < 0.0062


def test_a_run_keeps_its_part_of_the_input(folder, tmp_path):
    run = tmp_path / "run"
    line = ("score", folder, "--run", run, "--judge", "scripted", "--quiet")
    assert command(*line, "--sample", 20).returncode in {0, 4}
    assert json.loads((run / "run.json").read_text())["config"]["sample"] == 20
    count = rows(run, "SELECT (SELECT count(*) FROM verdicts) + (SELECT count(*) FROM rejects) n")
    assert count == [{"n": 20}]
    assert "20 of 100 rows, drawn at random" in command("status", run).stdout.splitlines()[0]
    other = command(*line, "--sample", 21)
    assert other.returncode == EXIT_USAGE
    assert "`sample`: 20 there, 21 now" in other.stderr
    # Reads of a sample serve the whole.
    whole = command(
        "score", folder, "--run", tmp_path / "all", "--judge", "scripted", "--reuse", run
    )
    assert "reused" in whole.stderr
    text = command("plan", folder, "--judge", "scripted", "--limit", 10, "--quiet").stdout
    assert "10 of 100: 9 pairs, 1 reject" in text


def test_without_a_judge_nothing_begins(folder, tmp_path):
    for name in ("score", "plan"):
        run = ("--run", tmp_path / "run") if name == "score" else ()
        done = command(name, folder, *run)
        assert done.returncode == EXIT_USAGE
        assert "no judge is named" in done.stderr
    assert not (tmp_path / "run").exists()
