"""The run directory: one writer, whatever locks there are, and logs that survive their damage.

Kind of fault: file systems that lack locks, and readers that look while a run is written.
"""

import errno
import fcntl
import json
import os
import platform
import subprocess
import sys

import pytest

from steelyard.errors import DiskFull, EnvironmentFault, IntegrityFault, RunLocked, UsageError
from steelyard.store import disk as system
from steelyard.store.disk import Disk
from steelyard.store.rundir import RunDir
from support.recording_disk import RecordingDisk

ASK = """
import sys
from pathlib import Path
from steelyard.store.rundir import RunDir
print(RunDir(Path(sys.argv[1])).locked())
"""

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("process 7 on moon since then\\x1b[2J", file=file, flush=True)
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "run", RecordingDisk(tmp_path / "run"))
    run.create()
    return run


class NoLocks(Disk):
    """A file system that has no locks of any kind."""

    error = errno.ENOLCK

    def lock(self, handle, operation):
        raise OSError(self.error, os.strerror(self.error))


@pytest.fixture
def lockless(tmp_path):
    return RunDir(tmp_path / "run", NoLocks())


def write_lock(run, owner):
    run.files.make()
    (run.root / "lock").write_text(owner)


class TestLock:
    def test_there_is_one_writer(self, run):
        assert not run.locked()
        with run.lock():
            assert run.locked()
            owner = (run.root / "lock").read_text("ascii")
            assert owner.startswith(f"process {os.getpid()} on {platform.node()} since 2")
            for again in (run, RunDir(run.root), RunDir(run.root / ".." / "run")):
                assert again.locked()
                with pytest.raises(RunLocked) as raised, again.lock():
                    raise AssertionError
                assert raised.value.place == str(again.root)
        assert not run.locked()
        assert (run.root / "lock").read_bytes() == b""
        with run.lock():
            pass

    def test_another_process_sees_the_writer(self, run):
        def ask():
            return subprocess.check_output([sys.executable, "-c", ASK, run.root], text=True)

        with run.lock():
            assert ask() == "True\n"
        assert ask() == "False\n"

    def test_a_writer_of_another_process_is_named(self, run):
        command = [sys.executable, "-c", HOLD, run.root / "lock"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            other.stdout.readline()
            assert run.locked()
            match = "process 7 on moon since then"
            with pytest.raises(RunLocked, match=match) as raised, run.lock():
                raise AssertionError
            assert "\x1b" not in str(raised.value)
            assert run.locked()
            other.stdin.close()
        with run.lock():
            pass

    def test_the_lock_ends_with_an_error_too(self, run):
        with pytest.raises(KeyError), run.lock():
            raise KeyError
        assert not run.locked()
        assert run.files.disk.handles == {}

    def test_a_lock_that_cannot_be_emptied_ends_all_the_same(self, run):
        with run.lock():
            run.files.disk.fail("truncate", "lock", errno.EIO)
        assert not run.locked()
        assert run.files.disk.handles == {}

    @pytest.mark.parametrize("kind", ["open_file", "lock", "truncate", "write"])
    @pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EACCES])
    def test_a_lock_that_fails_says_so_and_holds_nothing(self, run, kind, number):
        run.files.disk.fail(kind, "lock", number)
        error = DiskFull if number == errno.ENOSPC else EnvironmentFault
        with pytest.raises(error, match=os.strerror(number)), run.lock():
            raise AssertionError
        assert not run.locked()
        assert run.files.disk.handles == {}
        with run.lock():
            pass

    def test_the_run_directory_is_durable_in_the_one_above(self, run):
        run.files.disk.every.clear()
        with run.lock():
            assert run.files.disk.calls[1] == ("sync", "..")

    @pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
    def test_whether_there_is_a_writer_may_be_unknown(self, run, number):
        with run.lock():
            pass
        run.files.disk.fail("open_file", "lock", number)
        with pytest.raises(OSError, match=os.strerror(number)):
            run.locked()

    def test_who_may_not_look_sees_no_writer(self, run):
        with run.lock():
            pass
        run.files.disk.fail("open_file", "lock", errno.EACCES)
        assert not run.locked()
        assert not RunDir(run.root / "nowhere").locked()

    def test_a_writer_that_names_nobody_is_unknown(self, run):
        with (run.root / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(RunLocked, match=r"already \(unknown\)"), run.lock():
                raise AssertionError
            file.write("x" * 200)
            file.flush()
            with pytest.raises(RunLocked) as raised, run.lock():
                raise AssertionError
            assert f"({'x' * 80})" in raised.value.cause

    def test_two_runs_have_two_locks(self, run, tmp_path):
        other = RunDir(tmp_path / "other")
        with run.lock():
            assert not other.locked()
            with other.lock():
                assert other.locked()

    def test_a_lock_whose_owner_cannot_be_read_is_held_by_nobody_known(self, run):
        with (run.root / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            run.files.disk.fail("read", "lock", errno.EIO)
            with pytest.raises(RunLocked, match=r"already \(unknown\)"), run.lock():
                raise AssertionError


class TestWithoutLocks:
    """The lock file names its owner, and that must do."""

    @pytest.mark.parametrize(
        "number",
        [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL],
    )
    def test_there_is_one_writer(self, lockless, number):
        lockless.files.disk.error = number
        with lockless.lock():
            assert lockless.locked()
            with pytest.raises(RunLocked), lockless.lock():
                raise AssertionError
        assert not lockless.locked()

    @pytest.mark.parametrize(
        ("owner", "alive"),
        [
            (f"process {os.getppid()} on {platform.node()} since 2026", True),
            (f"process {os.getppid()} on another-host since 2026", True),
            (f"process {2**22 + 1} on another-host since 2026", True),  # it cannot be asked
            (f"process {2**22 + 1} on {platform.node()} since 2026", False),
            ("", False),
            ("something else", False),
        ],
    )
    def test_an_owner_that_may_be_alive_is_respected(self, lockless, owner, alive):
        write_lock(lockless, owner)
        assert lockless.locked() == alive
        if alive:
            with pytest.raises(RunLocked, match=owner) as raised, lockless.lock():
                raise AssertionError
            assert f"delete {lockless.root / 'lock'}" in raised.value.remedy
            assert (lockless.root / "lock").read_text() == owner
        else:
            with lockless.lock():
                assert lockless.locked()

    def test_other_errors_of_a_lock_are_errors(self, lockless):
        lockless.files.disk.error = errno.EIO
        with pytest.raises(EnvironmentFault, match="Input/output"), lockless.lock():
            raise AssertionError
        with pytest.raises(OSError, match="Input/output"):
            lockless.locked()

    def test_without_flock_a_second_writer_of_one_process_is_refused(self, run, monkeypatch):
        """POSIX locks do not ask their own process, and end when it closes the file once."""

        def refuse(*_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(system.fcntl, "flock", refuse)
        with run.lock():
            looks = len(run.files.disk.of("open_file"))
            assert RunDir(run.root).locked()
            with pytest.raises(RunLocked, match="this one"), run.lock():
                raise AssertionError
            assert len(run.files.disk.of("open_file")) == looks


class TestLogs:
    def test_entries_come_back(self, run):
        run.log("log", a=1, text="Köln \udce4")
        run.log("log", b=[1.5, None])
        assert run.read_log("log") == ([{"a": 1, "text": "Köln \udce4"}, {"b": [1.5, None]}], 0)
        assert run.read_log("nothing") == ([], 0)

    def test_they_are_written_and_not_forced(self, run):
        run.files.disk.every.clear()
        run.log("log", a=1)
        assert run.files.disk.calls == [("write", "log")]

    def test_lines_that_are_damaged_or_torn_are_counted(self, run):
        for number in range(4):
            run.log("log", n=number)
        path = run.root / "log"
        lines = path.read_bytes().splitlines(keepends=True)
        lines[1] = lines[1].replace(b'"n": 1', b'"n": 7')
        path.write_bytes(b"".join(lines[:3]) + lines[3][:-9] + b"\n\xff\n[]\n")
        assert run.read_log("log") == ([{"n": 0}, {"n": 2}], 4)

    def test_lines_of_older_versions_have_no_check(self, run):
        (run.root / "log").write_text('{"n": 1}\n{"n": 2}')
        assert run.read_log("log") == ([{"n": 1}, {"n": 2}], 0)

    def test_sessions_say_when_and_who(self, run):
        run.log_session("start", session="x")
        ((entry,), damaged) = run.read_log("sessions.jsonl")
        assert damaged == 0
        assert (entry["event"], entry["pid"], entry["session"]) == ("start", os.getpid(), "x")
        assert entry["at"].startswith("2")
        assert json.loads((run.root / "sessions.jsonl").read_bytes())["check"]

    def test_a_log_that_cannot_be_written_says_so(self, run):
        run.files.disk.fail("write", "log", errno.ENOSPC)
        with pytest.raises(DiskFull) as raised:
            run.log("log", a=1)
        assert raised.value.place == str(run.root / "log")

    def test_a_log_that_leads_elsewhere_is_refused(self, run, tmp_path):
        (tmp_path / "outside").write_text("not ours\n")
        (run.root / "log").symlink_to(tmp_path / "outside")
        with pytest.raises(IntegrityFault):
            run.log("log", a=1)
        with pytest.raises(IntegrityFault):
            run.read_log("log")
        assert (tmp_path / "outside").read_text() == "not ours\n"


def test_a_new_run_has_a_folder_for_its_parts(tmp_path):
    RunDir(tmp_path / "new").create()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["reads"]
    RunDir(tmp_path / "new").create()  # and again


def test_the_names_of_its_entries(tmp_path):
    run = RunDir(tmp_path)
    names = {
        "record_file": "run.json", "plan": "plan", "images": "images", "imported": "imported",
        "database": "verdicts.duckdb", "calibration": "calibration.json",
    }  # fmt: skip
    assert {name: getattr(run, name) for name in names} == {
        name: tmp_path / entry for name, entry in names.items()
    }


@pytest.mark.parametrize("name", ["run.json", "plan/plan.json", "imported/verdicts.parquet"])
def test_a_run_is_begun_with_any_of_its_marks(tmp_path, name):
    assert not RunDir(tmp_path).is_begun
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert RunDir(tmp_path).is_begun


class TestCheck:
    def test_a_new_or_empty_folder_may_become_a_run(self, tmp_path):
        RunDir(tmp_path / "new" / "run").check()
        RunDir(tmp_path).check()

    def test_what_a_run_leaves_that_was_killed_at_its_beginning_may_become_one(self, run):
        for name in ("lock", "run.json.tmp", "journal.jsonl", "journal.jsonl.tmp"):
            (run.root / name).touch()
        run.check()

    def test_a_file_and_what_is_below_one_are_refused(self, tmp_path):
        (tmp_path / "file").touch()
        for path in (tmp_path / "file", tmp_path / "file" / "run"):
            with pytest.raises(UsageError, match="is a file, or below one") as raised:
                RunDir(path).check()
            assert raised.value.place == str(tmp_path / "file")

    def test_a_folder_with_something_else_is_refused(self, run):
        (run.root / "thesis.tex").touch()
        with pytest.raises(UsageError, match=r"holds thesis\.tex"):
            run.check()
        (run.root / "run.json").touch()
        run.check()
