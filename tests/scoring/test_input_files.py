"""Runs over inputs that are not Parquet: complete in themselves, and true to their sources.

Kind of fault: a run that needs, or believes, a file that is no longer what it was.
"""

from __future__ import annotations

import json
import threading

import duckdb
import pyarrow as pa
import pytest

import steelyard
from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.errors import EXIT_DONE, EXIT_INTERRUPTED, InputRefused, IntegrityFault, UsageError
from steelyard.scoring.run import resume, score
from support.helpers import command, pairs_table

QUIET = Reporter(quiet=True)


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def source(tmp_path):
    return lines(tmp_path / "pairs.jsonl", pairs_table(30).to_pylist())


def config(path):
    return RunConfig(inputs=(str(path),), judge=("scripted",))


def test_a_run_needs_its_source_no_more(source, tmp_path):
    stop = threading.Event()
    stop.set()
    assert score(config(source), tmp_path / "run", QUIET, stop) == EXIT_INTERRUPTED
    source.unlink()
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    assert resume(moved, QUIET) == EXIT_DONE
    run = steelyard.open_run(moved)
    assert run.export(tmp_path / "out", "preference")["verdicts"] == 30
    shown = command("show", moved, "--least-certain", "1")
    assert "question" in shown.stdout


def test_a_source_that_has_changed_is_another_input(source, tmp_path):
    rows = pairs_table(30).to_pylist()
    assert score(config(source), tmp_path / "run", QUIET) == EXIT_DONE
    assert score(config(source), tmp_path / "run", QUIET) == EXIT_DONE
    rows[7]["response_a"] += "."
    lines(source, rows)
    with pytest.raises(UsageError, match="different: the input shards"):
        score(config(source), tmp_path / "run", QUIET)


def test_a_converted_file_that_is_damaged_is_noticed(source, tmp_path):
    assert score(config(source), tmp_path / "run", QUIET) == EXIT_DONE
    (file,) = (tmp_path / "run" / "inputs").iterdir()
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)
    with pytest.raises((InputRefused, IntegrityFault), match=r"cannot be read|changed"):
        steelyard.open_run(tmp_path / "run").export(tmp_path / "out", "preference")


def test_rejects_name_lines_and_the_run_goes_on(source, tmp_path):
    with source.open("a") as file:
        file.write("{oops\n")
    done = command("score", source, "--run", tmp_path / "run", "--judge", "scripted")
    assert done.returncode == 4
    rejects = steelyard.open_run(tmp_path / "run").sql("FROM rejects").to_pylist()
    assert [(row["row"], row["reason"]) for row in rejects] == [(30, "format")]
    assert "line 31 is not JSON" in rejects[0]["detail"]


def test_rows_of_a_program_are_kept_in_the_run(tmp_path):
    rows = pairs_table(12).to_pylist()
    first = steelyard.score(rows, run=tmp_path / "run", judge="scripted")
    again = steelyard.score(rows, run=tmp_path / "run", judge="scripted")
    assert again.verdicts().equals(first.verdicts())
    with pytest.raises(UsageError, match="different: the input shards"):
        steelyard.score(rows[1:], run=tmp_path / "run", judge="scripted")
    moved = steelyard.open_run((tmp_path / "run").rename(tmp_path / "moved"))
    assert moved.export(tmp_path / "out", "preference")["verdicts"] == 12


def test_rows_with_values_of_several_kinds(tmp_path):
    rows = pairs_table(3).to_pylist()
    rows[1]["response_a"] = 7
    run = steelyard.score(rows, run=tmp_path / "run", judge="scripted")
    (reject,) = run.sql("FROM rejects").to_pylist()
    assert (reject["shard"], reject["row"], reject["reason"]) == ("data.parquet", 1, "format")
    assert "response_a is an integer" in reject["detail"]


def test_a_refused_input_leaves_nothing(tmp_path):
    path = lines(tmp_path / "pairs.jsonl", [{"instruction": "q", "response_a": "x"}])
    for data in (path, [{"instruction": "q", "response_a": "x"}]):
        with pytest.raises(InputRefused, match="no column for response_b"):
            steelyard.score(data, run=tmp_path / "run", judge="scripted")
        assert not (tmp_path / "run").exists()


def test_rows_of_single_responses_are_told_about_pairs(tmp_path):
    rows = [{"instruction": "q", "response": text} for text in "xyz"]
    with pytest.raises(UsageError, match="each row has one response") as refused:
        steelyard.score(rows, run=tmp_path / "run", judge="scripted")
    assert "--pairs all (3 pairs)" in refused.value.remedy


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (5, UsageError, "int is not data to judge"),
        ([1, 2], UsageError, "list is not data to judge"),
        ({"train": []}, UsageError, r"data\['train'\]"),
        ([], InputRefused, "no input was given"),
        ([{}], InputRefused, "no rows|no column|no row can be read"),
        ([{"a": 1}], InputRefused, "no column for instruction"),
        (pa.table({"a": [1]}), InputRefused, "no column for instruction"),
    ],
)
def test_what_is_not_rows_is_refused(data, error, words, tmp_path):
    with pytest.raises(error, match=words):
        steelyard.score(data, run=tmp_path / "run", judge="scripted")


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "store.duckdb"
    pairs = pairs_table(12)
    with duckdb.connect(str(path)) as connection:
        connection.register("rows_of_pairs", pairs)
        connection.sql("CREATE TABLE pairs AS SELECT * FROM rows_of_pairs")
        connection.sql('CREATE SCHEMA s; CREATE TABLE s."odd name" AS SELECT * FROM pairs')
        connection.sql("CREATE VIEW good AS SELECT * FROM pairs WHERE source <> 's0'")
    return path


@pytest.mark.parametrize(("table", "rows"), [("pairs", 12), ("s.odd name", 12), ("good", 9)])
def test_tables_and_views_of_a_database(table, rows, database, tmp_path):
    run = steelyard.score(f"{database}::{table}", run=tmp_path / "run", judge="scripted")
    assert len(run.verdicts()) == rows
    assert set(run.verdicts()["shard"].to_pylist()) == {f"store.duckdb::{table}"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("store.duckdb::pair", "did you mean pairs"),
        ("store.duckdb::x; DROP TABLE pairs", "its tables are good, pairs, s.odd name"),
        ("gone.duckdb::pairs", "there is no database"),
        ("text.duckdb::pairs", "cannot be read"),
        ("store.duckdb", "name one of its tables: store.duckdb::TABLE"),
    ],
)
def test_a_table_that_is_not_there_is_refused(name, words, database, tmp_path):
    (tmp_path / "text.duckdb").write_text("no database " * 100)
    with pytest.raises(InputRefused, match=words):
        steelyard.score(str(tmp_path / name), run=tmp_path / "run", judge="scripted")


def test_a_table_of_delta_lake_is_its_newest_version(tmp_path):
    deltalake = pytest.importorskip("deltalake")
    folder = tmp_path / "table"
    deltalake.write_deltalake(str(folder), pairs_table(12), partition_by=["source"])
    deltalake.DeltaTable(str(folder)).delete("model_a = 'm0'")
    run = steelyard.score(folder, run=tmp_path / "run", judge="scripted")
    rows = run.sql("SELECT model_a, metadata.source FROM verdicts").to_pylist()
    assert len(rows) == 8
    assert {row["model_a"] for row in rows} == {"m1", "m2"}
    assert {row["source"] for row in rows} == {"s0", "s1", "s2", "s3", "s4"}


def test_a_damaged_log_of_delta_lake_is_refused(tmp_path):
    pytest.importorskip("deltalake")
    (tmp_path / "table" / "_delta_log").mkdir(parents=True)
    (tmp_path / "table" / "_delta_log" / "00000000000000000000.json").write_text("{nonsense")
    with pytest.raises(InputRefused, match="the table of Delta Lake cannot be read"):
        steelyard.score(tmp_path / "table", run=tmp_path / "run", judge="scripted")
