"""The answer at the end of a run, by hand."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.cli.scoring_text import format_results
from steelyard.errors import IntegrityFault
from steelyard.report import summary
from support.helpers import command, pairs_table


@pytest.fixture
def table(tmp_path):
    """m beats n in 3 of 4 pairs, and n beats o in the other one."""
    rows = {
        "pair_id": list("abcde"),
        "model_a": ["m", "m", "n", "m", "n"],
        "model_b": ["n", "n", "m", "n", "o"],
        "preference": [1.0, 0.75, 0.25, 0.0, 0.75],
        "gold": ["A"] * 5,
    }
    pq.write_table(pa.table(rows), tmp_path / "verdicts.parquet")
    return tmp_path / "verdicts.parquet"


def test_an_import_ends_with_its_results(table, tmp_path):
    done = command("import", table, "--run", tmp_path / "run", "--json")
    results = json.loads(done.stdout)["results"]
    assert (results["pairs"], results["ok"], results["a"], results["b"]) == (5, 5, 3, 2)
    assert results["consistency"] is None  # an import has no orders
    rates = {row["competitor"]: row["average_win_rate"] for row in results["leaderboard"]}
    # m against n: (1 + 0.75 + 0.75 + 0) / 4; n: the mean of that against m and 0.75 against o.
    assert rates == pytest.approx({"m": 0.625, "n": (0.375 + 0.75) / 2, "o": 0.25})
    run = str(tmp_path / "run")
    assert results["next"] == [["report", run, "--open"], ["evaluate", run], ["rank", run]]


def test_a_score_ends_with_its_results(tmp_path):
    pq.write_table(pairs_table(40), tmp_path / "pairs.parquet")
    arguments = (tmp_path / "pairs.parquet", "--judge", "scripted", "--run", tmp_path / "run")
    plain = command("score", *arguments).stdout
    assert "verdicts:  40 of 40 pairs: a is better in " in plain
    assert "pairs have the same winner in both orders" in plain
    assert f"steelyard report {tmp_path / 'run'} --open" in plain
    assert "floor" not in plain
    content = summary.summarise_run(tmp_path / "run")
    assert not content["results"]["toy"]
    content["results"]["toy"] = True  # as for a run by `demo`
    last = format_results(content).split("note:")[1]
    assert "`demo` is a toy of 135 million parameters" in " ".join(last.split())
    assert "floor" in command("score", *arguments, "--verbose").stdout
    assert "floor" in command("resume", tmp_path / "run", "--verbose").stdout


def test_a_run_whose_results_cannot_be_read_is_well(table, tmp_path, monkeypatch):
    def broken(root):
        raise IntegrityFault("the database is gone", place=str(root), remedy="compact it")

    monkeypatch.setattr(summary, "summarise_run", broken)
    done = command("import", table, "--run", tmp_path / "run")
    assert done.returncode == 0
    assert "results are not shown: the database is gone" in done.stderr
    assert "complete" in done.stdout
