"""Kind of fault: a name that is not UTF-8. Every command takes it, for input and output."""

from __future__ import annotations

import os

import pyarrow.parquet as pq
import pytest

from support.helpers import command, pairs_table

NAME = os.fsdecode(b"odd \xff\xfe")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names") / NAME
    folder.mkdir()
    table = pairs_table(60)
    table = table.append_column("gold", [["A", "B", "A"] * 20])
    with (folder / "pairs.parquet").open("wb") as file:
        pq.write_table(table, file)
    done = command(
        "score", folder / "pairs.parquet", "--run", folder / "run", "--judge", "scripted"
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "run"],
        ["sql", "run", "FROM verdicts"],
        ["compact", "run", "--out", "other.duckdb"],
        ["rank", "run"],
        ["rank", "run/verdicts.duckdb"],
        ["winrate", "run/verdicts.duckdb", "--baseline", "m0"],
        ["bias", "run/verdicts.duckdb"],
        ["evaluate", "run", "--replicates", "100"],
        ["calibrate", "fit", "run", "--out", "c.json"],
        ["export", "run", "--format", "preference", "--out", "dataset"],
        ["report", "run", "--out", "page.html"],
        ["show", "run"],
        ["power", "run"],
        ["compare", "run", "--competitors", "m0", "m3"],
        ["resume", "run"],
    ],
    ids=" ".join,
)
def test_commands(place, arguments):
    files = {"run", "run/verdicts.duckdb", "other.duckdb", "c.json", "dataset", "page.html"}
    given = [place / word if word in files else word for word in arguments]
    done = command(*given)
    assert done.returncode == 0, done.stderr
    for word in files.intersection(arguments):
        assert (place / word).exists()
