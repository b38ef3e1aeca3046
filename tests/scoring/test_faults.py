"""Whatever the disk refuses at any step of a run is said, and nobody waits for what never comes.

What `benchmarks/simulate.py` has found is here by its kind.

Kind of fault: an error at the end of a thread's work hangs a run.
"""

import errno
import os
import threading

import pytest

from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.errors import EXIT_DONE, EnvironmentFault, SteelyardError
from steelyard.plan.keys import BucketSize
from steelyard.scoring.run import resume, score
from steelyard.scoring.status import run_status
from steelyard.store.plan.files import PlanWriter
from steelyard.store.reads.journal import read_journal
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from support.helpers import write_pairs
from support.recording_disk import RecordingDisk

QUIET = Reporter(quiet=True)
PATIENCE = 60  # seconds, for machines that are busy


@pytest.fixture
def config(tmp_path):
    shard = write_pairs(tmp_path / "pairs.parquet", 16, width=16)
    options = {"inputs": [str(shard)], "judge": "scripted", "part_rows": 8, "bucket_bytes": 400}
    return RunConfig.from_mapping(options, "test")


def ended(act):
    """Return what a call returns or raises; a call that does not end is a failure."""
    result = []

    def run():
        try:
            result.append(act())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it hangs"
    return result[0]


@pytest.mark.parametrize("skip", range(10))
def test_a_journal_that_cannot_be_opened_ends_the_run(tmp_path, config, skip):
    """One of these is where the writer of parts begins, when prompts are being prepared already."""
    disk = RecordingDisk(tmp_path / "run")
    disk.fail("open_file", "journal.jsonl", errno.EMFILE, skip=skip)
    end = ended(lambda: score(config, tmp_path / "run", QUIET, disk=disk))
    assert isinstance(end, EnvironmentFault), end
    assert "Too many open files" in end.cause
    assert "ulimit -n" in end.remedy
    assert not [t for t in threading.enumerate() if t.name in {"part-writer", "prompt-maker"}]
    assert score(config, tmp_path / "run", QUIET) == EXIT_DONE
    assert sum(part.rows for part in read_journal(tmp_path / "run")) == 32


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("open_file", "plan.tmp/pairs-*"),
        ("make_folder", "plan.tmp"),
        ("make_folder", "rejects.tmp"),
    ],
)
def test_a_plan_that_cannot_be_begun_leaves_no_thread(tmp_path, kind, name):
    disk = RecordingDisk(tmp_path / "run")
    run = RunDir(tmp_path / "run", disk)
    run.create()
    disk.fail(kind, name, errno.EACCES)
    with pytest.raises(EnvironmentFault, match="Permission denied"):
        PlanWriter(run, None, size=BucketSize(1000, 0), buckets=2)
    assert not [thread for thread in threading.enumerate() if thread.name == "bucket-writer"]


@pytest.mark.parametrize("error", [errno.EMFILE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("name", ["run.json", "journal.jsonl", "plan/plan.json"])
def test_what_a_reader_cannot_read_is_a_fault_of_the_machine(tmp_path, config, name, error):
    run = tmp_path / "run"
    assert score(config, run, QUIET) == EXIT_DONE
    for act in (
        lambda disk: RunSnapshot.take(run, disk),
        lambda disk: run_status(run, disk),
        lambda disk: resume(run, QUIET, disk=disk),
        lambda disk: score(config, run, QUIET, disk=disk),
    ):
        disk = RecordingDisk(run)
        disk.fail("open_file", name, error)
        with pytest.raises(EnvironmentFault) as raised:
            act(disk)
        assert os.strerror(error) in raised.value.cause
        assert raised.value.place == str(run)


def test_each_kind_of_call_may_fail_at_the_end_of_a_run(tmp_path, config):
    """A complete run is complete whatever a later command meets."""
    run = tmp_path / "run"
    assert score(config, run, QUIET) == EXIT_DONE
    before = read_journal(run)
    for kind in ("open_folder", "open_file", "status", "names", "read", "sync", "write", "rename"):
        disk = RecordingDisk(run)
        disk.fail(kind, "*", errno.EIO, skip=20)
        end = ended(lambda disk=disk: resume(run, QUIET, disk=disk))
        assert end == EXIT_DONE or isinstance(end, SteelyardError), (kind, end)
        assert read_journal(run) == before
    assert resume(run, QUIET) == EXIT_DONE
