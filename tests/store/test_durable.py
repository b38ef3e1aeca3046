"""Files at any path: durable in the right order, and errors that say why one was not written.

Kind of fault: loss of power.
"""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from steelyard.errors import DiskFull, EnvironmentFault, UsageError
from steelyard.store import durable
from steelyard.store.durable import (
    PARQUET,
    SCRATCH,
    check_out,
    file_digest,
    publish,
    reading,
    sync,
    write_text,
    writing,
)


@pytest.fixture
def calls(monkeypatch):
    """What is forced and renamed, in order."""
    kept = []
    fsync, replace = os.fsync, durable.Path.replace

    def forced(handle):
        kept.append(("sync", Path(f"/proc/self/fd/{handle}").readlink().name))
        fsync(handle)

    def renamed(path, new):
        kept.append(("rename", path.name, new.name))
        return replace(path, new)

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(durable.Path, "replace", renamed)
    return kept


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_a_full_disk(tmp_path, number):
    with pytest.raises(DiskFull) as raised, writing(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert raised.value.place == str(tmp_path / "a")
    assert os.strerror(number) in raised.value.cause
    assert "steelyard resume" in raised.value.remedy
    assert raised.value.effect == "all parts committed before are valid"


@pytest.mark.parametrize("words", ["IO Error: No space left on device", "write: File too large"])
def test_no_room_in_the_words_of_a_library(tmp_path, words):
    with pytest.raises(DiskFull, match=words), writing(tmp_path / "a"):
        raise OSError(words)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EROFS, errno.EMFILE])
def test_other_refusals_are_faults_of_the_machine(tmp_path, number):
    with pytest.raises(EnvironmentFault) as raised, writing(tmp_path / "a", "kept", "try again"):
        raise OSError(number, os.strerror(number))
    assert not isinstance(raised.value, DiskFull)
    assert ("ulimit -n" in raised.value.remedy) == (number == errno.EMFILE)
    assert raised.value.cause.startswith("cannot write: ")
    assert (raised.value.effect, raised.value.place) == ("kept", str(tmp_path / "a"))
    assert os.strerror(number) in raised.value.cause
    assert raised.value.remedy.endswith("then try again")


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_what_cannot_be_read_is_a_fault_of_the_machine(tmp_path, number):
    with pytest.raises(EnvironmentFault, match="cannot read") as raised, reading(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in raised.value.cause
    assert raised.value.place == str(tmp_path / "a")


def test_errors_that_are_not_of_the_disk_pass(tmp_path):
    with pytest.raises(KeyError), writing(tmp_path / "a"):
        raise KeyError("x")


def test_publish_forces_the_file_before_the_rename_and_its_folder_after(tmp_path, calls):
    (tmp_path / "a.tmp").write_bytes(b"text")
    publish(tmp_path / "a.tmp", tmp_path / "a")
    assert calls == [("sync", "a.tmp"), ("rename", "a.tmp", "a"), ("sync", tmp_path.name)]


def test_a_text_is_written_in_the_same_order(tmp_path, calls):
    write_text(tmp_path / "a", "Köln")
    assert calls == [("sync", "a.tmp"), ("rename", "a.tmp", "a"), ("sync", tmp_path.name)]
    assert (tmp_path / "a").read_bytes() == b"K\xc3\xb6ln"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_text_is_utf8_whatever_the_locale(tmp_path):
    code = "import sys, pathlib; from steelyard.store.durable import write_text;"
    code += "write_text(pathlib.Path(sys.argv[1]), 'K\\xf6ln')"
    options = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, tmp_path / "a"]
    subprocess.run(command, check=True, env={**os.environ, **options})
    assert (tmp_path / "a").read_bytes() == b"K\xc3\xb6ln"


def test_forcing_leaves_nothing_open(tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(9):
        sync(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_digest_is_that_of_the_algorithm(tmp_path):
    (tmp_path / "empty").touch()
    assert file_digest(tmp_path / "empty") == "99aa06d3014798d86001c324468d497f"  # published


def test_pages_of_parquet_files_carry_checksums():
    assert PARQUET["write_page_checksum"]
    assert SCRATCH["write_page_checksum"]


def test_a_text_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(EnvironmentFault, match="No such file"):
        write_text(tmp_path / "nowhere" / "a", "text")


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL])
def test_a_file_that_cannot_be_forced_is_an_error_a_folder_only_if_the_disk_failed(
    tmp_path, monkeypatch, number
):
    (tmp_path / "a").write_bytes(b"text")

    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        sync(tmp_path / "a")
    if number == errno.EINVAL:
        sync(tmp_path)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            sync(tmp_path)


def test_a_result_replaces_only_results_of_its_kind(tmp_path):
    ours, other = tmp_path / "ours", tmp_path / "other"
    ours.write_bytes(b"..KIND of file")
    other.write_bytes(b"KIND at another place")
    for path in (ours, tmp_path / "new"):
        check_out(path, b"KIND", skip=2)
    (tmp_path / "link").symlink_to(other)
    (tmp_path / "empty").write_bytes(b"")
    for path, problem in (
        (other, "not an earlier result"),
        (tmp_path / "link", "not an earlier result"),
        (tmp_path / "empty", "not an earlier result"),
        (tmp_path, "not an earlier result"),
        (tmp_path / "nowhere" / "new", "folder for the result does not exist"),
    ):
        with pytest.raises(UsageError, match=problem) as raised:
            check_out(path, b"KIND", skip=2)
        assert raised.value.place == str(path)
    (tmp_path / "to-ours").symlink_to(ours)
    plain = tmp_path / "plain"
    plain.write_bytes(b"KIND")
    check_out(plain, b"KIND")
    with pytest.raises(UsageError, match="one of the inputs"):
        check_out(ours, b"KIND", [None, tmp_path / "to-ours"], skip=2)
