"""A dataset's folder in the Hub's layout, written under another name and then renamed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.core.files import temporary_folder
from steelyard.errors import IntegrityFault, RunLocked, UsageError
from steelyard.store.durable import file_digest, sync, writing
from steelyard.store.folder import Folder
from steelyard.store.locks import Held, holding

GROUP_ROWS = 1 << 13
ESTIMATED = 2_000  # rows that say, in a dry run, how large files would be
_PARQUET = {"compression": "zstd", "write_page_checksum": True}
_LOCK = "lock"

# What a failure to write means here.
writing_dataset = partial(writing, effect="no dataset was written", again="export again")


def check_folder(out: Path) -> None:
    """Check that a dataset can be written here.

    Raises:
        UsageError: something is there, or the folder around it is missing or a run's.
    """
    parent, remedy = out.absolute().parent, "name a new folder with --out"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        problem = "something with the name given with --out is there already"
    elif not parent.is_dir():
        problem, remedy = "the folder around --out does not exist", f"make {parent} first"
    elif (parent / "run.json").exists():
        problem = "that is inside a run directory"
    else:
        return
    raise UsageError(problem, place=str(out), effect="nothing was written", remedy=remedy)


@contextmanager
def scratch(out: Path | None) -> Iterator[Path]:
    """Make a folder for unfinished files, next to `out` or among temporary files; remove it after.

    What a killed export left there is removed, and nothing else.

    Raises:
        UsageError: something else has its name.
        RunLocked: another export is writing the same dataset.
    """
    if out is None:
        with temporary_folder("steelyard-export-") as folder:
            yield folder
        return
    folder = out.absolute().with_name(f".{out.absolute().name}.steelyard-export")
    if folder.exists() and not (folder / _LOCK).is_file():
        raise UsageError(
            "something else has the name of the scratch folder",
            place=str(folder),
            effect="nothing was written",
            remedy="move it, or name another folder with --out",
        )
    with ExitStack() as held:
        with writing_dataset(folder):
            folder.mkdir(exist_ok=True)
            try:
                held.enter_context(holding(Folder(folder), _LOCK))
            except Held:
                raise RunLocked(
                    "another export is writing this dataset",
                    place=str(out),
                    remedy="wait for it, or name another folder with --out",
                ) from None
        try:
            _clear(folder)
            yield folder
        finally:
            _clear(folder)
            (folder / _LOCK).unlink()
            folder.rmdir()


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()


def estimate_sizes(batches: Iterable[pa.Table]) -> dict[str, float]:
    """Return bytes of a file by itself, and of each of its rows, by the first of them (1 or more).

    Batches are of a dataset's rows; no more are taken than it needs.
    """
    taken: list[pa.Table] = []
    for batch in batches:
        taken.append(batch)
        if sum(map(len, taken)) >= ESTIMATED:
            break
    rows = pa.concat_tables(taken)
    whole, first = _packed_bytes(rows), _packed_bytes(rows.slice(0, 1))
    each = (whole - first) / max(1, len(rows) - 1)
    return {"file_bytes": first - each, "row_bytes": each}


def _packed_bytes(rows: pa.Table) -> int:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, **_PARQUET)
    return int(sink.getvalue().size)


def file_names(split: str, rows: int, rows_per_file: int) -> list[str]:
    """Return the names of a split's files, relative to the dataset's folder."""
    files = -(-rows // rows_per_file)
    return [f"data/{split}-{i:05d}-of-{files:05d}.parquet" for i in range(files)]


class DatasetWriter:
    """Writer of Parquet files with a known number of rows in each split.

    Files and row groups are cut by numbers of rows alone, so that the same rows make the same
    bytes.
    """

    def __init__(
        self, folder: Path, schema: pa.Schema, rows: Mapping[str, int], rows_per_file: int
    ) -> None:
        with writing_dataset(folder):
            (folder / "data").mkdir(parents=True)
        self._splits = {
            split: _SplitWriter(folder, split, schema, count, rows_per_file)
            for split, count in rows.items()
        }
        self._folder = folder

    def add(self, split: str, table: pa.Table) -> None:
        """Write the next rows of a split."""
        self._splits[split].add(table)

    def close(self) -> dict[str, str]:
        """Finish all files, and return their digests by name."""
        with writing_dataset(self._folder):
            names = [name for split in self._splits.values() for name in split.close()]
            sync(self._folder / "data")
            return {name: file_digest(self._folder / name) for name in sorted(names)}


class _SplitWriter:
    def __init__(
        self, folder: Path, split: str, schema: pa.Schema, rows: int, rows_per_file: int
    ) -> None:
        self._names = file_names(split, rows, rows_per_file)
        self._rows, self._rows_per_file, self._written = rows, rows_per_file, 0
        self._folder, self._schema = folder, schema
        self._waiting = schema.empty_table()
        self._path = folder
        self._file: BinaryIO | None = None  # of `_path`: Arrow takes no path that is not UTF-8
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        self._waiting = pa.concat_tables([self._waiting, table])
        while (rows := self._group_rows()) and len(self._waiting) >= rows:
            self._write(self._waiting.slice(0, rows))
            self._waiting = self._waiting.slice(rows)

    def _group_rows(self) -> int:
        """Return the rows of the next row group, which ends with its file; 0 after the last."""
        in_file = self._rows_per_file - self._written % self._rows_per_file
        return min(GROUP_ROWS, in_file, self._rows - self._written)

    def close(self) -> list[str]:
        self._finish()
        if self._written < self._rows or len(self._waiting):
            raise IntegrityFault(
                "a split does not have the rows that were counted",
                place=str(self._folder),
                effect="nothing was written",
                remedy="report this with the command that was given",
            )
        return self._names

    def _write(self, rows: pa.Table) -> None:
        path = self._folder / self._names[self._written // self._rows_per_file]
        with writing_dataset(self._folder):
            if self._writer is None or self._path != path:
                self._finish()
                self._path, self._file = path, path.open("wb")
                self._writer = pq.ParquetWriter(self._file, self._schema, **_PARQUET)
            self._writer.write_table(rows, row_group_size=len(rows))
        self._written += len(rows)

    def _finish(self) -> None:
        if self._file is None:
            return
        with self._file:
            if self._writer is not None:
                self._writer.close()
        self._file = self._writer = None
        sync(self._path)
