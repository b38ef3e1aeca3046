"""Databases: locked before anybody gets them, whatever the text of a statement is made from."""

import atexit
import os
import shutil
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from steelyard.errors import UsageError
from steelyard.store import sql
from steelyard.store.folder import Folder


@pytest.fixture
def files(tmp_path):
    for name in ("mine", "other"):
        pq.write_table(pa.table({"x": [1, 2, 3]}), tmp_path / f"{name}.parquet")
    with duckdb.connect(str(tmp_path / "database.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS x")
        connection.execute("CREATE VIEW v AS SELECT * FROM t")
        other = tmp_path / "other.parquet"
        connection.execute(f"CREATE VIEW outside AS SELECT * FROM read_parquet('{other}')")
    return tmp_path


def opened(files):
    """Every way to a connection."""
    yield sql.open_memory()
    yield sql.open_file(files / "database.duckdb")
    mine, result = (str(files / name) for name in ("mine.parquet", "result.duckdb"))
    with sql.open_scratch(Folder(files), "spill", reads=[mine], result=result) as connection:
        yield connection
    with sql.open_scratch(Folder(files), "spill", "scratch.duckdb") as connection:
        yield connection


def attacks(files):
    other = files / "other.parquet"
    return [
        f"SELECT * FROM read_parquet('{other}')",
        f"SELECT * FROM '{other}'",
        f"SELECT * FROM read_text('{other}')",
        f"SELECT * FROM glob('{files}/*')",
        f"COPY (SELECT 1) TO '{files}/written.csv'",
        f"COPY (SELECT 1) TO '{other}' (USE_TMP_FILE false)",
        f"ATTACH '{files}/written.duckdb'",
        f"EXPORT DATABASE '{files}/written'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET allowed_directories = ['/']",
        "PRAGMA enable_profiling = 'json'",
        "SELECT * FROM secret_of_python",
    ]


def test_no_connection_reaches_a_file_that_was_not_opened_for_it(files):
    secret_of_python = pa.table({"x": [1]})
    for connection in opened(files):
        before = {path.name: path.read_bytes() for path in files.glob("*.parquet")}
        for attack in attacks(files):
            with pytest.raises(duckdb.Error):
                connection.execute(attack)
        assert {path.name: path.read_bytes() for path in files.glob("*.parquet")} == before
        assert not list(files.glob("written*"))
        connection.close()
    assert secret_of_python.num_rows == 1


def test_a_view_inside_a_database_opens_no_file(files):
    connection = sql.open_file(files / "database.duckdb")
    assert connection.execute("SELECT x FROM v").fetchall() == [(7,)]
    with pytest.raises(duckdb.PermissionException):
        connection.execute("SELECT * FROM outside")


def test_a_scratch_database_has_what_it_was_opened_for(files):
    mine, result = files / "mine.parquet", files / "result.duckdb"
    with sql.open_scratch(
        Folder(files), "spill", reads=[str(mine)], result=str(result)
    ) as connection:
        sql.view_parquet(connection, "mine", [str(mine)], pa.schema([("x", pa.int64())]))
        connection.execute("CREATE TABLE result.t AS SELECT sum(x) AS x FROM mine")
        connection.execute("CHECKPOINT result")
    assert sorted(path.name for path in files.iterdir() if "result" in path.name) == [
        "result.duckdb"
    ]
    with duckdb.connect(result, read_only=True) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(6,)]
    with sql.open_scratch(
        Folder(files), "spill", result=str(result)
    ) as connection:  # an earlier one
        connection.execute("UPDATE result.t SET x = 8")
    assert not (files / "spill").exists()


def test_arrow_tables_are_registered_in_a_locked_database(files):
    connection = sql.open_memory()
    connection.register("table_of_arrow", pa.table({"x": [1, 2]}))
    connection.register("file_of_arrow", ds.dataset(files / "mine.parquet"))
    query = "SELECT (SELECT sum(x) FROM table_of_arrow), (SELECT sum(x) FROM file_of_arrow)"
    assert connection.execute(query).fetchall() == [(3, 6)]


TEXTS = ("", "'", "''", "\\'", "a\0b", "\0", "'; SELECT 1 --", "$$", "x' || chr(39)", "\n/*", "é😀")


@pytest.mark.parametrize("text", TEXTS)
def test_a_literal_is_its_text(text):
    connection = sql.open_memory()
    assert connection.execute(f"SELECT {sql.sql_text(text)}").fetchall() == [(text,)]
    assert connection.execute(f"SELECT {sql.sql_list([text, 'b'])}").fetchall() == [([text, "b"],)]


@pytest.mark.parametrize(
    ("values", "kind", "shown"),
    [
        (pa.array(np.array([1.5, np.inf], np.float16)), "FLOAT", ["1.5", "inf"]),
        (pa.array([Decimal("1.5"), None], pa.decimal256(20, 1)), "DECIMAL(20,1)", ["1.5", None]),
        (pa.array([Decimal("1.5"), None], pa.decimal256(50, 1)), "DOUBLE", ["1.5", None]),
        (pa.array([7, None], pa.duration("ns")), "BIGINT", ["7", None]),
        (pa.array([[np.float16(1.5)], None], pa.list_(pa.float16())), "FLOAT[]", ["[1.5]", None]),
        (
            pa.array([{"h": np.float16(2)}, None], pa.struct([("h", pa.float16())])),
            "STRUCT(h FLOAT)",
            ["{'h': 2.0}", None],
        ),
        (
            pa.array([[("a", Decimal(3))], None], pa.map_(pa.string(), pa.decimal256(4, 0))),
            "MAP(VARCHAR, DECIMAL(4,0))",
            ["{a=3}", None],
        ),
    ],
    ids=str,
)
def test_types_that_duckdb_has_not_become_near_ones(tmp_path, values, kind, shown):
    """As plans of earlier versions hold them; DuckDB reads the same from Parquet itself."""
    file, schema = tmp_path / "pairs.parquet", pa.schema([])
    metadata = pa.StructArray.from_arrays([values], names=["x"])
    pq.write_table(pa.table({"metadata": metadata}), file)
    query = "SELECT typeof(metadata.x), metadata.x::VARCHAR FROM pairs_raw"
    expected = [(kind, text) for text in shown]
    connection = sql.open_memory()
    sql.register_parquet(connection, "pairs_raw", [str(file)], schema)
    assert connection.execute(query).fetchall() == expected
    with sql.open_scratch(Folder(tmp_path), "spill", reads=[str(file)]) as connection:
        sql.view_parquet(connection, "pairs_raw", [str(file)], schema)
        assert connection.execute(query).fetchall() == expected


# -- limits ----------------------------------------------------------------------------------------

GIB = 1 << 30


def setting(connection, name):
    return connection.execute(f"SELECT current_setting('{name}')").fetchone()[0]


@pytest.mark.parametrize(
    ("group", "expected"),
    [("max\n", 64 * GIB), (f"{8 * GIB}\n", 8 * GIB), (f"{2**63}\n", 64 * GIB), (None, 64 * GIB)],
)
def test_memory_is_that_of_the_machine_or_of_its_container(monkeypatch, group, expected):
    sizes = {"SC_PHYS_PAGES": 16 << 20, "SC_PAGE_SIZE": 4096}

    def read_text(path):
        assert str(path) == "/sys/fs/cgroup/memory.max"
        if group is None:
            raise FileNotFoundError
        return group

    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(Path, "read_text", read_text)
    assert sql.machine_memory() == expected


@pytest.mark.parametrize(("memory", "limit"), [(64 * GIB, "16.0 GiB"), (2 * GIB, "1.0 GiB")])
def test_a_query_gets_a_quarter_of_the_memory(monkeypatch, memory, limit):
    monkeypatch.setattr(sql, "machine_memory", lambda: memory)
    assert setting(sql.open_memory(), "memory_limit") == limit


def test_each_query_has_a_folder_of_its_own_that_ends_with_the_process(monkeypatch, tmp_path):
    registered = []
    monkeypatch.setattr(atexit, "register", lambda *a, **options: registered.append((a, options)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sql._spill_folder.cache_clear()
    try:
        first, second = (Path(setting(sql.open_memory(), "temp_directory")) for _ in range(2))
        assert first != second
        assert first.parent == second.parent
        assert first.parent.parent == tmp_path
        assert first.parent.name.startswith("steelyard-")
        assert registered == [((shutil.rmtree, first.parent), {"ignore_errors": True})]
        sql._spill_folder.cache_clear()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
        assert setting(sql.open_memory(), "temp_directory") == ""
    finally:
        sql._spill_folder.cache_clear()


def test_a_scratch_database_has_its_limits(tmp_path):
    folder = Folder(tmp_path)
    (tmp_path / "spill").mkdir()
    (tmp_path / "spill" / "old").write_bytes(b"left by a kill")
    with sql.open_scratch(folder, "spill", memory=200_000_000, keep_order=False) as connection:
        assert not (tmp_path / "spill").exists()
        assert setting(connection, "memory_limit") == "190.7 MiB"
        assert setting(connection, "temp_directory") == folder.new_path("spill")
        assert setting(connection, "preserve_insertion_order") is False
        (tmp_path / "spill").mkdir()
    assert not (tmp_path / "spill").exists()
    with sql.open_scratch(folder, "spill") as connection:
        assert setting(connection, "memory_limit") == "732.4 MiB"  # 768 MB
        assert setting(connection, "preserve_insertion_order") is True
        assert setting(connection, "enable_progress_bar") is False


def test_a_scratch_database_is_closed_and_what_it_spilled_removed_after_an_error(tmp_path):
    with (  # noqa: PT012 - what fails is the block
        pytest.raises(KeyError),
        sql.open_scratch(Folder(tmp_path), "spill") as connection,
    ):
        (tmp_path / "spill").mkdir()
        raise KeyError
    assert not (tmp_path / "spill").exists()
    with pytest.raises(duckdb.ConnectionException):
        connection.execute("SELECT 1")


def test_a_full_disk_in_a_scratch_database_is_an_error_of_the_machine(tmp_path):
    with pytest.raises(MemoryError), sql.open_scratch(Folder(tmp_path), "spill"):
        raise duckdb.OutOfMemoryException("no room")
    with pytest.raises(KeyboardInterrupt), sql.open_scratch(Folder(tmp_path), "spill"):
        raise duckdb.InterruptException("INTERRUPT Error")


def test_a_scratch_database_may_have_a_file(tmp_path):
    with sql.open_scratch(Folder(tmp_path), "spill", "scratch.duckdb") as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS x")
    with sql.open_scratch(Folder(tmp_path), "spill", "scratch.duckdb") as connection:
        assert connection.execute("FROM t").fetchall() == [(7,)]


def test_nothing_is_installed_loaded_or_kept_by_itself(files):
    names = (
        "allow_community_extensions", "allow_persistent_secrets", "autoinstall_known_extensions",
        "autoload_known_extensions", "python_enable_replacements", "enable_external_access",
    )  # fmt: skip
    for connection in opened(files):
        assert [setting(connection, name) for name in names] == [False] * 6


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.duckdb").write_bytes(b"x" * 10_000)
    for name in ("x.duckdb", "missing.duckdb"):
        with pytest.raises(duckdb.Error):
            sql.open_file(tmp_path / name)
    assert not (tmp_path / "missing.duckdb").exists()


def test_a_database_is_opened_for_reading_only(files):
    with sql.open_file(files / "database.duckdb") as connection:
        with pytest.raises(duckdb.InvalidInputException, match="read-only"):
            connection.execute("CREATE TABLE more AS SELECT 1")
        assert connection.execute("SELECT current_catalog()").fetchone() == ("verdicts",)


@pytest.mark.parametrize(("name", "same"), [("plain", True), ("a?b", False), ("a\\b", False)])
def test_duckdb_gets_a_folder_whose_path_has_no_syntax(tmp_path, name, same):
    place = tmp_path / name
    place.mkdir()
    folder = Folder(place)
    with sql.folder_for_files(folder) as inside:
        assert (inside is folder) == same
        assert inside.exists()
        assert not {"?", "\\"} & set(str(inside.path))
    assert inside.exists() == same
    (tmp_path / "link").symlink_to(place)
    linked = Folder(tmp_path / "link")
    with sql.folder_for_files(linked) as inside:
        assert (inside is linked) == same


# -- tables and texts ------------------------------------------------------------------------------


def test_no_files_are_an_empty_table(tmp_path):
    schema = pa.schema([("x", pa.int64())])
    connection = sql.open_memory()
    sql.register_parquet(connection, "none", [], schema)
    assert connection.sql("FROM none").types == ["BIGINT"]
    assert connection.sql("FROM none").fetchall() == []
    with sql.open_scratch(Folder(tmp_path), "spill") as connection:
        sql.view_parquet(connection, "none", [], schema)
        assert connection.sql("FROM none").types == ["BIGINT"]
        assert connection.sql("FROM none").fetchall() == []


def test_a_dataset_that_duckdb_can_read_stays_as_it_is(files):
    dataset = ds.dataset(files / "mine.parquet")
    assert sql.readable(dataset) is dataset


def test_files_are_read_one_after_the_other(tmp_path):
    paths = [str(tmp_path / f"{k}.parquet") for k in range(3)]
    for k, path in enumerate(paths):
        pq.write_table(pa.table({"x": [k]}), path)
    connection = sql.open_memory()
    sql.register_parquet(connection, "rows", paths[:2], pa.schema([]))
    assert connection.sql("SELECT x FROM rows").fetchall() == [(0,), (1,)]
    with sql.open_scratch(Folder(tmp_path), "spill", reads=paths[:2]) as connection:
        sql.view_parquet(connection, "rows", paths[:2], pa.schema([]))
        assert connection.sql("SELECT x FROM rows").fetchall() == [(0,), (1,)]
        with pytest.raises(duckdb.PermissionException):
            connection.sql(f"SELECT x FROM read_parquet('{paths[2]}')")


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("SELECT 1; COPY t TO 'x'", "COPY"),
        ("attach 'x'", "ATTACH"),
        ("DETACH x", "DETACH"),
        ("EXPORT DATABASE 'x'", "EXPORT"),
        ("PREPARE p AS SELECT 1", "PREPARE"),
        ("EXECUTE p", "EXECUTE"),
        ("LOAD httpfs", "LOAD"),
        ("explain analyze copy (select 1) to 'x'", "COPY"),
    ],
)
def test_a_query_may_not_name_a_file(query, word):
    with pytest.raises(UsageError, match=f"cannot {word}:"):
        sql.check_reading(sql.open_memory(), query)


@pytest.mark.parametrize("query", ["SELECT 'COPY'", "EXPLAIN SELECT 1", "FROM t; DESCRIBE t", ""])
def test_a_query_that_reads_is_allowed(query):
    sql.check_reading(sql.open_memory(), query)


def test_the_first_column_without_numbers_is_named():
    connection = sql.open_memory()
    connection.execute(
        """CREATE TABLE t AS SELECT * FROM (VALUES (1, '1.5', NULL, 'x', '\\x41'::BLOB),
        (2, NULL, NULL, '3', NULL)) v(number, text, nothing, "wo""rd", bytes)"""
    )
    good = {"a": "number", "b": "text", "c": "nothing", "d": "missing"}
    assert sql.describe_text(connection, "t", good) == ""
    assert sql.describe_text(connection, "t", good | {"the logit": '"wo""rd"', "e": "bytes"}) == (
        "column wo\"rd (VARCHAR) for the logit does not hold numbers: 'x'"
    )
    assert sql.describe_text(connection, "t", {"e": "bytes"}) == (
        "column bytes (BLOB) for e does not hold numbers: b'A'"
    )


def test_one_row_is_one_row():
    connection = sql.open_memory()
    assert sql.one_row(connection, "SELECT 1, 'a'") == (1, "a")
    for query in ("SELECT 1 WHERE false", "FROM range(2)"):
        with pytest.raises(ValueError, match="values to unpack"):
            sql.one_row(connection, query)


def test_half_a_character_is_shown():
    assert sql.utf8_text("a\udcffb") == "a\\udcffb"
    assert sql.sql_text("\udcff") == "'\\udcff'"
