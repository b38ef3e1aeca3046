"""The hand-off file of small runs made by hand: its tables, its audit, and how it gets its name."""

import errno
import json
import math
import os
import platform
from dataclasses import replace

import duckdb
import msgspec
import pytest

from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.linear import Linear
from steelyard.errors import DiskFull, EnvironmentFault, IntegrityFault, UsageError
from steelyard.store.calibration import set_calibration
from steelyard.store.reads import journal
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import database, handoff, new_database, user_queries
from support.recording_disk import RecordingDisk
from support.small_runs import recorded, run_of

PAIRS = [[1, 2], [2, 3], [3, 4]]
THIRD = Calibrator("platt", Linear({"logit": 1.0, "intercept": math.log(1 / 3)}))
MINE = f"verdicts.duckdb.{platform.node()}-"
DEAD = 99999999  # no process has such a number


@pytest.fixture
def run(tmp_path):
    """Three pairs of four prompts, all read."""
    root = tmp_path / "run"
    return recorded(run_of(root, PAIRS, [[1, 2], [3, 4]], disk=RecordingDisk(root)))


def take(run):
    return RunSnapshot.take(run.root, run.files.disk)


def rows(path, query):
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.sql(query).fetchall()


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_complete_run_is_counted_and_written(run):
    counts = handoff.compact(take(run))
    assert counts == {"pairs": 3, "verdicts": 3, "prompts": 4, "reads": 4, "rejects": 0}
    # Read n prefers A by n: of both orders, pair (ab, ba) prefers a by (ab - ba) / 2.
    found = rows(run.database, "SELECT raw_preference FROM verdicts ORDER BY pair_id")
    assert sorted(found) == [(pytest.approx(1 / (1 + math.exp(0.5))),)] * 3
    assert rows(run.database, "SELECT count(*) FROM answers") == [(6,)]
    work = rows(run.database, "SELECT prompts, unique_tokens, hit_rate FROM work")
    assert work == [(4, 40, 0.75)]  # 5 of 20 tokens computed, twice
    told = dict(rows(run.database, "FROM run"))
    assert json.loads(told["judges"])[0]["name"] == "scripted:seed=7,fail=0,nan=0"
    assert told["run"] == "0f69a24e-1685-40ae-a70f-6839edb66d48"
    assert {name: told[name] for name in take(run).state} == take(run).state
    ours = ["journal.jsonl", "plan", "reads", "rejects", "run.json", "verdicts.duckdb"]
    assert entries(run.root) == ours


def test_a_run_that_goes_on_has_the_pairs_that_are_complete(tmp_path):
    run = recorded(run_of(tmp_path / "run", PAIRS, [[1, 2]]))
    counts = handoff.compact(take(run))
    assert counts == {"pairs": 3, "verdicts": 1, "prompts": 4, "reads": 2, "rejects": 0}


def test_a_run_without_a_plan_is_refused(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    journal.create(run)
    with pytest.raises(UsageError, match="no plan yet"):
        handoff.compact(take(recorded(run)))


def planned_as(run, **changes):
    """A snapshot whose plan says something else."""
    snapshot = take(run)
    return replace(snapshot, manifest=msgspec.structs.replace(snapshot.manifest, **changes))


@pytest.mark.parametrize(
    ("parts", "changes", "words"),
    [
        ([[1, 2], [2, 3]], {}, "4 reads of 3 prompts for 4 planned"),  # a read twice
        ([[1, 2], [2]], {}, "3 reads of 2 prompts for 4 planned"),
        ([[1, 2, 3, 4]], {"pairs": 2}, "3 verdicts of 3 pairs for 2 planned"),
        ([[1, 2, 3, 4]], {"pairs": 4}, "of 3 pairs for 4 planned"),
        ([[1, 2, 3, 4]], {"unique": [3]}, "4 reads of 4 prompts for 3 planned"),
        ([[1, 2, 3, 9]], {}, "2 verdicts of 3 pairs"),  # all are read, and a pair is not
    ],
)
def test_books_that_do_not_balance_are_refused(tmp_path, parts, changes, words):
    run = recorded(run_of(tmp_path / "run", PAIRS, parts))
    with pytest.raises(IntegrityFault, match=words):
        handoff.compact(planned_as(run, **changes))
    assert not [name for name in entries(run.root) if "duckdb" in name]


def test_another_file_is_written_beside_what_is_there(run, tmp_path):
    handoff.compact(take(run), tmp_path / "copy.duckdb")
    assert not run.database.exists()
    assert rows(tmp_path / "copy.duckdb", "SELECT count(*) FROM verdicts") == [(3,)]
    assert entries(tmp_path) == ["copy.duckdb", "run"]
    handoff.compact(take(run), run.database)  # the run's own
    assert run.database.exists()
    with pytest.raises(UsageError, match="inside a run directory") as refused:
        handoff.compact(take(run), run.root / "other.duckdb")
    assert refused.value.place == str(run.root / "other.duckdb")
    (tmp_path / "notes").write_bytes(b"12345678DUC?")
    with pytest.raises(UsageError, match="not an earlier result"):
        handoff.compact(take(run), tmp_path / "notes")


def test_a_folder_whose_path_duckdb_misreads_gets_its_file(tmp_path):
    run = recorded(run_of(tmp_path / "what?", PAIRS, [[1, 2, 3, 4]]))
    handoff.compact(take(run))
    assert user_queries.query(take(run), "SELECT count(*) AS n FROM verdicts")["n"].to_pylist() == [
        3
    ]
    assert "verdicts.duckdb" in entries(run.root)
    assert not [name for name in entries(run.root) if name.endswith(".tmp")]


def test_it_is_durable_before_it_has_its_name(run):
    run.files.disk.every.clear()
    handoff.compact(take(run))
    new = f"{MINE}{os.getpid()}.tmp"
    order = [call[:2] for call in run.files.disk.calls]
    end = order.index(("rename", new))
    assert order[end - 3 : end + 2] == [
        ("sync", new), ("remove", "verdicts.duckdb.wal"), ("sync", new), ("rename", new),
        ("sync", "."),
    ]  # fmt: skip


def test_the_log_of_somebody_else_goes_with_the_old_file(run):
    (run.root / "verdicts.duckdb.wal").write_bytes(b"x")
    handoff.compact(take(run))
    assert not (run.root / "verdicts.duckdb.wal").exists()


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        (f"{MINE}{DEAD}.tmp", False),
        (f"{MINE}{DEAD}.tmp.wal", False),
        (f"{MINE}{DEAD}.tmp.spill", False),
        (f"{MINE}{os.getppid()}.tmp", True),  # at work
        (f"{MINE}x.tmp", True),
        (f"verdicts.duckdb.elsewhere-{DEAD}.tmp", True),
        (f"{DEAD}.tmp", True),
    ],
)
def test_what_a_killed_compaction_of_this_machine_left_is_removed(run, name, stays):
    if name.endswith("spill"):
        (run.root / name).mkdir()
        (run.root / name / "block").write_bytes(b"x")
    else:
        (run.root / name).write_bytes(b"x")
    handoff.compact(take(run))
    assert (run.root / name).exists() == stays


@pytest.mark.parametrize("kind", ["sync", "rename"])
def test_a_file_that_cannot_be_completed_leaves_the_old_one(run, kind):
    handoff.compact(take(run))
    before = run.database.read_bytes()
    run.files.disk.fail(kind, f"{MINE}*", errno.ENOSPC)
    with pytest.raises(DiskFull) as full:
        handoff.compact(take(run))
    assert full.value.place == str(run.database)
    assert f"steelyard compact {run.root}" in full.value.remedy
    assert run.database.read_bytes() == before
    assert not [name for name in entries(run.root) if MINE in name]


def test_a_file_elsewhere_leaves_the_run_alone(run, tmp_path):
    run.files.disk.every.clear()
    handoff.compact(take(run), tmp_path / "copy.duckdb")
    assert not run.files.disk.calls
    assert not [call for call in run.files.disk.every if call[1].startswith("duckdb.tmp")]


def test_compaction_gets_the_memory_that_its_rows_need(run, monkeypatch):
    given, original = [], database.open_scratch

    def open_scratch(folder, spill, **options):
        given.append((spill, options["memory"]))
        return original(folder, spill, **options)

    monkeypatch.setattr(database, "open_scratch", open_scratch)
    monkeypatch.setattr(handoff, "memory_for", lambda groups: 800_000_000 + len(groups))
    handoff.compact(take(run))
    assert given == [(f"{MINE}{os.getpid()}.tmp.spill", 800_000_001)]


# -- memory ----------------------------------------------------------------------------------------


class Writes:
    """Needs a factor of the memory that is too much for all below it."""

    def __init__(self, needed):
        self.needed, self.factors = needed, []

    def __call__(self, new, factor):
        self.factors.append(factor)
        new.folder.write(new.name, b"half")
        if factor < self.needed:
            raise MemoryError
        return {"pairs": factor}


@pytest.mark.parametrize(
    ("needed", "memory", "tried"),
    [
        (1, 0, [1]),
        (4, 8 * 768_000_000, [1, 2, 4]),
        (8, 8 * 768_000_000, [1, 2, 4]),  # half of the machine's memory is not enough
        (2, 4 * 768_000_000 - 1, [1]),
    ],
)
def test_more_memory_is_given_up_to_half_of_the_machines(run, monkeypatch, needed, memory, tried):
    monkeypatch.setattr(new_database, "machine_memory", lambda: memory)
    write, new = Writes(needed), new_database.NewFile(run.files, "new")
    if tried[-1] < needed:
        with pytest.raises(MemoryError):
            new_database.with_enough_memory(write, new)
    else:
        assert new_database.with_enough_memory(write, new) == {"pairs": needed}
    assert write.factors == tried


def test_a_run_that_needs_too_much_memory_says_so(run, monkeypatch):
    monkeypatch.setattr(new_database, "machine_memory", lambda: 0)
    monkeypatch.setattr(handoff, "_write_database", Writes(2).__call__)
    monkeypatch.setattr(handoff, "partial", lambda write, *_: write)
    with pytest.raises(EnvironmentFault, match="no memory left"):
        handoff.compact(take(run))


# -- up to date ------------------------------------------------------------------------------------


@pytest.fixture
def compactions(monkeypatch):
    """The states of the runs that were compacted."""
    made, original = [], handoff.compact

    def compact(snapshot):
        made.append(snapshot.state)
        return original(snapshot)

    monkeypatch.setattr(handoff, "compact", compact)
    return made


def test_it_is_written_again_only_if_something_has_changed(run, compactions):
    handoff.ensure_current(run)
    handoff.ensure_current(run)
    assert compactions == [take(run).state]
    journal.rewrite(run, journal.load(run).parts[:1])
    handoff.ensure_current(run)
    assert len(compactions) == 2
    (run.root / "verdicts.duckdb.wal").write_bytes(b"")
    handoff.ensure_current(run)
    run.database.write_bytes(b"x" * 5000)
    handoff.ensure_current(run)
    run.database.unlink()
    handoff.ensure_current(run)
    assert len(compactions) == 5


def calibrated(run):
    query = "SELECT winner, raw_winner, calibrated_preference FROM verdicts ORDER BY pair_id"
    return rows(run.database, query)


def test_a_calibrator_changes_the_file_that_is_there(run, compactions):
    """b is preferred by exp(0.5), three times as much once it is calibrated."""
    handoff.ensure_current(run)
    set_calibration(run, THIRD)
    handoff.recalibrate(run)
    assert len(compactions) == 1
    assert calibrated(run) == [("b", "b", pytest.approx(1 / (1 + 3 * math.exp(0.5))))] * 3
    state = dict(rows(run.database, "FROM run"))
    assert state["calibration"] == take(run).calibration != "none"
    handoff.ensure_current(run)
    assert len(compactions) == 1
    (lead,) = rows(run.database, "SELECT win_rate FROM leaderboard WHERE rank = 1") or [(None,)]
    assert lead == (None,)  # the pairs name no competitors
    set_calibration(run, Calibrator("platt", Linear({"logit": -1.0})))
    handoff.recalibrate(run)
    assert len(compactions) == 1
    assert calibrated(run) == [("a", "b", pytest.approx(1 / (1 + math.exp(-0.5))))] * 3


@pytest.mark.parametrize("why", ["no file", "a log", "other parts", "no calibrator", "damage"])
def test_what_cannot_be_changed_in_place_is_compacted(run, compactions, why):
    if why != "no file":
        handoff.ensure_current(run)
    before = len(compactions)
    if why != "no calibrator":
        set_calibration(run, THIRD)
    if why == "a log":
        (run.root / "verdicts.duckdb.wal").write_bytes(b"")
    elif why == "other parts":
        journal.rewrite(run, journal.load(run).parts[:1])
    elif why == "damage":
        run.database.write_bytes(b"x" * 5000)
    handoff.recalibrate(run)
    assert len(compactions) == before + 1
    assert dict(rows(run.database, "FROM run"))["calibration"] == take(run).calibration


# -- live views ------------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [True, False])
def test_a_run_answers_live_and_handed_off(run, live):
    if not live:
        handoff.ensure_current(run)
    snapshot = take(run)
    assert user_queries.query(snapshot, "FROM reads").num_rows == 4
    assert user_queries.query(snapshot, "SELECT 1 WHERE false").num_rows == 0
    assert user_queries.query(snapshot, "CREATE TEMP TABLE t AS SELECT 1").to_pylist() in (
        [], [{"Count": 1}]
    )  # fmt: skip
    (row,) = user_queries.rows(snapshot, "SELECT count(*) AS n FROM verdicts")
    assert row == {"n": 3}
    drawn = user_queries.show(snapshot, "SELECT 12345 AS number", 5)
    assert "number" in drawn
    assert "12345" in drawn
    assert not drawn.endswith("\n")
    plan = user_queries.show(snapshot, "EXPLAIN SELECT 1", 5)
    assert "PROJECTION" in plan.upper()
    assert "explain_key" not in plan


def test_a_current_file_answers_without_the_parts(run):
    handoff.ensure_current(run)
    snapshot = take(run)
    for part in snapshot.journal.parts:
        (run.root / part.name).unlink()
    assert user_queries.query(snapshot, "FROM verdicts").num_rows == 3
    run.database.unlink()
    with pytest.raises(IntegrityFault):
        user_queries.query(snapshot, "FROM verdicts")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (duckdb.CatalogException("no such table"), IntegrityFault),
        (duckdb.IOException("Corrupt database file: a block"), IntegrityFault),
        (duckdb.IOException("Could not read"), OSError),
        (duckdb.InterruptException("INTERRUPT Error"), KeyboardInterrupt),
        (KeyError("ours"), KeyError),
    ],
)
def test_a_statement_of_ours_that_fails_on_a_file_shows_that_it_is_not_ours(run, error, kind):
    handoff.ensure_current(run)
    with pytest.raises(kind) as raised, database.open_sql(take(run)):
        raise error
    if kind is IntegrityFault:
        assert raised.value.place == str(run.database)
        assert raised.value.remedy == f"`steelyard compact {run.root}` writes it again"
    run.database.unlink()
    if isinstance(error, duckdb.CatalogException):
        kind = type(error)  # views are ours
    elif isinstance(error, duckdb.IOException):
        kind = OSError
    with pytest.raises(kind), database.open_sql(take(run)):
        raise error


def test_a_drawn_table_fits_into_the_terminal(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    query = "SELECT repeat('x', 100) AS a, repeat('y', 100) AS b FROM range(30)"
    drawn = user_queries.show(take(run), query, 4)
    assert 140 < max(map(len, drawn.splitlines())) <= 160
    assert sum("yyy" in line for line in drawn.splitlines()) == 4


def test_a_query_that_duckdb_refuses_names_the_tables(run):
    with pytest.raises(UsageError, match=r"DuckDB refuses the query: .*nothing") as refused:
        user_queries.query(take(run), "FROM nothing")
    assert "verdicts, answers, reads, rejects, work, run" in refused.value.remedy


def test_a_query_gets_its_time(run):
    endless = "SELECT count(*) FROM range(100000000000) a, range(100000) b"
    with pytest.raises(EnvironmentFault, match=r"longer than 0\.2 seconds"):
        user_queries.query(take(run), endless, 0.2)
    with pytest.raises(EnvironmentFault, match=r"longer than 0\.2 seconds"):
        list(user_queries.rows(take(run), endless, 0.2))
    with pytest.raises(EnvironmentFault, match=r"longer than 0\.2 seconds"):
        user_queries.show(take(run), endless, 5, 0.2)


def test_parts_without_a_plan_are_damage(run):
    snapshot = replace(take(run), manifest=None)
    with pytest.raises(IntegrityFault, match="plan of the run is missing") as fault:
        user_queries.query(snapshot, "FROM verdicts")
    assert fault.value.place == str(run.plan)


def test_a_run_that_has_only_begun_has_empty_tables(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    journal.create(run)
    recorded(run)
    for table in ("verdicts", "answers", "reads", "rejects", "work"):
        assert user_queries.query(take(run), f"FROM {table}").num_rows == 0


def test_a_file_of_another_state_is_not_opened(run):
    handoff.ensure_current(run)
    connection = database.open_handoff(take(run))
    assert database.built_from(connection) == take(run).state
    connection.close()
    with duckdb.connect(str(run.database)) as writer:
        writer.execute("DROP TABLE run")
    assert database.open_handoff(take(run)) is None
    with duckdb.connect(str(run.database)) as writer:
        assert database.built_from(writer) == {}


def test_a_file_of_an_earlier_version_is_read_while_no_calibrator_is_applied(run):
    """It does not name the definition of a verdict, which has changed for calibrated ones only."""
    handoff.ensure_current(run)
    with duckdb.connect(str(run.database)) as writer:
        writer.execute("DELETE FROM run WHERE key = 'definition'")
    database.open_handoff(take(run)).close()
    set_calibration(run, THIRD)
    handoff.recalibrate(run)
    with duckdb.connect(str(run.database)) as writer:
        writer.execute("DELETE FROM run WHERE key = 'definition'")
    assert database.open_handoff(take(run)) is None
