"""Answers in files, and the table `texts`, which is read from the shards of a run."""

from __future__ import annotations

import csv
import errno
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.comparisons.importing import import_tables
from steelyard.errors import EnvironmentFault, InputRefused, UsageError
from steelyard.store.verdicts import user_queries
from support.helpers import command, pairs_table

JOIN = 'verdicts JOIN texts USING (shard, "row")'
VALUES = """
SELECT * FROM (VALUES
  (1, 'a "quoted", text', true, NULL, [1, 2], 1.5::DECIMAL(3, 1), '\\x01'::BLOB),
  (2, '', false, 'two' || chr(10) || 'lines', NULL, NULL, NULL)
) AS v(n, t, b, m, l, d, x)"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two shards with 30 and 20 pairs; the third row of the first has no instruction."""
    place = tmp_path_factory.mktemp("texts")
    table = pairs_table(30)
    instructions = table["instruction"].to_pylist()
    instructions[2] = None
    pq.write_table(table.set_column(0, "instruction", pa.array(instructions)), place / "a.parquet")
    pq.write_table(pairs_table(20, seed=1), place / "b.parquet")
    return steelyard.score([place / "a.parquet", place / "b.parquet"], run=place / "run",
                           judge="scripted")  # fmt: skip


def test_texts_are_those_of_their_rows(run):
    rows = run.sql(f'SELECT shard, "row", response_a, response_b FROM {JOIN}').to_pylist()
    assert len(rows) == 49
    for row in rows:
        seed = 0 if row["shard"] == "a.parquet" else 1
        assert row["response_a"].startswith(f"answer {seed}/{row['row']} first ")
        assert row["response_b"].startswith(f"answer {seed}/{row['row']} second ")


def test_a_query_may_read_texts_twice(run):
    (row,) = run.sql(
        "SELECT count(*) AS n, count(DISTINCT t.instruction) AS i FROM texts t JOIN texts u"
        ' USING (shard, "row")'
    ).to_pylist()
    # 30 // 4 and 20 // 4 instructions, which both shards have in common
    assert row == {"n": 49, "i": 7}


def test_texts_of_imported_tables(tmp_path):
    columns = {"instruction": ["q"], "response_a": ["x"], "response_b": ["y"], "model_a": ["m"]}
    table = pa.table({**columns, "model_b": ["n"], "preference": [0.5]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert import_tables([str(tmp_path / "t.parquet")], tmp_path / "run") == 0
    (row,) = steelyard.open_run(tmp_path / "run").sql(f"FROM {JOIN}").to_pylist()
    assert (row["instruction"], row["response_a"], row["response_b"]) == ("q", "x", "y")


def test_texts_that_have_changed_are_refused_and_all_else_is_answered(tmp_path):
    shard = tmp_path / "p.parquet"
    pq.write_table(pairs_table(5), shard)
    run = steelyard.score(shard, run=tmp_path / "run", judge="scripted")
    pq.write_table(pairs_table(5, seed=9), shard)
    assert run.sql("SELECT count(*) AS n FROM verdicts")["n"][0].as_py() == 5
    assert len(run.sql("DESCRIBE texts")) == 10
    with pytest.raises(InputRefused, match="changed"):
        run.sql("FROM texts")
    done = command("sql", run.root, "FROM texts", "--csv", tmp_path / "t.csv")
    assert done.returncode == 3
    assert "leave the table texts out" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.parquet", "run"]


def test_texts_of_the_network_need_leave(tmp_path, monkeypatch):
    shard = tmp_path / "p.parquet"
    pq.write_table(pairs_table(3), shard)
    run = steelyard.score(shard, run=tmp_path / "run", judge="scripted")
    asked = []
    monkeypatch.setattr(
        "steelyard.store.verdicts.text_table.reopen_input",
        lambda record, *, otherwise, remote: (
            asked.append(remote) or (_ for _ in ()).throw(UsageError("no", remedy="no"))
        ),
    )
    assert command("sql", run.root, "FROM texts").returncode == 2
    assert command("sql", run.root, "FROM texts", "--remote").returncode == 2
    assert asked == [False, True]


def test_csv(run, tmp_path):
    done = command("sql", run.root, VALUES, "--csv", tmp_path / "v.csv")
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr == f"note: 2 rows in {tmp_path / 'v.csv'}\n"
    text = (tmp_path / "v.csv").read_bytes().decode()
    assert text == (
        'n,t,b,m,l,d,x\n1,"a ""quoted"", text",true,,"[1, 2]",1.5,01\n2,"",false,"two\nlines",,,\n'
    )
    printed = command("sql", run.root, VALUES, "--csv", "-")
    assert (printed.stdout, printed.stderr) == (text, "note: 2 rows\n")
    read = list(csv.DictReader(io.StringIO(text)))
    assert read[1]["m"] == "two\nlines"
    assert json.loads(read[0]["l"]) == [1, 2]


def test_parquet(run, tmp_path):
    query = f'SELECT pair_id, pair_id, gold, instruction FROM {JOIN} ORDER BY shard, "row"'
    done = command("sql", run.root, query, "--parquet", tmp_path / "v.parquet")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.column_names == ["pair_id", "pair_id_2", "gold", "instruction"]
    assert table["pair_id"].to_pylist() == run.verdicts()["pair_id"].to_pylist()
    assert len(table) == 49


def test_no_rows_have_a_header(run, tmp_path):
    for kind in ("csv", "parquet"):
        out = tmp_path / f"v.{kind}"
        assert (
            command("sql", run.root, "SELECT 1 AS x WHERE false", f"--{kind}", out).returncode == 0
        )
    assert (tmp_path / "v.csv").read_text() == "x\n"
    assert pq.read_table(tmp_path / "v.parquet").column_names == ["x"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--csv", "{there}"), "something of that name already"),
        (("--parquet", "{there}"), "something of that name already"),
        (("--csv", "{missing}/x.csv"), "folder for the result does not exist"),
        (("--csv", "{run}/x.csv"), "inside a run directory"),
        (("--csv", "-", "--json"), "give one of"),
        (("--csv", "a", "--parquet", "b"), "give one of"),
        (("--parquet", "-"), "--parquet needs a file"),
    ],
)
def test_refused(run, tmp_path, options, words):
    (tmp_path / "there").write_text("mine")
    places = {"there": tmp_path / "there", "missing": tmp_path / "missing", "run": run.root}
    done = command("sql", run.root, "SELECT 1", *(text.format(**places) for text in options))
    assert done.returncode == 2
    assert words in done.stderr
    assert (tmp_path / "there").read_text() == "mine"


def test_a_query_that_fails_leaves_no_file(run, tmp_path):
    for query in ("SELECT nothing", "SELECT error(pair_id) FROM verdicts", "SELECT 1; SELECT"):
        assert command("sql", run.root, query, "--csv", tmp_path / "x.csv").returncode == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "cause", "remedy"),
    [
        (
            OSError(errno.EMFILE, "Too many open files"),
            "cannot query: Too many open files",
            "ulimit -n",
        ),
        (
            OSError(errno.ENOSPC, "the disk for temporary files is full"),
            "no room left to write: the disk for temporary files is full",
            "free some space",
        ),
        (MemoryError("9 GiB"), "the query needs too much memory: 9 GiB", "select fewer columns"),
    ],
)
def test_what_the_machine_refuses_a_query_is_said(run, monkeypatch, error, cause, remedy):
    def refuse(_snapshot):
        raise error

    monkeypatch.setattr(user_queries, "open_sql", refuse)
    with pytest.raises(EnvironmentFault) as fault:
        run.sql("FROM verdicts")
    assert fault.value.cause == cause
    assert remedy in fault.value.remedy
    assert fault.value.place == (str(run.root) if isinstance(error, OSError) else None)
    assert fault.value.exit_code == 5


def test_a_full_disk_leaves_no_file(run, tmp_path, monkeypatch):
    def full(_temporary, _path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(user_queries, "publish", full)
    done = command("sql", run.root, "FROM verdicts", "--parquet", tmp_path / "x.parquet")
    assert done.returncode == 5
    assert f"{tmp_path / 'x.parquet'}: no room left to write" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lists", [False, True], ids=["a row per response", "lists"])
def test_texts_of_pairs_that_were_made_of_responses(tmp_path, lists):
    answers = [[f"answer {n} of {name}" for name in "xyz"] for n in range(4)]
    if lists:
        columns = {
            "instruction": [f"question {n}" for n in range(4)],
            "models": [list("xyz")] * 4,
            "completions": answers,
        }
    else:
        columns = {
            "instruction": [f"question {n}" for n in range(4) for _ in "xyz"],
            "model": list("xyz") * 4,
            "response": [text for texts in answers for text in texts],
        }
    pq.write_table(pa.table(columns), tmp_path / "r.parquet")
    run = steelyard.score(tmp_path / "r.parquet", run=tmp_path / "run", judge="scripted",
                          pairs="all")  # fmt: skip
    rows = run.sql(f"SELECT model_a, model_b, texts.* FROM {JOIN}").to_pylist()
    assert len(rows) == 4 * 3
    for row in rows:
        number = row["instruction"].removeprefix("question ")
        assert row["response_a"] == f"answer {number} of {row['model_a']}"
        assert row["response_b"] == f"answer {number} of {row['model_b']}"
