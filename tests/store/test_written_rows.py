"""Answers of queries as CSV and Parquet, in this process."""

from __future__ import annotations

import errno
import io
from contextlib import contextmanager

import duckdb
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.errors import DiskFull, UsageError
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import user_queries, written_rows
from support.helpers import pairs_table


@pytest.fixture
def connection():
    with duckdb.connect(":memory:") as connection:
        yield connection


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    place = tmp_path_factory.mktemp("answers")
    pq.write_table(pairs_table(5), place / "p.parquet")
    run = steelyard.score(place / "p.parquet", run=place / "run", judge="scripted")
    return RunSnapshot.take(run.root)


# -- rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("NULL", ""),
        ("''", '""'),
        ("'plain text'", "plain text"),
        ("'a, b'", '"a, b"'),
        ("'say \"x\"'", '"say ""x"""'),
        ("'a' || chr(10) || 'b'", '"a\nb"'),
        ("'a' || chr(13) || 'b'", '"a\rb"'),
        ("'é'", "é"),
        ("true", "true"),
        ("false", "false"),
        ("7::BIGINT", "7"),
        ("0.5::DOUBLE", "0.5"),
        ("1.50::DECIMAL(3, 2)", "1.50"),
        ("'\\x0A\\xFF'::BLOB", "0aff"),
        ("[1, 2]", '"[1, 2]"'),
        ("['é']", '"[""é""]"'),
        ("['\\xFF'::BLOB]", '"[""ff""]"'),
        ("{'x': 1}", '"{""x"": 1}"'),
        ("[]::INTEGER[]", "[]"),
    ],
)
def test_a_cell_of_csv(connection, value, cell):
    relation = connection.sql(f"SELECT {value} AS x")
    assert list(written_rows.csv_lines(connection, relation)) == ["x", cell]


def test_lines_have_all_cells_and_columns_one_name_each(connection):
    relation = connection.sql('SELECT 1 AS x, NULL AS "a,b", 2 AS x UNION ALL SELECT 3, 4, NULL')
    assert list(written_rows.csv_lines(connection, relation)) == ['x,"a,b",x_2', "1,,2", "3,4,"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_rows_are_counted(connection, count):
    relation = connection.sql(f"SELECT 'é' AS x FROM range({count})")
    out = io.BytesIO()
    assert written_rows.write_csv(connection, relation, out) == count
    assert out.getvalue() == b"x\n" + "é\n".encode() * count
    out = io.BytesIO()
    assert written_rows.write_parquet(relation, out) == count
    assert pq.read_table(out).to_pylist() == [{"x": "é"}] * count


def test_parquet_has_row_groups_of_65536_rows_and_checksums(connection):
    out = io.BytesIO()
    relation = connection.sql("SELECT range AS n, range AS n FROM range(65536 + 10)")
    assert written_rows.write_parquet(relation, out) == 65546
    file = pq.ParquetFile(out)
    groups = [file.metadata.row_group(k) for k in range(file.metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [65536, 10]
    assert groups[0].column(0).compression == "ZSTD"
    assert file.schema_arrow.names == ["n", "n_2"]
    assert file.read()["n_2"].to_pylist() == list(range(65546))


# -- files -----------------------------------------------------------------------------------------


def test_an_answer_is_written_whole(snapshot, tmp_path):
    query = 'SELECT "row" AS r, gold FROM verdicts ORDER BY r'
    assert user_queries.write(snapshot, query, "csv", tmp_path / "x.csv") == 5
    assert (tmp_path / "x.csv").read_text().splitlines()[:2] == ["r,gold", "0,"]
    assert user_queries.write(snapshot, query, "parquet", tmp_path / "x.parquet") == 5
    assert pq.read_table(tmp_path / "x.parquet")["r"].to_pylist() == [0, 1, 2, 3, 4]
    assert list(user_queries.csv_lines(snapshot, query))[-1] == "4,"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv", "x.parquet"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_answer_that_cannot_be_written_leaves_nothing(snapshot, tmp_path, monkeypatch, kind):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(user_queries, "publish", full)
    with pytest.raises(DiskFull) as fault:
        user_queries.write(snapshot, "SELECT 1", kind, tmp_path / "x")
    assert fault.value.place == str(tmp_path / "x")
    assert fault.value.effect == "nothing was written"
    assert fault.value.remedy == "free some space, then run the command again"
    assert not list(tmp_path.iterdir())


def test_a_wrong_query_leaves_nothing(snapshot, tmp_path):
    for answer in (
        lambda: user_queries.write(snapshot, "SELECT nothing", "csv", tmp_path / "x"),
        lambda: list(user_queries.csv_lines(snapshot, "SELECT nothing")),
    ):
        with pytest.raises(UsageError, match="DuckDB refuses the query"):
            answer()
    assert not list(tmp_path.iterdir())


def test_an_answer_replaces_nothing(snapshot, tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(UsageError, match="something of that name already"):
        user_queries.write(snapshot, "SELECT 1", "csv", tmp_path / "x")
    assert (tmp_path / "x").read_text() == "mine"


@pytest.mark.parametrize("kind", ["EXPORT", "COPY", "ATTACH"])
def test_a_statement_that_would_open_a_file_is_refused_before_duckdb_sees_it(
    snapshot, kind, tmp_path
):
    statement = {
        "EXPORT": f"EXPORT DATABASE '{tmp_path}/x'",
        "COPY": f"COPY verdicts TO '{tmp_path}/x'",
        "ATTACH": f"ATTACH '{tmp_path}/x'",
    }[kind]
    for answer in (user_queries.query, lambda *given: list(user_queries.rows(*given))):
        with pytest.raises(UsageError, match=f"a query cannot {kind}"):
            answer(snapshot, statement)
    assert not list(tmp_path.iterdir())


def test_texts_are_fetched_from_other_machines_only_with_leave(snapshot, tmp_path, monkeypatch):
    asked, original = [], user_queries.TextTable

    def note(record, *, remote):
        asked.append(remote)
        return original(record)

    monkeypatch.setattr(user_queries, "TextTable", note)
    sql = "SELECT 1 AS x"
    for given, wanted in (({}, False), ({"remote": False}, False), ({"remote": True}, True)):
        user_queries.query(snapshot, sql, **given)
        list(user_queries.rows(snapshot, sql, **given))
        user_queries.show(snapshot, sql, 5, **given)
        list(user_queries.csv_lines(snapshot, sql, **given))
        user_queries.write(snapshot, sql, "csv", tmp_path / "x", **given)
        (tmp_path / "x").unlink()
        assert asked == [wanted] * 5
        asked.clear()


def test_a_statement_without_an_answer(snapshot, tmp_path, monkeypatch):
    @contextmanager
    def nothing(*_, **__):
        yield None, None

    monkeypatch.setattr(user_queries, "_answer", nothing)
    assert user_queries.query(snapshot, "").num_columns == 0
    assert list(user_queries.rows(snapshot, "")) == []
    assert user_queries.show(snapshot, "", 5) == ""
    for answer in (
        lambda: list(user_queries.csv_lines(snapshot, "")),
        lambda: user_queries.write(snapshot, "", "csv", tmp_path / "x"),
    ):
        with pytest.raises(UsageError, match="the query has no rows"):
            answer()
    assert not list(tmp_path.iterdir())
