"""The hand-off file: damage that DuckDB finds in it, and what others leave next to it.

Kind of fault: a log that somebody's crashed writer left.
"""

import duckdb
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.errors import IntegrityFault
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import handoff
from steelyard.store.verdicts.database import open_handoff, open_sql
from support.helpers import pairs_table

COUNT = "SELECT count(*) AS n FROM verdicts"


@pytest.fixture
def run(tmp_path):
    pq.write_table(pairs_table(40), tmp_path / "pairs.parquet")
    return steelyard.score(tmp_path / "pairs.parquet", run=tmp_path / "run", judge="scripted")


def damage(path):
    """Change a byte in each block of the data, and none of the headers."""
    data = bytearray(path.read_bytes())
    for start in range(3 * 4096 + 100, len(data), 4096):
        data[start] ^= 0x55
    path.write_bytes(data)


def test_a_damaged_database_is_an_integrity_error_until_it_is_compacted(run):
    expected = run.verdicts()
    whole = (run.root / "verdicts.duckdb").read_bytes()
    damage(run.root / "verdicts.duckdb")
    try:
        assert run.verdicts().equals(expected)  # where its headers show it, parts are read
    except IntegrityFault as fault:
        assert "steelyard compact" in fault.remedy  # noqa: PT017
    handoff.compact(RunSnapshot.take(run.root))
    assert run.verdicts().equals(expected)
    assert len((run.root / "verdicts.duckdb").read_bytes()) == len(whole)


def test_a_log_that_somebody_left_next_to_it_is_not_read(run):
    """Somebody's program wrote to the database and was killed: its changes are not ours."""
    expected = run.verdicts()
    connection = duckdb.connect(str(run.root / "verdicts.duckdb"))
    connection.execute("SET checkpoint_threshold = '1 GB'")
    connection.execute("DELETE FROM verdicts")
    log = (run.root / "verdicts.duckdb.wal").read_bytes()
    database = (run.root / "verdicts.duckdb").read_bytes()
    connection.close()
    (run.root / "verdicts.duckdb.wal").write_bytes(log)
    (run.root / "verdicts.duckdb").write_bytes(database)
    assert open_handoff(RunSnapshot.take(run.root)) is None
    assert run.verdicts().equals(expected)
    handoff.compact(RunSnapshot.take(run.root))
    assert not (run.root / "verdicts.duckdb.wal").exists()
    assert run.sql(COUNT)["n"].to_pylist() == [40]


def test_what_a_killed_compaction_left_is_removed(run):
    for name in ("verdicts.duckdb.other-1.tmp", "verdicts.duckdb.other-1.tmp.wal", "duckdb.tmp"):
        (run.root / name).write_bytes(b"half")
    (run.root / "verdicts.duckdb.other-1.tmp.spill").mkdir()
    (run.root / "notes.txt").write_text("mine")
    from steelyard.scoring.run import resume

    assert resume(run.root) == 0
    names = {path.name for path in run.root.iterdir()}
    assert not [name for name in names if "tmp" in name]
    assert "notes.txt" in names


def test_a_database_with_other_views_is_not_taken_for_ours(run, tmp_path):
    """A stranger's database may have views over files of its reader."""
    (tmp_path / "secret.csv").write_text("x\nSECRET\n")
    with duckdb.connect(str(run.root / "verdicts.duckdb")) as connection:
        connection.execute("ALTER TABLE verdicts RENAME TO other")
        connection.execute(
            "CREATE VIEW verdicts AS SELECT o.*, t.* FROM other o,"
            f" (FROM read_csv('{tmp_path / 'secret.csv'}')) t"
        )
    with (
        pytest.raises(IntegrityFault, match="not the one that was written"),
        open_sql(RunSnapshot.take(run.root)) as connection,
    ):
        connection.execute("FROM verdicts").fetchall()
    handoff.compact(RunSnapshot.take(run.root))
    assert "x" not in run.verdicts().column_names
