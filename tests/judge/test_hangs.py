"""Judge processes that are stopped or killed at any moment, under whole runs.

SIGSTOP stands for a driver that hangs. Patience is short here; `test_patience.py` has the rules.

Kind of fault: a judge that hangs is never noticed.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import threading
import time

import psutil
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.errors import EXIT_DONE, EXIT_INTERRUPTED, EngineFailed
from steelyard.judge import patience, replicas
from steelyard.judge.patience import Limits
from steelyard.scoring.run import score
from support.helpers import PROGRAM, pairs_table

NEVER = 1e9


@pytest.fixture
def impatient(monkeypatch):
    """Give up at rest after two seconds; never while it computes, for these machines are slow."""
    monkeypatch.setattr(patience, "SAMPLE_SECONDS", 0.2)
    for name in ("READING", "LOADING"):
        monkeypatch.setattr(replicas, name, limits(name, rest=2.0))


@pytest.fixture
def patient(monkeypatch):
    """Never give up, unless the run is stopped."""
    for name in ("READING", "LOADING"):
        monkeypatch.setattr(replicas, name, limits(name, rest=NEVER))


def limits(name, rest):
    stopping = getattr(patience, name).stopping
    return Limits(rest, NEVER, stopping, 5.0, 20.0, "been silent for")


class Watcher(Reporter):
    """A reporter that calls once for each of some events: a word in a line, or the first reads."""

    def __init__(self, **calls):
        super().__init__(stream=io.StringIO())
        self.calls, self.lines = calls, []

    def log(self, text):
        self._happened(text)
        super().log(text)

    def warn(self, text):
        self._happened(text)
        super().warn(text)

    def scoring(self, counts):
        self._happened("reads")
        super().scoring(counts)

    def _happened(self, text):
        self.lines.append(text)
        for word in [word for word in self.calls if word in text]:
            self.calls.pop(word)()


def replica_pids():
    """The replicas among the children of this process, which also has a resource tracker."""
    pids = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it is about to begin or has just ended
            pids += [child.pid] if "spawn_main" in " ".join(child.cmdline()) else []
    return sorted(pids)


def send(number, *which):
    """Send a signal to replicas, given by their positions, and see it take effect."""
    for pid in [replica_pids()[index] for index in which]:
        os.kill(pid, number)
        while number == signal.SIGSTOP and psutil.Process(pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)


def config(tmp_path, count=60, *, judge="scripted:rate=100", width=40, **more):
    path = tmp_path / "pairs.parquet"
    pq.write_table(pairs_table(count, width=width), path)
    options = {"replicas": 2, "part_rows": 20, **more}
    return RunConfig(inputs=(str(path),), judge=(judge,), **options)


def check_complete(run, prompts=120):
    """Every prompt was read, once, and well."""
    query = "SELECT count(*) AS n, count(DISTINCT prompt_key) AS keys FROM reads WHERE status='ok'"
    assert steelyard.open_run(run).sql(query).to_pylist() == [{"n": prompts, "keys": prompts}]
    assert replica_pids() == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("number", "which"),
    [(signal.SIGSTOP, (0,)), (signal.SIGSTOP, (0, 1)), (signal.SIGKILL, (0,))],
    ids=["one hangs", "all hang", "one is killed"],
)
def test_a_replica_that_dies_or_hangs_while_it_reads_is_replaced(tmp_path, number, which):
    reporter = Watcher(reads=lambda: send(number, *which))
    assert score(config(tmp_path), tmp_path / "run", reporter) == EXIT_DONE
    check_complete(tmp_path / "run")
    said = "exit code -9" if number == signal.SIGKILL else "and its processes have been at rest"
    assert any(said in line and "restarting it" in line for line in reporter.lines)
    if number == signal.SIGSTOP:  # announced before
        assert any("it is given up if nothing happens" in line for line in reporter.lines)


@pytest.mark.usefixtures("impatient")
def test_a_replica_that_hangs_while_much_is_sent_to_it_does_not_hold_its_owner(tmp_path):
    """Its pipe is full: a plain send would wait for ever."""
    options = config(tmp_path, width=40_000, judge="scripted:rate=20")
    reporter = Watcher(loaded=lambda: send(signal.SIGSTOP, 0, 1))
    assert score(options, tmp_path / "run", reporter) == EXIT_DONE
    check_complete(tmp_path / "run")


def once_there_are(count, number):
    """Wait in a thread for this many replicas, and send them a signal."""

    def wait():
        while len(replica_pids()) < count:
            time.sleep(0.001)
        send(number, *range(count))

    threading.Thread(target=wait).start()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["hangs", "is killed"])
def test_a_replica_that_dies_or_hangs_while_it_is_loaded_is_loaded_once_more(tmp_path, number):
    reporter = Watcher(loading=lambda: once_there_are(2, number))
    assert score(config(tmp_path), tmp_path / "run", reporter) == EXIT_DONE
    check_complete(tmp_path / "run")
    assert any("loading it once more" in line for line in reporter.lines)


@pytest.mark.usefixtures("impatient")
def test_a_replica_that_hangs_whenever_it_is_loaded_ends_the_run(tmp_path):
    def hang_again():
        reporter.calls["once more"] = lambda: once_there_are(2, signal.SIGSTOP)
        once_there_are(2, signal.SIGSTOP)

    reporter = Watcher(loading=hang_again)
    with pytest.raises(EngineFailed, match=r"at rest .*: it was given up"):
        score(config(tmp_path), tmp_path / "run", reporter)
    assert replica_pids() == []


@pytest.mark.usefixtures("impatient")
def test_a_slow_but_healthy_judge_is_not_given_up(tmp_path):
    """It takes longer than the patience for a prompt, and completes steps in between."""
    options = config(tmp_path, 2, judge="scripted:rate=0.33")
    reporter = Watcher()
    assert score(options, tmp_path / "run", reporter) == EXIT_DONE
    check_complete(tmp_path / "run", 4)
    assert not any("died" in line for line in reporter.lines)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("moment", ["reads", "loading"])
def test_a_stop_does_not_wait_for_a_replica_that_hangs(tmp_path, moment):
    stop = threading.Event()

    def hang():
        if moment == "reads":
            send(signal.SIGSTOP, 0, 1)
        else:
            once_there_are(2, signal.SIGSTOP)
        threading.Timer(0.5, stop.set).start()

    reporter = Watcher(**{moment: hang})
    code = score(config(tmp_path), tmp_path / "run", reporter, stop)
    assert code == EXIT_INTERRUPTED
    assert replica_pids() == []
    assert score(config(tmp_path), tmp_path / "run") == EXIT_DONE
    check_complete(tmp_path / "run")


@pytest.mark.parametrize("interrupts", [1, 2])
def test_ctrl_c_ends_the_program_while_a_replica_hangs(tmp_path, interrupts):
    options = config(tmp_path)
    process = subprocess.Popen(
        [*PROGRAM, "score", *options.inputs, "--run", str(tmp_path / "run"), "--replicas", "2",
         "--judge", "scripted:rate=2"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while "loaded" not in process.stderr.readline():
            assert process.poll() is None
        children = psutil.Process(process.pid).children()
        hung = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        for child in hung:
            child.suspend()
        for _ in range(interrupts):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)  # two at once would count as one
        process.communicate(timeout=60)
        assert process.returncode == EXIT_INTERRUPTED
        assert not any(child.is_running() for child in hung)
    finally:
        process.kill()
        for child in hung:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.communicate()
