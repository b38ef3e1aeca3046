"""Compaction that the machine or Ctrl-C ends in its middle.

Whatever happens: an error of the environment with a remedy, no file is left, the database is the
one from before or the new one, and the next compaction works.

Kind of fault: the machine or Ctrl-C ends the work.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.comparisons.importing import import_tables
from steelyard.errors import DiskFull, EnvironmentFault, SteelyardError
from steelyard.store import sql
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import handoff, new_database
from support.helpers import PROGRAM, command, pairs_table
from support.recording_disk import RecordingDisk

PAIRS = 60
COUNT = "SELECT count(*) AS n FROM verdicts"


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    place = tmp_path_factory.mktemp("scored")
    pq.write_table(pairs_table(PAIRS), place / "pairs.parquet")
    return steelyard.score(place / "pairs.parquet", run=place / "run", judge="scripted").root


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    place = tmp_path_factory.mktemp("imported")
    table = {"model_a": ["x"] * PAIRS, "model_b": ["y"] * PAIRS, "preference": [0.25] * PAIRS}
    pq.write_table(pa.table(table), place / "t.parquet")
    import_tables([str(place / "t.parquet")], place / "run")
    return place / "run"


@pytest.fixture(params=["scored", "imported"])
def run(request):
    return request.getfixturevalue(request.param)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def require_sound(run: Path, before: set[str]) -> None:
    """Require that nothing is left, and that the database has all verdicts, now and again."""
    assert names(run) == before
    with duckdb.connect(str(run / "verdicts.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM verdicts").fetchall() == [(PAIRS,)]
    assert handoff.compact(RunSnapshot.take(run))["verdicts"] == PAIRS
    assert names(run) == before


class NthFails(RecordingDisk):
    """The n-th call of any kind fails, and no other."""

    def __init__(self, root, number, error):
        super().__init__(root)
        self.number, self.error = number, error

    def _note(self, kind, name, *more):
        super()._note(kind, name, *more)
        if len(self.every) == self.number and kind != "close":
            raise OSError(self.error, os.strerror(self.error))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EMFILE])
def test_any_call_of_the_system_may_fail(run, error):
    before = names(run)
    counting = RecordingDisk(run)
    handoff.compact(RunSnapshot.take(run, counting))
    # All that change something, and every seventh of the others, of which there are many alike.
    changing = {call for call, (kind, *_) in enumerate(counting.every, 1) if kind in CHANGING}
    for number in sorted(changing | set(range(1, len(counting.every), 7))):
        disk = NthFails(run, number, error)
        kind, name, *_ = counting.every[number - 1]
        try:
            handoff.compact(RunSnapshot.take(run, disk))
        except SteelyardError as fault:
            assert isinstance(fault, EnvironmentFault), (kind, name, fault)  # noqa: PT017
            assert fault.remedy, (kind, name)  # noqa: PT017
            if error == errno.ENOSPC:
                assert "free some space" in fault.remedy, (kind, name)  # noqa: PT017
        except OSError as raised:  # the command line explains it
            assert raised.errno == error, (kind, name)  # noqa: PT017
        left = names(run) - before
        assert not left or kind in {"remove", "remove_tree"}, (kind, name, left)
    require_sound(run, before)


CHANGING = {"sync", "rename", "remove", "remove_tree", "open_file"}


@contextmanager
def largest_file(size):
    """Let no file of this process grow beyond this: EFBIG stands for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_that_is_full_at_any_size_of_the_database(run):
    before, size = names(run), (run / "verdicts.duckdb").stat().st_size
    failed = 0
    for room in [*range(0, size, size // 14), size - 1]:
        with largest_file(room):
            done = command("compact", run)
        assert done.returncode == 5, (room, done.stderr)
        assert done.stderr.startswith("error[disk]: "), (room, done.stderr)
        assert "no room left to write: File too large" in done.stderr, (room, done.stderr)
        assert not re.search("IO Error|Failed to commit|invalidated", done.stderr), done.stderr
        assert "next: free some space, then " in done.stderr, room
        assert names(run) == before, room
        failed += 1
    assert failed >= 15
    require_sound(run, before)


def test_a_disk_that_is_full_when_the_hand_off_is_written_for_the_first_time(scored, tmp_path):
    """All reads are paid, and nothing of them is asked again."""
    pq.write_table(pairs_table(PAIRS), tmp_path / "pairs.parquet")
    arguments = ("score", tmp_path / "pairs.parquet", "--run", tmp_path / "run", "--quiet")
    with largest_file(200_000):
        done = command(*arguments, "--judge", "scripted")
    assert done.returncode == 5
    assert "verdicts.duckdb: no room left to write" in done.stderr
    assert "the run is intact" in done.stderr
    assert names(tmp_path / "run") == names(scored) - {"verdicts.duckdb"}
    done = command("resume", tmp_path / "run")
    assert (done.returncode, "no engine is needed" in done.stderr) == (0, True)
    require_sound(tmp_path / "run", names(scored))


def test_a_disk_that_is_full_beside_the_run(run, tmp_path):
    before = names(run)
    with largest_file(100_000):
        done = command("compact", run, "--out", tmp_path / "copy.duckdb")
    assert (done.returncode, names(tmp_path)) == (5, set())
    assert "next: free some space, then run the command again" in done.stderr
    require_sound(run, before)


def test_a_database_that_needs_more_memory_gets_it(run, monkeypatch):
    """The memory that should do is reckoned; where it does not, reads are paid all the same."""
    before, given = names(run), []
    opened = sql._open

    def opening(settings, file=None):
        given.append(int(settings["memory_limit"].removesuffix("B")))
        return opened(settings, file)

    monkeypatch.setattr(sql, "_open", opening)
    for module in (handoff, new_database):
        monkeypatch.setattr(module, "MEMORY_LIMIT", 1 << 20)
    monkeypatch.setattr(handoff, "memory_for", lambda _: 1 << 20)
    assert handoff.compact(RunSnapshot.take(run))["verdicts"] == PAIRS
    assert given == [1 << (20 + doubling) for doubling in range(len(given))]
    assert len(given) > 1
    monkeypatch.setattr(new_database, "machine_memory", lambda: 1 << 20)
    with pytest.raises(EnvironmentFault, match="Out of Memory") as fault:
        handoff.compact(RunSnapshot.take(run))
    assert not isinstance(fault.value, DiskFull)
    assert "a machine with more memory" in fault.value.remedy
    assert f"steelyard compact {run}" in fault.value.remedy
    monkeypatch.undo()
    require_sound(run, before)


@pytest.mark.skipif(duckdb.__version__ < "2", reason="DuckDB 1.5 counts spilled blocks otherwise")
def test_no_room_for_what_does_not_fit_into_memory_is_a_full_disk(tmp_path, monkeypatch):
    """DuckDB says "Out of Memory" then, and more memory is not what is missing."""
    monkeypatch.setitem(sql._SETTINGS, "max_temp_directory_size", "1MB")
    folder = sql.Folder(tmp_path)
    with (
        pytest.raises(OSError, match="the disk for temporary files is full") as raised,
        sql.open_scratch(folder, "spill", memory=20_000_000) as connection,
    ):
        connection.execute("CREATE TABLE t AS SELECT sha256(i::VARCHAR) FROM range(1000000) r(i)")
    assert raised.value.errno == errno.ENOSPC
    assert names(tmp_path) == set()


def allow_ctrl_c():
    """Undo what a shell does to the commands that it runs in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupted(arguments, wait, number=signal.SIGINT, times=1):
    """Start a command, send it a signal once `wait` holds and some time later; its end."""
    process = subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=allow_ctrl_c,  # noqa: PLW1509
    )  # fmt: skip
    end = time.monotonic() + 60
    while not wait() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.05)
    _, words = process.communicate(timeout=60)
    return process.returncode, words


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A run whose compaction takes a while."""
    place = tmp_path_factory.mktemp("large")
    pq.write_table(pairs_table(20_000), place / "pairs.parquet")
    return steelyard.score(place / "pairs.parquet", run=place / "run", judge="scripted").root


def temporary(folder):
    return any(".tmp" in path.name for path in folder.iterdir())


@pytest.mark.parametrize("signals", [1, 2, 3])
def test_ctrl_c_ends_a_compaction(large, signals):
    before = names(large)
    code, words = interrupted(["compact", large], lambda: temporary(large), times=signals)
    ended = {(130, "interrupted"), (0, "")}
    # Python itself ends so when it comes again while the program is going.
    ended |= {(-signal.SIGINT, "interrupted")} if signals > 1 else set()
    assert (code, words.strip()) in ended
    if signals == 1:
        assert names(large) == before
    assert command("compact", large).returncode == 0
    assert names(large) == before


def test_a_compaction_that_is_killed_leaves_what_the_next_one_removes(large):
    before = names(large)
    code, _ = interrupted(["compact", large], lambda: temporary(large), signal.SIGKILL)
    assert code in {-signal.SIGKILL, 0}
    assert command("compact", large).returncode == 0
    assert names(large) == before


def test_ctrl_c_twice_ends_the_hand_off_of_a_run(large):
    """The first one ends reading, which is done; the second ends at once."""
    (large / "verdicts.duckdb").unlink()
    wait = lambda: temporary(large)  # noqa: E731
    code, words = interrupted(["resume", large, "--quiet"], wait, times=2)
    assert code in {130, 0}, words
    assert "internal" not in words
    assert "Traceback" not in words
    assert command("resume", large, "--quiet").returncode == 0
    assert (large / "verdicts.duckdb").exists()
    assert not temporary(large)


class InterruptedStream:
    """Ctrl-C while DuckDB asks Python for an Arrow stream, of which it makes its own error."""

    def __arrow_c_stream__(self, requested_schema=None):
        raise KeyboardInterrupt


def test_ctrl_c_within_what_duckdb_calls_is_ctrl_c(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        sql.open_scratch(sql.Folder(tmp_path), "spill") as connection,
    ):
        connection.register("rows", InterruptedStream()).execute("FROM rows")
