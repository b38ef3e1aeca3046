"""Calls of the operating system: locks of whatever kind there is, and files that call a Disk.

Kind of fault: file systems that lack locks, and readers that look while a run is written.
"""

import errno
import fcntl
import io
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta

import pytest

from steelyard.store import disk as system
from steelyard.store.disk import DISK, RawFile, is_alive, sync_folder
from support.recording_disk import RecordingDisk

EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
HOLD = """
import fcntl, sys
handle = open(sys.argv[1], "r+")
fcntl.lockf(handle, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def handle(tmp_path):
    handle = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield handle
    os.close(handle)


def refuse(monkeypatch, name, number):
    def call(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(system.fcntl, name, call)


def test_a_second_handle_does_not_get_the_lock(tmp_path, handle):
    DISK.lock(handle, EXCLUSIVE)
    other = os.open(tmp_path / "lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        DISK.lock(other, EXCLUSIVE)
    DISK.lock(handle, fcntl.LOCK_UN)
    DISK.lock(other, EXCLUSIVE)
    os.close(other)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_without_flock_there_are_posix_locks(tmp_path, handle, monkeypatch, number):
    refuse(monkeypatch, "flock", number)
    DISK.lock(handle, EXCLUSIVE)
    DISK.lock(handle, fcntl.LOCK_UN)
    command = [sys.executable, "-c", HOLD, tmp_path / "lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError):
            DISK.lock(handle, EXCLUSIVE)
        other.stdin.close()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EAGAIN])
def test_both_words_for_a_posix_lock_that_is_held(handle, monkeypatch, number):
    refuse(monkeypatch, "flock", errno.ENOLCK)
    refuse(monkeypatch, "lockf", number)
    with pytest.raises(BlockingIOError):
        DISK.lock(handle, EXCLUSIVE)


def test_without_any_locks_the_last_refusal_is_raised(handle, monkeypatch):
    refuse(monkeypatch, "flock", errno.ENOSYS)
    refuse(monkeypatch, "lockf", errno.ENOLCK)
    with pytest.raises(OSError, match="No locks") as raised:
        DISK.lock(handle, EXCLUSIVE)
    assert raised.value.errno == errno.ENOLCK


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_folder_that_the_disk_cannot_force_is_an_error(tmp_path, number):
    disk = RecordingDisk(tmp_path)
    handle = disk.open_folder(str(tmp_path))
    disk.fail("sync", ".", number)
    with pytest.raises(OSError, match=os.strerror(number)):
        sync_folder(disk, handle)
    disk.fail("sync", ".", errno.EINVAL)
    sync_folder(disk, handle)
    disk.close(handle)


def test_links_are_not_followed_and_pipes_not_waited_for(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "to-file").symlink_to("file")
    (tmp_path / "to-folder").symlink_to("folder")
    os.mkfifo(tmp_path / "pipe")
    top = DISK.open_folder(str(tmp_path / "to-folder" / ".."))  # above a run, links are the user's
    with pytest.raises(OSError, match="symbolic links"):
        DISK.open_file("to-file", os.O_RDONLY, top)
    with pytest.raises(NotADirectoryError):
        DISK.open_folder("to-folder", top)
    with pytest.raises(NotADirectoryError):
        DISK.open_folder("file", top)
    DISK.close(DISK.open_file("pipe", os.O_RDONLY, top))
    with pytest.raises(OSError, match="No such device"):
        DISK.open_file("pipe", os.O_WRONLY, top)
    handle = DISK.open_file("new", os.O_WRONLY | os.O_CREAT, top)
    assert not os.get_inheritable(handle)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o644 & ~umask()
    DISK.close(handle)
    DISK.close(top)


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_is_written_and_read_through_a_raw_file(tmp_path):
    disk = RecordingDisk(tmp_path)
    top = disk.open_folder(str(tmp_path))
    file = RawFile(disk, disk.open_file("a", os.O_RDWR | os.O_CREAT, top), writes=True)
    assert (file.readable(), file.writable(), file.seekable()) == (False, True, True)
    with io.BufferedWriter(file, 4) as stream:
        stream.write(b"0123456789")
        stream.flush()
        file.sync()
    file.close()  # a second time: the handle may be somebody else's by now
    assert disk.calls[-1] == ("sync", "a")
    assert disk.of("close") == [("close", "a")]
    raw = RawFile(disk, disk.open_file("a", os.O_RDONLY, top))
    assert (raw.readable(), raw.writable()) == (True, False)
    with io.BufferedReader(raw, 4) as stream:
        assert stream.read(3) == b"012"
        assert stream.seek(-2, os.SEEK_END) == 8
        assert stream.read() == b"89"
        assert stream.raw.seek(3) == 3
        assert stream.seek(1) == 1
        assert stream.tell() == 1
        assert stream.read(100) == b"123456789"
    assert disk.of("close") == [("close", "a")] * 2
    disk.close(top)


def test_the_clocks_are_the_systems():
    before = time.monotonic(), time.time_ns()
    seconds, nanoseconds = DISK.seconds(), DISK.now_ns()
    assert before[0] <= seconds <= time.monotonic()
    assert before[1] <= nanoseconds <= time.time_ns()
    assert datetime.fromisoformat(system.now()).utcoffset() == timedelta(0)
    assert len(system.now()) == len("2026-01-01T00:00:00+00:00")


def test_everything_is_forced_by_the_systems_own_call(monkeypatch):
    calls = []
    monkeypatch.setattr(system.os, "sync", lambda: calls.append("sync"))
    DISK.sync_everything()
    assert calls == ["sync"]


def test_who_is_alive():
    assert is_alive(os.getpid())
    assert is_alive(1)  # of root, perhaps: one may not signal it
    assert not is_alive(2**22 + 1)  # more than any kernel allows
    assert not is_alive(2**80)


def test_a_process_that_one_may_not_signal_is_alive(monkeypatch):
    def kill(*_):
        raise PermissionError

    monkeypatch.setattr(system.os, "kill", kill)
    assert is_alive(12)
