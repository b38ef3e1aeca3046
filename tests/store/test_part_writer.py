"""The thread that commits parts: whatever the disk refuses at any call is said, and ends it."""

from __future__ import annotations

import errno
import threading

import numpy as np
import pytest

from steelyard.core.batches import ReadBatch
from steelyard.core.work import BatchProgress
from steelyard.errors import DiskFull, EnvironmentFault
from steelyard.store.disk import Disk
from steelyard.store.reads import journal
from steelyard.store.reads.parts import PartWriter
from steelyard.store.rundir import RunDir

CALLS = (
    *("open_folder", "open_file", "status", "status_of", "names", "read", "write", "sync"),
    *("rename", "remove", "make_folder", "truncate"),
)
FOREVER = 1e9


class FailingDisk(Disk):
    """A disk of which one call fails, by its number; calls are counted in the thread of parts."""

    def __init__(self, fails=0, number=errno.EIO):
        self.calls, self.fails, self.number = [], fails, number

    def __getattribute__(self, name):
        call = super().__getattribute__(name)
        if name not in CALLS or threading.current_thread().name != "part-writer":
            return call

        def counted(*arguments, **options):
            self.calls.append(name)
            if len(self.calls) == self.fails:
                raise OSError(self.number, "injected")
            return call(*arguments, **options)

        return counted


def reads(first, count=3):
    return ReadBatch(
        keys=[number.to_bytes(16, "big") for number in range(first, first + count)],
        buckets=np.zeros(count, np.int32),
        status=["ok"] * count,
        label_logprobs=np.zeros((count, 2)),
        label_mass=np.ones(count),
        argmax_outside=np.zeros(count, np.bool_),
        truncated=np.zeros(count, np.bool_),
        prompt_tokens=np.ones(count, np.int32),
        cached_tokens=np.zeros(count, np.int32),
        errors=[None] * count,
    )


def write_two_parts(path, disk):
    """Commit one part when it is full and one at the end; return how it ended, but never hang."""
    run = RunDir(path / "run", disk)
    run.create()
    journal.create(run)
    ended = []

    def write():
        writer = PartWriter(run, rows=3, seconds=FOREVER)
        try:
            writer.add(reads(0), BatchProgress(pairs=1))
            writer.add(reads(3, 2), BatchProgress(pairs=1))
            writer.close()
            ended.append(None)
        except Exception as error:
            ended.append(error)
            for call in (writer.close, lambda: writer.add(reads(9), BatchProgress())):
                with pytest.raises(type(error)):
                    call()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it hangs"
    assert "part-writer" not in [thread.name for thread in threading.enumerate()]
    return ended[0]


def test_an_error_of_the_disk_at_any_call_of_a_part_ends_the_writer_with_its_class(tmp_path):
    """The second part is committed by the last flush, when the end was already asked for."""
    whole = FailingDisk()
    (tmp_path / "whole").mkdir()
    assert write_two_parts(tmp_path / "whole", whole) is None
    assert {"open_file", "write", "sync", "rename"} <= set(whole.calls)
    parts = journal.load(RunDir(tmp_path / "whole" / "run")).parts
    assert [part.rows for part in parts] == [3, 2]
    for number in range(1, len(whole.calls) + 1):
        code = (errno.EIO, errno.EMFILE, errno.ENOSPC)[number % 3]
        folder = tmp_path / str(number)
        folder.mkdir()
        error = write_two_parts(folder, FailingDisk(number, code))
        kind = DiskFull if code == errno.ENOSPC else EnvironmentFault
        assert type(error) is kind, f"{whole.calls[number - 1]}, call {number}: {error!r}"
        assert "resume" in error.remedy
        committed = journal.load(RunDir(folder / "run"))
        assert not committed.damaged
        assert [part.rows for part in committed.parts] in ([], [3], [3, 2])
