"""How far a run is, and how long it still takes, by hand-made logs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from steelyard.core.progress import Counts
from steelyard.scoring.status import run_status
from steelyard.scoring.telemetry import Telemetry
from steelyard.store.reads.journal import load
from support.helpers import command
from support.small_runs import recorded, run_of

DAY = "2026-01-02T"


@pytest.fixture
def scoring(tmp_path, monkeypatch):
    """A run of 10 pairs and 20 prompts, of which 5 are read; a writer holds it at 10:06:00."""
    clock = {"now": f"{DAY}10:00:00+00:00"}
    for module in ("steelyard.store.rundir", "steelyard.store.reads.parts"):
        monkeypatch.setattr(f"{module}.now", lambda: clock["now"], raising=False)
    pairs = [[2 * i, 2 * i + 1] for i in range(10)]
    run = recorded(run_of(tmp_path / "run", pairs))
    run.log_session("start", session="s")
    return run, clock


def commit(run, clock, time, numbers):
    from steelyard.core.work import BatchProgress
    from steelyard.store.reads.parts import commit_part
    from support.some_reads import table

    clock["now"] = f"{DAY}{time}+00:00"
    commit_part(run, table(numbers), len(load(run).parts) + 1, BatchProgress(pairs=0, work={}))


class Clock(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 10, 6, tzinfo=UTC)


def test_fraction_and_time_left(scoring, monkeypatch):
    run, clock = scoring
    monkeypatch.setattr("steelyard.scoring.status.datetime", Clock)
    with run.lock():
        before = run_status(run.root)
        assert (before["state"], before["fraction"], before["seconds_left"]) == ("scoring", 0, None)
        commit(run, clock, "10:02:00", [0, 1, 2])
        commit(run, clock, "10:05:00", [3, 4])
        status = run_status(run.root)
        # 5 prompts took 300 s, so 15 take 900 s, of which 60 have passed
        assert (status["fraction"], status["seconds_left"]) == (0.25, 840)
        assert "done:    25.0%, 14 min 00 s left\n" in command("status", run.root).stdout
    stopped = run_status(run.root)
    assert (stopped["state"], stopped["fraction"], stopped["seconds_left"]) == (
        "stopped",
        0.25,
        None,
    )
    assert "done:    25.0%\n" in command("status", run.root).stdout


def test_only_the_rate_of_this_session_counts(scoring, monkeypatch):
    run, clock = scoring
    monkeypatch.setattr("steelyard.scoring.status.datetime", Clock)
    commit(run, clock, "10:01:00", list(range(10)))
    clock["now"] = f"{DAY}10:04:00+00:00"
    run.log_session("start", session="t")
    with run.lock():
        assert run_status(run.root)["seconds_left"] is None
        commit(run, clock, "10:06:00", [10, 11])
        assert run_status(run.root)["seconds_left"] == 480  # 8 prompts, 60 s each


def test_sessions_that_are_not_ours_give_no_time(scoring):
    run, clock = scoring
    commit(run, clock, "10:05:00", [3, 4])
    run.log("sessions.jsonl", event="start", at="soon")
    with run.lock():
        assert run_status(run.root)["seconds_left"] is None


def test_what_is_read_shows_before_the_first_part(scoring):
    run, _ = scoring
    counts = Counts(pairs_planned=10, prompts_planned=20, prompts=5, pairs=2)
    with run.lock(), Telemetry(run, "s", pytest.fail, counts=counts):
        status = run_status(run.root)
        assert (status["prompts"]["read"], status["prompts"]["uncommitted"]) == (0, 5)
        assert (status["pairs"]["done"], status["pairs"]["uncommitted"]) == (0, 2)
        assert status["fraction"] == 0.25
        assert status["seconds_left"] is not None
        text = command("status", run.root).stdout
        assert "done:    25.0%, " in text
        assert "0 read of 20 unique prompts (20 with duplicates), and 5 that are not" in text
        assert "work:    counted when the first part is committed\n" in text
    # It ended without a part: nothing is kept of what it had read, and the next one is not there.
    assert run_status(run.root)["fraction"] == 0


def test_a_sample_of_an_earlier_writer_is_not_of_this_one(scoring):
    run, _ = scoring
    run.log("telemetry.jsonl", session="s", time=1.0, cpu_seconds=0.0, gpus=[], prompts=5, pairs=2)
    with run.lock():
        status = run_status(run.root)
    assert (status["state"], status["fraction"]) == ("scoring", 0)
    assert status["prompts"]["uncommitted"] == 0
