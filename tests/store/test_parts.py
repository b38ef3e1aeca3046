"""Parts: what is written of reads, when a part is closed, and what an error leaves."""

import errno
import threading
import time
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.core.schemas import (
    READS,
    STATUS_ERROR,
    STATUS_OK,
    STATUS_OVERLONG,
    STATUS_UNPARSABLE,
)
from steelyard.core.work import BatchProgress, Work
from steelyard.errors import DiskFull
from steelyard.store.reads import journal
from steelyard.store.reads.parts import (
    PartWriter,
    commit_part,
    count_reads,
    done_keys,
    next_number,
    reads_table,
)
from support.recording_disk import RecordingDisk
from support.some_reads import batch, key, run_with_parts, table

NO_GAIN = BatchProgress()


class TestTable:
    def test_rows_are_the_reads(self):
        table = reads_table([batch([1, 2]), batch([3], bucket=7)], [1_000, 2_500])
        assert table.schema.equals(READS)
        first, _, third = table.to_pylist()
        assert first == {
            "prompt_key": key(1), "bucket": 0, "status": "ok", "label_logprobs": [-1.0, -2.0],
            "label_mass": 0.75, "argmax_outside": False, "truncated": False, "prompt_tokens": 10,
            "cached_tokens": 4, "error": None, "output": None, "numbers": None, "forced": None,
            "output_tokens": None, "read_at": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
            "reused_from": None,
        }  # fmt: skip
        assert (third["bucket"], third["prompt_key"]) == (7, key(3))
        assert third["read_at"] == datetime(1970, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC)

    @pytest.mark.parametrize("status", [STATUS_ERROR, STATUS_OVERLONG, STATUS_UNPARSABLE])
    def test_a_read_without_an_answer_has_nulls_for_numbers(self, status):
        table = reads_table([batch([1, 2], status=[STATUS_OK, status])], [0])
        good, bad = table.to_pylist()
        for name in ("label_logprobs", "label_mass", "argmax_outside"):
            assert good[name] is not None
            assert bad[name] is None
        assert bad["error"] == f"because of {status}"
        assert bad["truncated"] is False

    def test_a_protocol_without_labels_has_a_null_for_their_mass(self):
        reads = batch([1, 2])
        reads.label_mass[:] = [np.nan, 0.5]
        table = reads_table([reads], [0])
        assert table["label_mass"].to_pylist() == [None, 0.5]
        assert table["label_mass"].null_count == 1

    def test_batches_that_differ_in_width_and_in_what_was_written(self):
        narrow = batch([3], status=STATUS_OVERLONG)
        object.__setattr__(narrow, "label_logprobs", np.full((1, 1), np.nan))
        table = reads_table([batch([1, 2], written=True), narrow], [0, 0])
        assert table["label_logprobs"].to_pylist() == [[-1, -2], [-2, -4], None]
        assert table["output"].to_pylist() == ["text 1", "text 2", None]
        assert table["numbers"].to_pylist() == [[1.0, 0.5], [2.0, 0.5], None]
        assert table["forced"].to_pylist() == [False, False, None]
        assert table["output_tokens"].to_pylist() == [0, 1, None]

    def test_counts(self):
        words = [STATUS_OK, STATUS_OK, STATUS_ERROR, STATUS_OVERLONG]
        table = reads_table([batch([1, 2, 3, 4], status=words)], [0])
        reused = table.slice(0, 1)
        column = table.schema.get_field_index("reused_from")
        reused = reused.set_column(column, READS.field(column), pa.array(["run"], pa.string()))
        assert count_reads(pa.concat_tables([table, reused])) == {
            "ok_reads": 3, "error_reads": 1, "overlong_reads": 1,
            "prompt_tokens": 30, "cached_tokens": 12,  # of three that were sent to the engine
            "reused_reads": 1, "reused_tokens": 10,
        }  # fmt: skip


class Clock(RecordingDisk):
    """A disk whose clock stands still until it is moved, or until a batch has come."""

    time, step = 1_700_000_000.0, 0.0
    held = None  # until when nobody sees the clock

    def seconds(self):
        if self.held is not None:
            self.held.wait()
        return self.time

    def now_ns(self):
        now = int(self.time * 1e9)
        self.time += self.step
        return now


@pytest.fixture
def run(tmp_path):
    return run_with_parts(tmp_path / "run", [], Clock(tmp_path / "run"))


def sizes(run):
    return [part.rows for part in journal.load(run).parts]


def eventually(condition):
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


class TestWriter:
    def test_a_part_is_closed_when_it_has_enough_rows(self, run):
        writer = PartWriter(run, rows=5, seconds=1e6)
        for start in range(0, 14, 2):
            writer.add(batch([start, start + 1]), BatchProgress(pairs=1, duplicate_tokens=start))
        writer.close()
        parts = journal.load(run).parts
        assert [part.rows for part in parts] == [6, 6, 2]
        assert [part.pairs for part in parts] == [3, 3, 1]
        assert [part.counts["duplicate_tokens"] for part in parts] == [0 + 2 + 4, 6 + 8 + 10, 12]
        assert [part.name[-9:] for part in parts] == [f"{n}.parquet" for n in (1, 2, 3)]
        keys = [
            row
            for part in parts
            for row in pq.read_table(run.root / part.name)["prompt_key"].to_pylist()
        ]
        assert keys == [key(number) for number in range(14)]

    def test_numbers_go_on_where_the_journal_ends(self, tmp_path):
        run = run_with_parts(tmp_path / "run", [1, 1, 1])
        journal.rewrite(run, journal.load(run).parts[1:])
        assert next_number(run) == 4
        writer = PartWriter(run, rows=1, seconds=1e6)
        writer.add(batch([9], bucket=5), NO_GAIN)
        writer.close()
        last = journal.load(run).parts[-1]
        assert (last.name, last.buckets) == ("reads/part-00000004.parquet", [5])

    def test_the_first_part_is_number_one(self, run):
        assert next_number(run) == 1

    def test_under_steady_reads_a_part_is_closed_when_its_oldest_read_is_old(self, run):
        """No pause comes in which the thread would look by itself."""
        disk = run.files.disk
        disk.step, disk.held = 25.0, threading.Event()
        writer = PartWriter(run, rows=1000, seconds=60.0)
        for number in range(8):  # each 25 seconds after the one before
            writer.add(batch([number]), NO_GAIN)
        disk.held.set()
        writer.close()
        assert sizes(run) == [3, 3, 2]

    def test_each_part_counts_its_own_rows(self, run):
        writer = PartWriter(run, rows=3, seconds=1e6)
        for number in range(7):
            writer.add(batch([number]), NO_GAIN)
        writer.close()
        assert sizes(run) == [3, 3, 1]

    def test_times_are_those_of_the_batches(self, run):
        disk = run.files.disk
        writer = PartWriter(run, rows=100, seconds=1e6)
        times = [1_700_000_101.0, 1_700_000_102.5]
        for seconds in times:
            disk.time = seconds
            before = writer._waiting_rows
            writer.add(batch([int(seconds)]), NO_GAIN)
            assert eventually(lambda rows=before: writer._waiting_rows > rows)
        writer.close()
        (part,) = journal.load(run).parts
        written = pq.read_table(run.root / part.name)["read_at"].to_pylist()
        assert [moment.timestamp() for moment in written] == times

    def test_a_part_is_closed_after_a_pause(self, run, monkeypatch):
        writer = PartWriter(run, rows=1000, seconds=0.05)
        writer.add(batch([1]), NO_GAIN)
        run.files.disk.time += 1
        assert eventually(lambda: sizes(run) == [1])
        writer.close()
        assert sizes(run) == [1]

    def test_nothing_to_write_is_no_part(self, run):
        PartWriter(run, rows=5, seconds=60.0).close()
        assert sizes(run) == []
        assert journal.part_files(run) == []

    @pytest.mark.parametrize("kind", ["write", "sync", "rename"])
    @pytest.mark.parametrize("waiting", [4, 5])  # the last part is written by `close`, or by `add`
    def test_an_error_of_the_last_part_is_raised_and_nobody_waits(self, run, kind, waiting):
        run.files.disk.fail(kind, "*.parquet.tmp", errno.ENOSPC)
        writer = PartWriter(run, rows=5, seconds=1e6)
        writer.add(batch(range(waiting)), NO_GAIN)
        for _ in range(2):  # and again when it is closed again
            with pytest.raises(DiskFull):
                writer.close()
        assert sizes(run) == []

    def test_an_error_is_raised_by_what_comes_next_and_nothing_more_is_written(self, run):
        run.files.disk.fail("sync", "journal.jsonl", errno.EIO)
        writer = PartWriter(run, rows=1, seconds=1e6)

        def add_many():
            for number in range(2000):  # more than may wait
                writer.add(batch([number]), NO_GAIN)

        with pytest.raises(Exception, match="Input/output"):
            add_many()
        with pytest.raises(Exception, match="Input/output"):
            writer.close()
        assert sizes(run) == []
        assert journal.part_files(run) == ["reads/part-00000001.parquet"]  # without a line


def test_a_line_of_the_journal_says_what_a_part_took(tmp_path):
    run = run_with_parts(tmp_path / "run", [])
    work = {7: Work(prompts=2, unique_tokens=20), 3: Work(prompts=1, engine_seconds=1.5)}
    commit_part(run, table([1, 2]), 1, BatchProgress(pairs=4, duplicate_tokens=3, work=work))
    (part,) = journal.load(run).parts
    assert (part.rows, part.pairs, part.counts["duplicate_tokens"]) == (2, 4, 3)
    assert list(part.work) == ["3", "7"]
    assert (part.work["3"]["prompts"], part.work["3"]["engine_seconds"]) == (1, 1.5)
    assert (part.work["7"]["prompts"], part.work["7"]["unique_tokens"]) == (2, 20)


def test_keys_that_are_read_are_found_by_their_bucket(tmp_path):
    run = run_with_parts(tmp_path / "run", [2, 1])  # keys 0, 1 and 2 of bucket 0
    writer = PartWriter(run, rows=1, seconds=1e6)
    work = {1: Work(prompts=1), 3: Work(prompts=1)}
    writer.add(batch([7, 8], bucket=1), BatchProgress(work=work))
    writer.close()
    mixed = PartWriter(run, rows=2, seconds=1e6)
    mixed.add(batch([4], bucket=0), NO_GAIN)
    mixed.add(batch([9], bucket=1), NO_GAIN)
    mixed.close()
    done = done_keys(run)
    assert done(0) == {key(0), key(1), key(2), key(4)}
    assert done(1) == {key(7), key(8), key(9)}
    assert done(2) == set()
