"""The plan on disk: pairs (the inverse index), buckets of texts, rejects, and their manifest.

Everything is written into `plan.tmp` in one pass over the shards and renamed as a whole, so that
a plan exists completely or not at all.
"""

from __future__ import annotations

import json
import resource
import shutil
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.dedupe import unique_prompts
from steelyard.errors import IntegrityFault, UsageError
from steelyard.records import PAIRS, REJECTS, TEXTS, Int32, Unique
from steelyard.store.files import PARQUET, file_digest, sync, write_text, writing
from steelyard.store.rundir import RunDir

# Texts wait in memory until there is enough for row groups of a decent size in every bucket.
SPILL_BYTES = 128 << 20
PAIRS_ROWS = 1 << 16

TEXT_COLUMNS = ("instruction", "response_a", "response_b", "system", "conversation", "reference")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a plan holds. `unique[k]` is the number of unique prompts of bucket k."""

    pairs: int
    rejected: dict[str, int]
    unique: list[int]
    text_bytes: int
    longest_prompt_bytes: int
    metadata: list[str]
    files: dict[str, str]  # name relative to the run directory -> digest

    @property
    def prompts(self) -> int:
        """Unique prompts of the whole run."""
        return sum(self.unique)


class PlanWriter:
    """Collects planned batches; `commit` makes them the plan of the run.

    Args:
        run: the run directory.
        buckets: how many.
        metadata: type of the pairs' metadata struct, None without such columns.
    """

    def __init__(self, run: RunDir, buckets: int, metadata: pa.DataType | None) -> None:
        self._run = run
        self._folder = run.root / "plan.tmp"
        self._rejects = run.root / "rejects.tmp"
        for folder in (self._folder, self._rejects):
            shutil.rmtree(folder, ignore_errors=True)
            with writing(folder):
                folder.mkdir()
        _allow_open_files(buckets + 64)
        extra = [] if metadata is None else [pa.field("metadata", metadata)]
        self._metadata = [] if metadata is None else [field.name for field in metadata]
        self._pairs_schema = pa.schema([*PAIRS, *extra])
        self._pairs = self._open(self._folder / "pairs-00000.parquet", self._pairs_schema)
        self._waiting_pairs: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._texts: list[pa.RecordBatch] = []
        self._places: list[Int32] = []
        self._waiting_bytes = 0
        self._buckets: list[pq.ParquetWriter | None] = [None] * buckets
        self._reject_writer: pq.ParquetWriter | None = None
        self._rejected: dict[str, int] = {}
        self._counts = {"pairs": 0, "text_bytes": 0, "longest_prompt_bytes": 0}

    def add(self, pairs: pa.RecordBatch, texts: pa.RecordBatch) -> None:
        """Take planned rows: PAIRS (+ metadata) and TEXTS, row by row the same pairs."""
        self._counts["pairs"] += len(pairs)
        self._counts["text_bytes"] += _text_bytes(texts)
        self._counts["longest_prompt_bytes"] = max(
            self._counts["longest_prompt_bytes"], _longest(texts)
        )
        self._waiting_pairs.append(pairs)
        self._waiting_rows += len(pairs)
        if self._waiting_rows >= PAIRS_ROWS:
            self._flush_pairs()
        self._texts.append(texts)
        self._places.append(pairs["bucket"].to_numpy())
        self._waiting_bytes += texts.nbytes
        if self._waiting_bytes >= SPILL_BYTES:
            self._flush_texts()

    def reject(self, rows: pa.RecordBatch) -> None:
        """Take refused rows (REJECTS)."""
        if not len(rows):
            return
        for entry in rows["reason"].value_counts().to_pylist():
            self._rejected[entry["values"]] = (
                self._rejected.get(entry["values"], 0) + entry["counts"]
            )
        with writing(self._rejects):
            if self._reject_writer is None:
                self._reject_writer = self._open(self._rejects / "rejects-00000.parquet", REJECTS)
            self._reject_writer.write_batch(rows)

    def abandon(self) -> None:
        """Remove what was written."""
        for folder in (self._folder, self._rejects):
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self) -> Manifest:
        """Make everything durable and give it its place."""
        with writing(self._folder):
            self._flush_pairs()
            self._flush_texts()
            for writer in (self._pairs, self._reject_writer, *self._buckets):
                if writer is not None:
                    writer.close()
            manifest = self._manifest()
            write_text(self._folder / "plan.json", json.dumps(asdict(manifest), indent=1))
            for name in manifest.files:
                sync(self._place(name))
            shutil.rmtree(self._run.rejects, ignore_errors=True)
            self._rejects.replace(self._run.rejects)
            sync(self._folder)
            self._folder.replace(self._run.plan)
            sync(self._run.root)
        return manifest

    def _open(self, path: Path, schema: pa.Schema) -> pq.ParquetWriter:
        with writing(path):
            return pq.ParquetWriter(path, schema, **PARQUET)

    def _flush_pairs(self) -> None:
        if self._waiting_pairs:
            table = pa.Table.from_batches(self._waiting_pairs, self._pairs_schema)
            with writing(self._folder):
                self._pairs.write_table(table)
            self._waiting_pairs, self._waiting_rows = [], 0

    def _flush_texts(self) -> None:
        if not self._texts:
            return
        table = pa.Table.from_batches(self._texts, TEXTS)
        places = np.concatenate(self._places)
        self._texts, self._places, self._waiting_bytes = [], [], 0
        order = np.argsort(places, kind="stable")
        bounds = np.searchsorted(places[order], np.arange(len(self._buckets) + 1))
        with writing(self._folder):
            for bucket, (start, end) in enumerate(pairwise(bounds)):
                if start < end:
                    self._bucket(bucket).write_table(table.take(pa.array(order[start:end])))

    def _bucket(self, bucket: int) -> pq.ParquetWriter:
        writer = self._buckets[bucket]
        if writer is None:
            writer = self._open(self._folder / bucket_name(bucket), TEXTS)
            self._buckets[bucket] = writer
        return writer

    def _place(self, name: str) -> Path:
        """Where a file of the manifest lies until the commit."""
        folder, _, rest = name.partition("/")
        return (self._rejects if folder == "rejects" else self._folder) / rest

    def _manifest(self) -> Manifest:
        names = [f"plan/{path.name}" for path in sorted(self._folder.glob("*.parquet"))]
        names += [f"rejects/{path.name}" for path in sorted(self._rejects.glob("*.parquet"))]
        return Manifest(
            **self._counts,
            rejected=dict(sorted(self._rejected.items())),
            unique=[
                _count_unique(self._folder / bucket_name(bucket)) if writer else 0
                for bucket, writer in enumerate(self._buckets)
            ],
            metadata=self._metadata,
            files={name: file_digest(self._place(name)) for name in names},
        )


def bucket_name(bucket: int) -> str:
    """File name of a bucket."""
    return f"bucket-{bucket:05d}.parquet"


def read_manifest(run: RunDir) -> Manifest | None:
    """The plan's manifest; None while there is no plan.

    Raises:
        IntegrityFault: it cannot be read, or is missing from a plan.
    """
    path = run.plan / "plan.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Manifest(**content)
    except FileNotFoundError:
        if run.plan.exists():
            raise _damaged(path) from None
        return None
    except (ValueError, TypeError):
        raise _damaged(path) from None


def load_manifest(run: RunDir) -> Manifest:
    """The plan's manifest.

    Raises:
        UsageError: the run was stopped before its plan was made.
        IntegrityFault: it cannot be read.
    """
    manifest = read_manifest(run)
    if manifest is None:
        raise UsageError(
            "the run has no plan yet: it was stopped while planning",
            place=str(run.root),
            remedy=f"steelyard resume {run.root}",
        )
    return manifest


def require_plan_file(run: RunDir, manifest: Manifest, name: str) -> Path:
    """Path of a plan file whose bytes are those that were committed.

    Raises:
        IntegrityFault: they are not.
    """
    path = run.root / name
    try:
        if file_digest(path) == manifest.files[name]:
            return path
    except (FileNotFoundError, KeyError):
        pass
    raise _damaged(path)


def load_bucket(run: RunDir, manifest: Manifest, bucket: int) -> pa.Table:
    """The texts of a bucket (TEXTS), read once and checked."""
    if not manifest.unique[bucket]:
        return TEXTS.empty_table()
    path = require_plan_file(run, manifest, f"plan/{bucket_name(bucket)}")
    return pq.read_table(path, use_threads=False, memory_map=False)


def _damaged(path: Path) -> IntegrityFault:
    return IntegrityFault(
        "a file of the plan is damaged or missing",
        place=str(path),
        effect="the run cannot go on from this plan; its reads are intact",
        remedy="score the same input into a new run directory with `--reuse` of this one",
    )


def unique_of(texts: pa.Table) -> Unique:
    """The unique prompts of a bucket, from its columns key_ab and key_ba."""
    return unique_prompts(*(b"".join(texts[name].to_pylist()) for name in ("key_ab", "key_ba")))


def _count_unique(path: Path) -> int:
    keys = pq.read_table(path, columns=["key_ab", "key_ba"], use_threads=False)
    return len(unique_of(keys).keys)


def _text_bytes(texts: pa.RecordBatch) -> int:
    return sum(int(_lengths(texts[name]).sum()) for name in TEXT_COLUMNS)


def _longest(texts: pa.RecordBatch) -> int:
    """Bytes of the longest pair's texts: an upper bound of its tokens beside the template."""
    total = sum(_lengths(texts[name]) for name in TEXT_COLUMNS if name != "reference")
    return int(np.max(total, initial=0))


def _lengths(texts: pa.Array) -> np.typing.NDArray[np.int64]:
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.binary_length(texts), 0)
    return np.asarray(lengths, dtype=np.int64)


def _allow_open_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count and (hard == resource.RLIM_INFINITY or hard >= count):
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
