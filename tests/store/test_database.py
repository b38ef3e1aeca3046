"""Views, locked SQL and the hand-off file; CI runs these on DuckDB 1.5 too."""

import ast
import os
import shutil
import subprocess
import sys

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.errors import IntegrityFault, SteelyardError, UsageError
from steelyard.scoring.run import score
from steelyard.store.reads.journal import read_journal
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import database, handoff, portions, queries, user_queries
from support.helpers import pairs_table

QUIET = Reporter(quiet=True)


def config(shard, **options):
    return RunConfig.from_mapping({"inputs": [str(shard)], "judge": "scripted", **options}, "test")


def take(run):
    return RunSnapshot.take(run.root)


def query(run, sql):
    return user_queries.query(take(run), sql)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("database")
    pq.write_table(pairs_table(80), place / "pairs.parquet")
    judge = "scripted:fail=0.01"
    score(config(place / "pairs.parquet", judge=judge, part_rows=32), place / "run", QUIET)
    return RunDir(place / "run")


def expected(run):
    """A naive twin of the verdict: dictionaries and NumPy."""
    parts = [pq.read_table(run.root / part.name) for part in read_journal(run.root)]
    reads = {row["prompt_key"]: row for row in pa.concat_tables(parts).to_pylist()}
    verdicts = {}
    for pair in pq.read_table(run.plan / "pairs-00000.parquet").to_pylist():
        ab, ba = (reads[key] for key in pair["keys"])
        verdict = {"status": next((r["status"] for r in (ab, ba) if r["status"] != "ok"), "ok")}
        if verdict["status"] == "ok":
            logit_ab = ab["label_logprobs"][0] - ab["label_logprobs"][1]
            logit_ba = ba["label_logprobs"][1] - ba["label_logprobs"][0]
            sigmoid = [1 / (1 + np.exp(-x)) for x in (logit_ab, logit_ba)]
            verdict |= {
                "preference_ab": sigmoid[0],
                "preference_ba": sigmoid[1],
                "raw_preference": 1 / (1 + np.exp(-(logit_ab + logit_ba) / 2)),
                "symmetry_deviation": sigmoid[0] - sigmoid[1],
                "consistent": (logit_ab > 0) == (logit_ba > 0),
                "label_mass_ab": ab["label_mass"],
                "label_mass_ba": ba["label_mass"],
            }
        verdicts[pair["pair_id"]] = verdict
    return verdicts


@pytest.mark.parametrize("live", [False, True])
def test_verdicts_equal_a_naive_twin(run, live, tmp_path):
    if live:
        run.database.rename(tmp_path / "aside")
    try:
        found = query(run, "SELECT * FROM verdicts").to_pylist()
    finally:
        if live:
            (tmp_path / "aside").rename(run.database)
    wanted = expected(run)
    assert len(found) == len(wanted) == 80
    assert {row["status"] for row in found} == {"ok", "error"}
    for row in found:
        for name, value in wanted[row["pair_id"]].items():
            assert row[name] == (pytest.approx(value, abs=1e-12) if name != "status" else value)
        if row["status"] != "ok":
            assert row["raw_preference"] is None


def test_the_hand_off_file_opens_without_us(run):
    with duckdb.connect(str(run.database), read_only=True) as connection:
        tables = {name for (name,) in connection.execute("SHOW TABLES").fetchall()}
        ((count,),) = connection.execute("SELECT count(*) FROM verdicts").fetchall()
    views = {"leaderboard", "win_matrix", "position_bias", "length_bias"}
    assert tables == {"verdicts", "answers", "reads", "rejects", "work", "run", *views}
    assert count == 80


def test_another_duckdb_reads_the_hand_off_file(run):
    """A file written by the newest DuckDB is read by the oldest that is supported."""
    place = os.environ.get("STEELYARD_OTHER_DUCKDB")
    if not place:
        pytest.skip("STEELYARD_OTHER_DUCKDB names no folder with another DuckDB; .ci/run does")
    code = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True);"
        "print(duckdb.__version__, c.execute('SELECT count(*), sum(raw_preference), count(metadata)"
        " FROM verdicts').fetchall()[0])"
    )
    command = [sys.executable, "-c", code, str(run.database)]
    environment = os.environ | {"PYTHONPATH": place}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    version, _, row = done.stdout.strip().partition(" ")
    assert version != duckdb.__version__
    mine = run_sql(run, "SELECT count(*) AS a, sum(raw_preference) AS b, count(metadata) AS c")
    assert ast.literal_eval(row) == (mine["a"], pytest.approx(mine["b"]), mine["c"])


def run_sql(run, select):
    return query(run, f"{select} FROM verdicts").to_pylist()[0]


def test_the_hand_off_file_has_the_old_storage_format(run):
    """64 is what DuckDB 1.0 to 1.x write by default; 2.0 alone reads its own newer one."""
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"ATTACH '{run.database}' AS f (READ_ONLY)")
        ((tags,),) = connection.execute(
            "SELECT tags FROM duckdb_databases() WHERE database_name = 'f'"
        ).fetchall()
    assert str(dict(tags)["storage_version"]).startswith("v1.")


ALLOWED = [
    "FROM verdicts LIMIT 1",
    "DESCRIBE verdicts",
    "SUMMARIZE verdicts",
    "EXPLAIN SELECT 1",
    "SHOW TABLES",
    "WITH x AS (SELECT 1) FROM x",
    "PIVOT (SELECT status, protocol FROM verdicts) ON status USING count(*)",
    "SELECT metadata.source, count(*) FROM verdicts GROUP BY ALL",
]


@pytest.mark.parametrize("sql", ALLOWED)
@pytest.mark.parametrize("live", [False, True])
def test_questions_are_answered(run, sql, live, tmp_path):
    if live:
        run.database.rename(tmp_path / "aside")
    try:
        assert len(query(run, sql)) > 0
        assert user_queries.show(take(run), sql, 10)
    finally:
        if live:
            (tmp_path / "aside").rename(run.database)


def attacks(run):
    part = run.root / read_journal(run.root)[0].name
    return [
        "SELECT * FROM read_text('/etc/passwd')",
        f"SELECT * FROM read_parquet('{part}')",
        f"SELECT * FROM '{part}'",
        f"COPY verdicts TO '{run.root}/out.csv'",
        f"COPY (SELECT 1) TO '{part}' (FORMAT parquet, USE_TMP_FILE false)",
        f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{part}' (USE_TMP_FILE false)",
        f"ATTACH '{run.root}/other.duckdb'",
        f"ATTACH '{run.database}' AS again; CREATE TABLE again.x AS SELECT 1",
        f"ATTACH '{run.database}' AS again (READ_WRITE)",
        f"USE memory; DETACH verdicts; ATTACH '{run.database}' AS a; CREATE TABLE a.x AS SELECT 1",
        f"COPY (SELECT 1) TO '{run.database}.wal'",
        f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{run.database}.wal'",
        f"PREPARE p AS COPY (SELECT 1) TO '{run.database}.wal'; EXECUTE p",
        "EXPORT DATABASE '/tmp/exported'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET threads = 1",
        "RESET enable_external_access",
        "SELECT * FROM secret_of_python",
        "SELECT * FROM glob('/*')",
        "SELECT getenv('HOME')",
        "CALL pragma_database_size(); COPY (SELECT 1) TO '/tmp/x.csv'",
    ]


@pytest.mark.parametrize("live", [False, True])
def test_a_query_sees_the_run_and_nothing_else(run, live, tmp_path):
    secret_of_python = pa.table({"x": [1]})
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*") if path.is_file()}
    moved = tmp_path / "aside"
    if live:
        run.database.rename(moved)
    try:
        for sql in attacks(run):
            with pytest.raises(UsageError, match=r"DuckDB refuses|cannot"):
                query(run, sql)
            with pytest.raises(UsageError, match=r"DuckDB refuses|cannot"):
                user_queries.show(take(run), sql, 10)
    finally:
        if live:
            moved.rename(run.database)
    after = {path: path.stat().st_mtime_ns for path in run.root.rglob("*") if path.is_file()}
    assert after == before
    assert secret_of_python.num_rows == 1


def test_two_queries_of_one_process_are_open_at_once(run):
    with database.open_sql(take(run)) as first, database.open_sql(take(run)) as second:
        counts = [one.sql("SELECT count(*) FROM verdicts").fetchall() for one in (first, second)]
    assert counts == [[(80,)], [(80,)]]


def test_the_work_of_buckets_is_whole_numbers_and_seconds(run):
    described = query(run, "SELECT column_name, column_type FROM (DESCRIBE work)")
    types = {row["column_name"]: row["column_type"] for row in described.to_pylist()}
    assert types.pop("bucket") == "INTEGER"
    assert types.pop("hit_rate") == "DOUBLE"
    assert {"prompts", "unique_tokens", "engine_seconds"} <= types.keys()
    for name, kind in types.items():
        assert kind == ("DOUBLE" if name.endswith("_seconds") else "BIGINT"), name


def test_what_a_query_changes_is_gone_with_it(run):
    for sql in ("DROP TABLE verdicts", "DELETE FROM reads", "UPDATE verdicts SET judge = 'x'"):
        with pytest.raises(UsageError):
            query(run, sql)
    assert len(query(run, "FROM verdicts")) == 80


def test_a_run_that_lost_its_plan_is_no_empty_run(run, tmp_path):
    lost = RunDir(tmp_path / "run")
    shutil.copytree(run.root, lost.root)
    shutil.rmtree(lost.plan)
    assert len(query(lost, "FROM verdicts")) == 80  # the hand-off file holds them
    lost.database.unlink()
    with pytest.raises(IntegrityFault, match="the plan of the run is missing"):
        query(lost, "FROM verdicts")


def test_an_outdated_hand_off_file_is_not_asked(run, tmp_path):
    aside = tmp_path / "aside"
    text = (run.root / "journal.jsonl").read_bytes()
    aside.write_bytes(text)
    try:
        (run.root / "journal.jsonl").write_bytes(text.splitlines(keepends=True)[0])
        with run.lock():  # as while it is written
            assert len(query(run, "FROM reads")) == read_journal(run.root)[0].rows
    finally:
        (run.root / "journal.jsonl").write_bytes(text)


def test_compact_elsewhere_equals_the_one_at_home(run, tmp_path):
    counts = handoff.compact(take(run), tmp_path / "copy.duckdb")
    assert counts["verdicts"] == counts["pairs"] == 80
    assert counts["reads"] == counts["prompts"]
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"ATTACH '{tmp_path / 'copy.duckdb'}' AS a (READ_ONLY)")
        connection.execute(f"ATTACH '{run.database}' AS b (READ_ONLY)")
        for table in ("verdicts", "answers", "reads", "rejects", "run"):
            left = connection.execute(f"FROM a.{table} EXCEPT ALL FROM b.{table}").fetchall()
            right = connection.execute(f"FROM b.{table} EXCEPT ALL FROM a.{table}").fetchall()
            assert left == right == []


def test_compact_replaces_nothing_but_its_own(run, tmp_path):
    (tmp_path / "mine.parquet").write_bytes(b"PAR1 my data")
    with pytest.raises(UsageError, match="not an earlier result"):
        handoff.compact(take(run), tmp_path / "mine.parquet")
    assert (tmp_path / "mine.parquet").read_bytes() == b"PAR1 my data"
    with pytest.raises(UsageError, match="inside a run directory"):
        handoff.compact(take(run), run.root / "other.duckdb")
    handoff.compact(take(run), tmp_path / "again.duckdb")
    handoff.compact(take(run), tmp_path / "again.duckdb")
    assert {path.name for path in tmp_path.iterdir()} == {"mine.parquet", "again.duckdb"}


def test_books_that_do_not_balance_make_no_database(run, tmp_path):
    """A part committed twice under two names: every read is there twice."""
    text = (run.root / "journal.jsonl").read_bytes()
    part = read_journal(run.root)[0]
    double = "reads/part-00009999.parquet"
    (run.root / double).write_bytes((run.root / part.name).read_bytes())
    try:
        from dataclasses import replace

        from steelyard.store.reads.journal import append

        with run.lock():
            append(run, replace(part, name=double))
            with pytest.raises(IntegrityFault, match="do not balance"):
                handoff.compact(take(run), tmp_path / "no.duckdb")
        assert not list(tmp_path.iterdir())
    finally:
        (run.root / "journal.jsonl").write_bytes(text)
        (run.root / double).unlink()


def test_compact_says_where_it_cannot_write(run, tmp_path):
    with pytest.raises(SteelyardError, match="does not exist"):
        handoff.compact(take(run), tmp_path / "no" / "file.duckdb")
    with pytest.raises(SteelyardError):
        handoff.compact(take(run), tmp_path)


def test_pair_ids_for_different_pairs_are_counted(tmp_path):
    table = pairs_table(6).append_column("pair_id", pa.array(["a", "a", "b", "c", "c", "d"]))
    table = pa.concat_tables([table, table.slice(5, 1)])  # d twice, with the same content
    pq.write_table(table, tmp_path / "p.parquet")
    score(config(tmp_path / "p.parquet"), tmp_path / "run", QUIET)
    assert queries.ambiguous_pair_ids(RunDir(tmp_path / "run")) == 2


def test_metadata_keeps_its_types(tmp_path):
    import datetime
    import decimal

    extra = {
        "row id": pa.array([1, 2], pa.int64()),
        "select": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(5, 2)),
        "when": pa.array([datetime.datetime(2026, 1, 2), None], pa.timestamp("us")),
        "tags": pa.array([["x", "y"], []], pa.list_(pa.string())),
        "nested": pa.array([{"a": 1}, {"a": None}], pa.struct([("a", pa.int32())])),
        'quo"te': pa.array([True, False]),
        "status": pa.array(["mine", "too"]),
    }
    table = pairs_table(2).drop_columns("source")
    for name, values in extra.items():
        table = table.append_column(name, values)
    pq.write_table(table, tmp_path / "p.parquet")
    run = steelyard.score(tmp_path / "p.parquet", run=tmp_path / "run", judge="scripted")
    found = run.verdicts()["metadata"].to_pylist()
    assert found == [{name: extra[name][at].as_py() for name in extra} for at in range(2)]
    assert run.sql('SELECT metadata."row id" AS i FROM verdicts ORDER BY i')["i"].to_pylist() == [
        1,
        2,
    ]


def test_verdicts_made_some_buckets_at_a_time_are_those_made_at_once(run, monkeypatch, tmp_path):
    monkeypatch.setattr(portions, "PROMPTS_AT_ONCE", 7)
    counts = handoff.compact(take(run), tmp_path / "pieces.duckdb")
    ordered = 'SELECT * EXCLUDE (metadata, read_at) FROM verdicts ORDER BY shard, "row"'
    with duckdb.connect(str(tmp_path / "pieces.duckdb"), read_only=True) as connection:
        pieces = connection.sql(ordered).fetchall()
    with duckdb.connect(str(run.database), read_only=True) as connection:
        assert pieces == connection.sql(ordered).fetchall()
    assert counts["verdicts"] == len(pieces) > 7


def test_verdicts_with_more_metadata_than_memory(monkeypatch, tmp_path):
    """A sort of 80 MB of metadata does not fit into 96 MB, whatever it spills."""
    monkeypatch.setattr(portions, "BYTES_AT_ONCE", 16 << 20)
    monkeypatch.setattr(portions, "MEMORY_LIMIT", 96_000_000)
    monkeypatch.setattr(portions, "BESIDES", 0)
    page = np.random.default_rng(0).bytes(5000 + 8000).hex()
    pages = pa.array([page[i : i + 10_000] for i in range(8000)])
    table = pairs_table(8000).append_column("page", pages)
    pq.write_table(table, tmp_path / "pairs.parquet", row_group_size=2000)
    score(config(tmp_path / "pairs.parquet"), tmp_path / "run", QUIET)
    with duckdb.connect(str(tmp_path / "run/verdicts.duckdb"), read_only=True) as connection:
        rows = connection.sql('SELECT "row", metadata.page FROM verdicts').fetchall()
    assert rows == [(row, pages[row].as_py()) for row in range(8000)]
