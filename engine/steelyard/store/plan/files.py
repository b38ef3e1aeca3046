"""The plan on disk: pairs (the inverse index), texts by bucket, rejects, and their manifest.

Everything is written into `plan.tmp` in one pass over the shards and renamed as a whole, so that
a plan exists completely or not at all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.core.batches import Planned, PlannedResponses
from steelyard.core.images import read_digests
from steelyard.core.schemas import PAIRS, PLACED, REJECTS, Int32
from steelyard.core.sealed import seal, unseal
from steelyard.errors import IntegrityFault, SteelyardError, UsageError
from steelyard.plan.keys import BucketSize
from steelyard.store.durable import PARQUET, writing
from steelyard.store.images import ImageStore
from steelyard.store.parquet_file import ParquetFileWriter
from steelyard.store.plan.buckets import BucketStore, CopiedBuckets, ShardBuckets
from steelyard.store.rundir import IMAGES, PLAN, REJECTS_FOLDER, RunDir

# Of a row group of pairs: DuckDB reads it whole, several at a time, in `sql.MEMORY_LIMIT`.
PAIRS_ROWS = 1 << 16
PAIRS_BYTES = 16 << 20
PAIRS_FILE = "pairs-00000.parquet"
REJECTS_FILE = "rejects-00000.parquet"
MANIFEST = "plan.json"
NEW_PLAN, NEW_REJECTS = f"{PLAN}.tmp", f"{REJECTS_FOLDER}.tmp"
# The only names that a manifest may have: no path of it leads anywhere else.
_FILE = re.compile(rf"({PLAN}|{REJECTS_FOLDER})/[a-z]+-[0-9]{{5,}}\.parquet")


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a plan holds. `unique[k]` is the number of unique prompts of bucket k.

    Where the texts were left in the shards, bucket k is the next `ranges[k]` pairs of the plan in
    their order; otherwise `ranges` is empty. `text_bytes` counts a text once per pair that has it.
    """

    pairs: int
    asked: int  # prompts of all pairs, equal ones counted each time
    rejected: dict[str, int]
    unique: list[int]
    ranges: list[int]
    text_bytes: int
    longest_prompt_bytes: int  # bounds its tokens besides the template
    metadata: list[str]
    files: dict[str, str]  # name relative to the run directory -> digest
    images: int = 0  # per row, at most
    run: str = ""  # id of the run; earlier versions do not say

    @property
    def in_shards(self) -> bool:
        """Whether the texts are read from the shards again, and not from a copy."""
        return bool(self.ranges)

    @property
    def prompts(self) -> int:
        """Unique prompts of the whole run."""
        return sum(self.unique)


class PlanWriter:
    """Collects planned batches; `commit` makes them the plan of the run.

    Args:
        run: the run directory.
        metadata: type of the pairs' metadata struct, None without such columns.
        size: of a bucket.
        buckets: number of buckets into which texts are copied; 0: they are left in the shards.
        run_id: of run.json; empty: the plan is of no run that is kept.
    """

    def __init__(
        self,
        run: RunDir,
        metadata: pa.DataType | None,
        *,
        size: BucketSize,
        buckets: int,
        run_id: str = "",
    ) -> None:
        self._run, self._run_id = run, run_id
        self._folder = run.files.inside(NEW_PLAN)
        self._rejects = run.files.inside(NEW_REJECTS)
        for name, folder in ((NEW_PLAN, self._folder), (NEW_REJECTS, self._rejects)):
            with writing(folder.path):
                run.files.remove_tree(name)
                folder.make()
        extra = [] if metadata is None else [pa.field("metadata", metadata)]
        self._metadata = [] if metadata is None else [field.name for field in metadata]
        self._pairs_schema = pa.schema([*PAIRS, *extra])
        with writing(self._folder.path):
            self._pairs = self._folder.parquet(PAIRS_FILE, self._pairs_schema, **PARQUET)
        self.copies = buckets > 0  # whether texts are copied
        self._buckets: BucketStore = (  # last: it may have a thread, which `abandon` ends
            CopiedBuckets(self._folder, buckets, size) if buckets else ShardBuckets(size)
        )
        self._waiting_pairs: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._reject_writer: ParquetFileWriter | None = None
        self._rejected: Counter[str] = Counter()
        counted = ("pairs", "asked", "text_bytes", "longest_prompt_bytes", "images")
        self._counts = dict.fromkeys(counted, 0)

    def add(self, rows: Planned) -> None:
        """Take planned rows.

        Raises:
            NotGrouped: texts are to be left in the shards, and these rows do not allow it.
        """
        if not len(rows):
            return
        counts = self._counts
        numbers = np.arange(counts["pairs"], counts["pairs"] + len(rows))
        counts["pairs"] += len(rows)
        counts["asked"] += len(rows.pairs["keys"].flatten())
        counts["text_bytes"] += int(rows.text_bytes.sum())
        longest = int(rows.text_bytes.max())
        counts["longest_prompt_bytes"] = max(counts["longest_prompt_bytes"], longest)
        self._count_images(rows.texts)
        with writing(self._folder.path):
            buckets = self._buckets.add(rows)
        placed = rows.pairs
        for name, values in zip(PLACED, (numbers, buckets), strict=True):
            column = PAIRS.get_field_index(name)
            placed = placed.add_column(column, PAIRS.field(column), pa.array(values))
        self._waiting_pairs.append(placed)
        self._waiting_rows += len(placed)
        self._waiting_bytes += placed.nbytes
        if self._waiting_rows >= PAIRS_ROWS or self._waiting_bytes >= PAIRS_BYTES:
            self._flush_pairs()

    def add_responses(self, rows: PlannedResponses) -> None:
        """Take planned responses, of which pairs are made later; their texts are copied now."""
        assert isinstance(self._buckets, CopiedBuckets)  # noqa: S101 - the caller's duty
        self._count_images(rows.texts)
        with writing(self._folder.path):
            self._buckets.add_responses(rows)

    def responses(self) -> Iterator[pa.RecordBatch]:
        """Yield the responses that were taken, all of an instruction at once."""
        assert isinstance(self._buckets, CopiedBuckets)  # noqa: S101 - the caller's duty
        with writing(self._folder.path):
            yield from self._buckets.responses()

    def _count_images(self, texts: pa.RecordBatch) -> None:
        digests = texts["images"]
        if digests.null_count < len(texts):
            images = max(len(read_digests(text)) for text in digests.to_pylist())
            self._counts["images"] = max(self._counts["images"], images)

    def reject(self, rows: pa.RecordBatch) -> None:
        """Take refused rows (REJECTS_FOLDER)."""
        if not len(rows):
            return
        self._rejected.update(rows["reason"].to_pylist())
        with writing(self._rejects.path):
            if self._reject_writer is None:
                self._reject_writer = self._rejects.parquet(REJECTS_FILE, REJECTS, **PARQUET)
            self._reject_writer.write_batch(rows)

    def abandon(self) -> None:
        """Remove what was written."""
        self._buckets.abandon()
        for name in (NEW_PLAN, NEW_REJECTS):
            with suppress(OSError, SteelyardError):
                self._run.files.remove_tree(name)

    def commit(self) -> Manifest:
        """Make everything durable and rename it, the rows' images before the plan."""
        files = self._run.files
        with writing(self._folder.path):
            ImageStore(files.inside(IMAGES)).sync()
            self._flush_pairs()
            self._pairs.close()
            if self._reject_writer is not None:
                self._reject_writer.close()
            if moved := self._buckets.finish():
                self._move_pairs(moved)
            manifest = self._manifest()
            self._folder.write(MANIFEST, seal(msgspec.to_builtins(manifest), indent=1))
            files.remove_tree(REJECTS_FOLDER)
            files.publish(NEW_REJECTS, REJECTS_FOLDER)
            files.publish(NEW_PLAN, PLAN)  # last: from here on there is a plan
        return manifest

    def _flush_pairs(self) -> None:
        if self._waiting_pairs:
            table = pa.Table.from_batches(self._waiting_pairs, self._pairs_schema)
            with writing(self._folder.path):
                self._pairs.write_table(table)
            self._waiting_pairs, self._waiting_rows, self._waiting_bytes = [], 0, 0

    def _move_pairs(self, moved: dict[int, Int32]) -> None:
        """Write the pairs again, with the buckets that came of those that were split."""
        new = "moved.parquet"
        done = dict.fromkeys(moved, 0)
        column = PAIRS.get_field_index("bucket")
        writer = self._folder.parquet(new, self._pairs_schema, **PARQUET)
        with self._folder.open(PAIRS_FILE) as stream:
            file = pq.ParquetFile(stream)
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, use_threads=False)
                buckets = rows["bucket"].to_numpy().copy()
                for bucket in np.intersect1d(buckets, list(moved)).tolist():
                    here = np.flatnonzero(buckets == bucket)
                    start = done[bucket]
                    done[bucket] += len(here)
                    buckets[here] = moved[bucket][start : done[bucket]]
                writer.write_table(rows.set_column(column, PAIRS.field(column), pa.array(buckets)))
        writer.close()
        self._folder.move(new, PAIRS_FILE)

    def _manifest(self) -> Manifest:
        folders = ((PLAN, self._folder), (REJECTS_FOLDER, self._rejects))
        digests = {
            f"{place}/{name}": folder.digest(name)
            for place, folder in folders
            for name in folder.names()
            if name.endswith(".parquet")
        }
        return Manifest(
            **self._counts,
            rejected=dict(sorted(self._rejected.items())),
            unique=self._buckets.unique,
            ranges=self._buckets.ranges,
            metadata=self._metadata,
            files=digests,
            run=self._run_id,
        )


def read_manifest(run: RunDir) -> Manifest | None:
    """Read the plan's manifest; None while there is no plan.

    Raises:
        IntegrityFault: it cannot be read, or is missing from a plan.
    """
    if not run.files.exists(PLAN):
        return None
    try:
        content, _ = unseal(run.files.read(f"{PLAN}/{MANIFEST}"))
        manifest = msgspec.convert(content, Manifest)
    except (FileNotFoundError, ValueError, msgspec.ValidationError):
        raise _damaged(run.plan / MANIFEST) from None
    if not all(map(_FILE.fullmatch, manifest.files)):
        raise _damaged(run.plan / MANIFEST)
    return manifest


def load_manifest(run: RunDir) -> Manifest:
    """Read the manifest of a run that has a plan.

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


def require_plan_file(run: RunDir, manifest: Manifest, name: str) -> str:
    """Return a library's path of a plan file whose bytes are those that were committed.

    Raises:
        IntegrityFault: they are not.
    """
    try:
        if run.files.digest(name) == manifest.files[name]:
            return run.files.library_path(name)
    except (FileNotFoundError, KeyError):
        pass
    raise _damaged(run.root / name)


def plan_files(run: RunDir, manifest: Manifest, prefix: str) -> list[str]:
    """Return libraries' paths of the plan's files whose names begin so, checked.

    Raises:
        IntegrityFault: a file is damaged or missing.
    """
    return [
        require_plan_file(run, manifest, name) for name in manifest.files if name.startswith(prefix)
    ]


def pair_groups(run: RunDir, manifest: Manifest) -> list[int]:
    """Return how many pairs each row group of the pairs has, in their order.

    Raises:
        IntegrityFault: the file is damaged or missing.
    """
    metadata = pq.read_metadata(require_plan_file(run, manifest, f"plan/{PAIRS_FILE}"))
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def _damaged(path: Path) -> IntegrityFault:
    return IntegrityFault(
        "a file of the plan is damaged or missing",
        place=str(path),
        effect="the run cannot go on from this plan; its reads are intact",
        remedy="score the same input into a new run directory with `--reuse` of this one",
    )
