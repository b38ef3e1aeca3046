"""The hand-off file: damage that DuckDB finds in it, and what others leave next to it.

Kind of fault: a log that somebody's crashed writer left.
"""

import math
import shutil

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.linear import Linear
from steelyard.comparisons.importing import import_tables
from steelyard.errors import IntegrityFault, UsageError
from steelyard.store.calibration import set_calibration
from steelyard.store.reads.journal import require_whole
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import handoff
from steelyard.store.verdicts.database import open_handoff, open_sql
from support.helpers import pairs_table

COUNT = "SELECT count(*) AS n FROM verdicts"
# Divides the odds of a by 3.
THIRD = Calibrator("platt", Linear({"logit": 1.0, "intercept": math.log(1 / 3)}))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    place = tmp_path_factory.mktemp("scored")
    pq.write_table(pairs_table(40), place / "pairs.parquet")
    return steelyard.score(place / "pairs.parquet", run=place / "run", judge="scripted").root


@pytest.fixture
def run(scored, tmp_path):
    shutil.copytree(scored, tmp_path / "run")
    return steelyard.open_run(tmp_path / "run")


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
        pytest.raises(IntegrityFault, match="not the one that was written") as fault,
        open_sql(RunSnapshot.take(run.root)) as connection,
    ):
        connection.execute("FROM verdicts").fetchall()
    assert fault.value.place == str(RunDir(run.root).database)
    assert "it is made of the parts, which are still there" in fault.value.effect
    assert f"steelyard compact {run.root}" in fault.value.remedy
    handoff.compact(RunSnapshot.take(run.root))
    assert "x" not in run.verdicts().column_names


def test_a_copy_replaces_an_earlier_copy_and_nothing_else(run, tmp_path):
    out = tmp_path / "copy.duckdb"
    for _ in range(2):
        assert handoff.compact(RunSnapshot.take(run.root), out)["verdicts"] == 40
    for content in (b"-------DUCK", b"---------DUCK", b"notes", b""):
        out.write_bytes(content)
        with pytest.raises(UsageError, match="not an earlier result"):
            handoff.compact(RunSnapshot.take(run.root), out)
        assert out.read_bytes() == content


# -- calibrated databases --------------------------------------------------------------------------


def calibrated(run):
    """Apply THIRD to a run, whose database is then written again."""
    with RunDir(run.root).lock():
        set_calibration(RunDir(run.root), THIRD)
        handoff.recalibrate(RunDir(run.root))


def third(p):
    return (p / (1 - p) / 3) / (1 + p / (1 - p) / 3)


def test_an_applied_calibrator_that_is_gone_is_undone_by_the_runs_own_database_only(run, tmp_path):
    raw = run.verdicts()
    calibrated(run)
    RunDir(run.root).calibration.unlink()
    for gone in (False, True):  # the log says so, without a database too
        if gone:
            RunDir(run.root).database.unlink()
        snapshot = RunSnapshot.take(run.root)
        assert snapshot.lost_calibrator
        with pytest.raises(IntegrityFault, match="the calibrator that was applied is gone"):
            handoff.compact(snapshot, tmp_path / "copy.duckdb")
        with pytest.raises(IntegrityFault, match="the calibrator that was applied is gone"):
            handoff.ensure_current(RunDir(run.root))
        assert not (tmp_path / "copy.duckdb").exists()
    handoff.compact(snapshot)
    assert not RunSnapshot.take(run.root).lost_calibrator
    assert run.verdicts() == raw
    calibrated(run)
    assert not RunSnapshot.take(run.root).lost_calibrator
    assert run.verdicts() != raw


def test_the_database_says_what_versions_without_a_log_applied(run):
    calibrated(run)
    for name in ("calibration.json", "sessions.jsonl"):
        (run.root / name).unlink()
    snapshot = RunSnapshot.take(run.root)
    assert not snapshot.lost_calibrator
    with pytest.raises(IntegrityFault, match="the calibrator that was applied is gone") as fault:
        open_handoff(snapshot)
    assert fault.value.place == str(RunDir(run.root).calibration)


def test_the_winners_of_a_calibrated_database_have_the_tie_band(tmp_path):
    pq.write_table(pairs_table(60), tmp_path / "pairs.parquet")
    run = steelyard.score(
        tmp_path / "pairs.parquet", run=tmp_path / "run", judge="scripted", tie_band=0.2
    )
    calibrated(run)
    rows = run.verdicts().to_pylist()
    for row in rows:
        p = third(row["raw_preference"])
        assert row["calibrated_preference"] == pytest.approx(p)
        assert row["winner"] == ("tie" if abs(p - 0.5) < 0.2 else "a" if p > 0.5 else "b")
    assert {row["winner"] for row in rows} == {"a", "b", "tie"}


@pytest.fixture
def imported(tmp_path):
    """Four verdicts, and a row that is refused."""
    table = {"model_a": ["x"] * 5, "model_b": ["y"] * 5, "preference": [0.9, 0.75, 0.65, 0.2, None]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    import_tables([str(tmp_path / "t.parquet")], tmp_path / "run")
    return steelyard.open_run(tmp_path / "run")


def test_imported_verdicts_are_counted_and_written(imported, monkeypatch):
    given, opened = [], handoff.open_scratch

    def note(*arguments, **options):
        given.append(options["memory"])
        if len(given) == 1:
            raise MemoryError
        return opened(*arguments, **options)

    monkeypatch.setattr(handoff, "open_scratch", note)
    counts = handoff.compact(RunSnapshot.take(imported.root))
    assert counts == {"pairs": 4, "verdicts": 4, "prompts": 0, "reads": 0, "rejects": 1}
    assert given == [768_000_000, 2 * 768_000_000]
    with duckdb.connect(str(RunDir(imported.root).database), read_only=True) as connection:
        tables = dict(
            connection.sql(
                "SELECT table_name, table_type FROM information_schema.tables"
            ).fetchall()
        )
        state = dict(connection.sql("FROM run").fetchall())
    assert tables["verdicts"] == tables["rejects"] == "BASE TABLE"
    written = imported.verdicts()
    RunDir(imported.root).database.unlink()
    assert imported.verdicts().sort_by("row") == written.sort_by("row")  # of live views
    assert len(imported.sql("FROM rejects")) == 1
    assert state.items() >= RunSnapshot.take(imported.root).state.items()


def test_imported_verdicts_are_calibrated_without_a_tie_band(imported):
    calibrated(imported)
    assert RunDir(imported.root).database.exists()
    verdicts = imported.verdicts().sort_by("row")
    # Odds 9, 3, 1.86 and 0.25 become 3, 1, 0.62 and 0.083.
    assert verdicts["winner"].to_pylist() == ["a", "tie", "b", "b"]


def test_the_views_of_a_calibrated_database_are_of_calibrated_preferences(run):
    calibrated(run)
    won = {}
    for row in run.verdicts().to_pylist():
        p = third(row["raw_preference"])
        won.setdefault(row["model_a"], []).append(p)
        won.setdefault(row["model_b"], []).append(1 - p)
    board = run.sql("FROM leaderboard").to_pylist()
    assert {row["competitor"]: row["win_rate"] for row in board} == pytest.approx(
        {name: sum(each) / len(each) for name, each in won.items()}
    )


def test_a_database_is_calibrated_with_the_memory_that_its_pairs_take(run, monkeypatch):
    given, opened = [], handoff.open_scratch

    def note(*arguments, **options):
        given.append(options["memory"])
        return opened(*arguments, **options)

    monkeypatch.setattr(handoff, "open_scratch", note)
    monkeypatch.setattr(handoff, "memory_for", lambda _: 987 << 20)
    calibrated(run)
    assert given == [987 << 20]


@pytest.mark.parametrize("write", [handoff.ensure_current, handoff.recalibrate])
def test_a_writer_refuses_a_journal_that_has_lost_lines(run, write):
    """To others it is being written while the lock is held; its writer knows better."""
    with (run.root / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"check":')
    own = RunDir(run.root)
    with own.lock():
        snapshot = RunSnapshot.take(run.root)
        require_whole(own, snapshot.journal)
        with pytest.raises(IntegrityFault, match="the last line of the journal is cut off"):
            write(own)
