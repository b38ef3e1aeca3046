"""A snapshot is one state of a run: read once, and not changed by what a writer does later."""

import pyarrow.parquet as pq
import pytest

import steelyard
import steelyard.store.snapshot as snapshots
from steelyard.store.reads import journal
from steelyard.store.run_record import read_content
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import handoff, user_queries
from support.helpers import pairs_table


@pytest.fixture
def run(tmp_path):
    pq.write_table(pairs_table(40), tmp_path / "pairs.parquet")
    run = steelyard.score(
        tmp_path / "pairs.parquet", run=tmp_path / "run", judge="scripted", part_rows=16
    )
    RunDir(run.root).database.unlink()
    return RunDir(run.root)


def count(snapshot, table="reads"):
    return user_queries.query(snapshot, f"SELECT count(*) AS n FROM {table}")["n"][0].as_py()


def test_what_a_writer_commits_later_is_not_seen(run):
    whole = journal.load(run).parts
    with run.lock():  # as while it is written
        journal.rewrite(run, whole[:1])
        snapshot = RunSnapshot.take(run.root)
        journal.rewrite(run, whole)
    assert count(snapshot) == whole[0].rows
    (state,) = user_queries.query(snapshot, "FROM run WHERE key = 'journal'")["value"].to_pylist()
    assert state == snapshot.state["journal"]
    later = RunSnapshot.take(run.root)
    assert count(later) == sum(part.rows for part in whole)
    assert later.state != snapshot.state


@pytest.mark.parametrize("live", [False, True])
def test_a_query_reads_each_file_of_the_state_once(run, live, monkeypatch):
    if not live:
        handoff.compact(RunSnapshot.take(run.root))
    reads = []
    for module, name in ((journal, "load"), (snapshots, "read_manifest")):
        original = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, f=original, n=name, **k: (reads.append(n), f(*a, **k))[1]
        )
    assert count(RunSnapshot.take(run.root), "verdicts") == 40
    assert sorted(reads) == ["load", "read_manifest"]


def test_a_run_without_a_plan_has_no_manifest(run):
    for path in run.plan.iterdir():
        path.unlink()
    run.plan.rmdir()
    assert RunSnapshot.take(run.root).manifest is None
    assert read_content(run)["run"] == RunSnapshot.take(run.root).record.run
