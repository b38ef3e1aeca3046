"""`--tolerate-rejects`: which runs with rows without a verdict end with exit code 0."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.helpers import command, pairs_table, rows


@pytest.fixture
def shard(tmp_path):
    """200 rows, of which two have no instruction."""
    table = pairs_table(200)
    instructions = table["instruction"].to_pylist()
    instructions[3] = instructions[50] = None
    pq.write_table(
        table.set_column(0, "instruction", pa.array(instructions)), tmp_path / "p.parquet"
    )
    return tmp_path / "p.parquet"


@pytest.mark.parametrize(
    ("tolerated", "code"),
    [((), 4), (("1",), 4), (("2",), 0), (("0.99%",), 4), (("1%",), 0), (("0",), 4), (("0%",), 4)],
)
def test_refused_rows(shard, tmp_path, tolerated, code):
    option = ("--tolerate-rejects", *tolerated) if tolerated else ()
    run = tmp_path / "run"
    done = command("score", shard, "--run", run, "--judge", "scripted", "--quiet", *option)
    assert done.returncode == code
    assert "2 of 200 rows have no verdict" in done.stderr
    assert "2 refused, 0 not read" in done.stderr
    assert f"steelyard sql {run} 'FROM rejects'" in done.stderr
    assert command("resume", run, "--quiet", *option).returncode == code


def test_rows_that_were_not_read_count(tmp_path):
    shard, run = tmp_path / "p.parquet", tmp_path / "run"
    pq.write_table(pairs_table(100), shard)
    line = ("score", shard, "--run", run, "--judge", "scripted:fail=0.03", "--quiet")
    assert command(*line).returncode == 4
    (row,) = rows(run, "SELECT count(*) AS n FROM verdicts WHERE status <> 'ok'")
    lacking = row["n"]
    assert lacking > 0
    done = command(*line, "--tolerate-rejects", lacking)
    assert done.returncode == 0
    assert f"0 refused, {lacking} not read" in done.stderr
    assert "WHERE status <> " in done.stderr
    assert command(*line, "--tolerate-rejects", lacking - 1).returncode == 4


def test_imported_rows(tmp_path):
    table = pa.table({"model_a": ["x"] * 4, "model_b": ["y"] * 4, "preference": [0.1, 2, 0.5, 0.7]})
    pq.write_table(table, tmp_path / "t.parquet")
    line = ("import", tmp_path / "t.parquet", "--run")
    assert command(*line, tmp_path / "a", "--tolerate-rejects", "24.9%").returncode == 4
    assert command(*line, tmp_path / "b", "--tolerate-rejects", "25%").returncode == 0


@pytest.mark.parametrize("wrong", ["-1", "101%", "many", "0.5", "nan%", "%", "1e3"])
def test_other_values_are_refused(shard, tmp_path, wrong):
    line = ("score", shard, "--run", tmp_path / "run", "--judge", "scripted")
    done = command(*line, f"--tolerate-rejects={wrong}")
    assert done.returncode == 2
    assert "--tolerate-rejects is" in done.stderr
    assert not (tmp_path / "run").exists()
