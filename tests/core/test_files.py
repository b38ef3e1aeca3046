"""Folders for unfinished files.

Kind of fault: the machine or Ctrl-C ends the work.
"""

import errno
import os
import subprocess
import sys

import pytest

from steelyard.core.files import temporary_folder

NO_MORE_FILES = """
import os, resource, sys
from steelyard.core.files import temporary_folder
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
with temporary_folder("unfinished-") as folder:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "c").write_text("text")
    held = []
    while True:
        held.append(open(folder / f"{len(held)}", "w"))
"""


def test_a_folder_is_removed_where_no_more_files_can_be_opened(tmp_path):
    """`plan` left its folder: what removes one opens files itself."""
    done = subprocess.run(
        [sys.executable, "-c", NO_MORE_FILES], capture_output=True, text=True, check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert "Too many open files" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


FIRST_FOLDER = """
import os, resource, sys, tempfile
from steelyard.core.files import make_temporary_folder
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
os.closerange(3, 256)
make_temporary_folder("unfinished-")
"""


def test_a_limit_of_files_is_not_taken_for_a_missing_folder(tmp_path):
    """Python says so, as it opens a file to try a folder with."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_FOLDER], capture_output=True, text=True, check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert "Too many open files" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_what_a_link_leads_to_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text").write_text("mine")
    with temporary_folder("unfinished-") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "link").symlink_to(tmp_path / "mine")
        (folder / "gone").symlink_to(tmp_path / "nothing")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine" / "text").read_text() == "mine"


def test_a_folder_that_cannot_be_reserved_for_is_not_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def refuse(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(OSError, match="Too many"), temporary_folder("unfinished-"):
        pass
    assert not list(tmp_path.iterdir())
