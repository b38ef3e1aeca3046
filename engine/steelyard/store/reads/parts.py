"""Parts: reads are gathered, written whole by a separate thread, then committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from steelyard.core.arrow import offsets_of
from steelyard.core.background import Worker
from steelyard.core.batches import ReadBatch
from steelyard.core.schemas import (
    KEY,
    READS,
    STATUS_ERROR,
    STATUS_OK,
    STATUS_OVERLONG,
    STATUS_UNPARSABLE,
)
from steelyard.core.work import BatchProgress
from steelyard.store.disk import now
from steelyard.store.durable import writing
from steelyard.store.reads.journal import PART_NAME, Part, append, load
from steelyard.store.rundir import READS_FOLDER, RunDir

PART_ROWS = 20_000
# Counts in the journal of reads without an answer.
FAILED_READS = tuple(
    f"{status}_reads" for status in (STATUS_ERROR, STATUS_OVERLONG, STATUS_UNPARSABLE)
)

_WRITTEN = ("output", "numbers", "forced", "output_tokens")


def reads_table(batches: Sequence[ReadBatch], times: Sequence[int]) -> pa.Table:
    """Return ReadBatches as rows of READS; rows that are not ok get nulls for numbers.

    Args:
        batches: at least one.
        times: when each batch came, milliseconds since 1970.
    """
    status = [word for batch in batches for word in batch.status]
    lost = np.asarray([word != STATUS_OK for word in status])
    unlabelled = np.concatenate([np.isnan(batch.label_mass) for batch in batches])
    columns = {
        "prompt_key": pa.array([key for batch in batches for key in batch.keys], type=KEY),
        "bucket": pa.array(np.concatenate([batch.buckets for batch in batches]), pa.int32()),
        "status": pa.array(status, type=pa.string()),
        "label_logprobs": _label_logprobs(batches, lost),
        "label_mass": _column(batches, "label_mass", lost | unlabelled),
        "argmax_outside": _column(batches, "argmax_outside", lost),
        "truncated": _column(batches, "truncated"),
        "prompt_tokens": _column(batches, "prompt_tokens"),
        "cached_tokens": _column(batches, "cached_tokens"),
        "error": pa.array([error for batch in batches for error in batch.errors], pa.string()),
        **_written(batches),
        "read_at": pa.array(
            np.repeat(times, [len(batch) for batch in batches]), READS.field("read_at").type
        ),
        "reused_from": pa.nulls(len(status), pa.string()),
    }
    return pa.Table.from_arrays([columns[name] for name in READS.names], schema=READS)


def _column(
    batches: Sequence[ReadBatch], name: str, mask: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    values = np.concatenate([getattr(batch, name) for batch in batches])
    return pa.array(values, READS.field(name).type, mask=mask)


def _written(batches: Sequence[ReadBatch]) -> dict[str, pa.Array]:
    """Return the columns of what judges wrote; null where they wrote nothing."""
    columns: dict[str, list[pa.Array]] = {name: [] for name in _WRITTEN}
    for batch in batches:
        for name, values in columns.items():
            kind = READS.field(name).type
            if batch.written is None:
                values.append(pa.nulls(len(batch), kind))
            else:
                values.append(pa.array(getattr(batch.written, name), kind))
    return {name: pa.chunked_array(values) for name, values in columns.items()}


def _label_logprobs(batches: Sequence[ReadBatch], lost: npt.NDArray[np.bool_]) -> pa.Array:
    """Return one list per row; batches that no judge read differ in width."""
    widths = np.repeat(
        [batch.label_logprobs.shape[1] for batch in batches], [len(batch) for batch in batches]
    )
    values = np.concatenate([batch.label_logprobs.reshape(-1) for batch in batches])
    offsets = pa.array(offsets_of(widths), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values), mask=pa.array(lost))


def count_reads(table: pa.Table) -> dict[str, int]:
    """Count what `status` adds up over parts: reads by status, tokens, reused reads."""
    counts = {
        f"{entry['values']}_reads": entry["counts"]
        for entry in table["status"].value_counts().to_pylist()
    }
    reused = table.filter(table["reused_from"].is_valid())
    sent = table.filter(table["reused_from"].is_null())
    sent = sent.filter(pc.not_equal(sent["status"], STATUS_OVERLONG))
    for name in ("prompt_tokens", "cached_tokens"):
        counts[name] = int(np.asarray(sent[name]).sum())
    counts["reused_reads"] = len(reused)
    counts["reused_tokens"] = int(np.asarray(reused["prompt_tokens"]).sum())
    return counts


def commit_part(run: RunDir, table: pa.Table, number: int, gain: BatchProgress) -> Part:
    """Write a part durably, then its line in the journal."""
    name = f"{READS_FOLDER}/part-{number:08d}.parquet"
    with writing(run.root / name):
        run.files.write_table(name, table)
    return journal_part(run, name, table, gain)


def journal_part(run: RunDir, name: str, table: pa.Table, gain: BatchProgress) -> Part:
    """Write the journal line of a part whose file is durable."""
    part = Part(
        name=name,
        rows=len(table),
        bytes=run.files.size(name),
        digest=run.files.digest(name),
        buckets=sorted(set(table["bucket"].to_pylist())),
        committed=now(),
        pairs=gain.pairs,
        counts={**count_reads(table), "duplicate_tokens": gain.duplicate_tokens},
        work={str(bucket): asdict(work) for bucket, work in sorted(gain.work.items())},
    )
    append(run, part)
    return part


def next_number(run: RunDir) -> int:
    """Return the number of the next part."""
    names = (PART_NAME.fullmatch(part.name) for part in load(run).parts)
    return 1 + max((int(name[1]) for name in names if name), default=0)


def done_keys(run: RunDir) -> Callable[[int], set[bytes]]:
    """Return a function from a bucket to the keys of it that the journaled parts hold."""
    holders: dict[int, list[str]] = {}
    for part in load(run).parts:
        for bucket in part.buckets:
            holders.setdefault(bucket, []).append(part.name)

    def keys(bucket: int) -> set[bytes]:
        done: set[bytes] = set()
        for name in holders.get(bucket, ()):
            with run.files.open(name) as file:
                table = pq.read_table(file, columns=["prompt_key", "bucket"], use_threads=False)
            done.update(table.filter(pc.field("bucket") == bucket)["prompt_key"].to_pylist())
        return done

    return keys


class PartWriter:
    """A writer that takes reads from the judge's thread and commits them as parts in another.

    A part is closed at `rows` reads, or when its oldest read is `seconds` old. An error of the
    writing thread is raised by the next call.
    """

    def __init__(self, run: RunDir, *, rows: int, seconds: float) -> None:
        self._run, self._number, self._disk = run, next_number(run), run.files.disk
        self._rows, self._seconds = rows, seconds
        self._waiting: list[tuple[ReadBatch, BatchProgress, int]] = []
        self._waiting_rows = 0
        self._oldest = 0.0
        self._thread = Worker(
            self._take,
            waiting=256,
            name="part-writer",
            flush=self._commit,
            flush_after=self._seconds_left,
        )

    def add(self, batch: ReadBatch, gain: BatchProgress) -> None:
        """Take reads, and the progress that they mean.

        Raises:
            EnvironmentFault: an earlier part could not be written.
        """
        self._thread.give((batch, gain))

    def close(self) -> None:
        """Commit what is waiting and end the thread. Raise as `add` does."""
        self._thread.close()

    def _seconds_left(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, self._oldest + self._seconds - self._disk.seconds())

    def _take(self, item: tuple[ReadBatch, BatchProgress]) -> None:
        batch, gain = item
        if not self._waiting:
            self._oldest = self._disk.seconds()
        self._waiting.append((batch, gain, self._disk.now_ns() // 1_000_000))
        self._waiting_rows += len(batch)
        if self._waiting_rows >= self._rows or self._seconds_left() == 0.0:
            self._commit()

    def _commit(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
        batches, gains, times = zip(*waiting, strict=True)
        total = BatchProgress()
        for gain in gains:
            total.add(gain)
        with writing(self._run.root / READS_FOLDER):  # also what is read of it: no files left, EIO
            commit_part(self._run, reads_table(batches, times), self._number, total)
        self._number += 1
