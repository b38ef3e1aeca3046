"""A dataset's folder in the Hub's layout: written beside its place, then given its name."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.errors import IntegrityFault, RunLocked, UsageError
from steelyard.store.durable import file_digest, sync, writing

GROUP_ROWS = 1 << 13
_PARQUET = {"compression": "zstd", "write_page_checksum": True}


# What cannot be written of a dataset takes nothing with it.
writing_dataset = partial(writing, effect="no dataset was written", again="export again")


def check_folder(out: Path) -> None:
    """See that a dataset can take this place.

    Raises:
        UsageError: something is there, or the folder it would be in is not, or is a run's.
    """
    parent, remedy = out.absolute().parent, "name a new folder with --out"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        problem = "there is something at the place of --out already"
    elif not parent.is_dir():
        problem, remedy = "the folder that --out would be in does not exist", f"make {parent} first"
    elif (parent / "run.json").exists():
        problem = "that is inside a run directory"
    else:
        return
    raise UsageError(problem, place=str(out), effect="nothing was written", remedy=remedy)


@contextmanager
def scratch(out: Path | None) -> Iterator[Path]:
    """A folder for what is not finished, beside `out` or where temporary files go; then gone.

    What an export left that was killed is removed, and nothing else.

    Raises:
        UsageError: something else has its name.
        RunLocked: another export writes to this place.
    """
    if out is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    folder = out.absolute().with_name(f".{out.absolute().name}.steelyard-export")
    if folder.exists() and not (folder / _LOCK).is_file():
        raise UsageError(
            "something else has the name of the scratch folder",
            place=str(folder),
            effect="nothing was written",
            remedy="move it away, or name another folder with --out",
        )
    with writing_dataset(folder):
        folder.mkdir(exist_ok=True)
        lock = (folder / _LOCK).open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunLocked(
                "another export writes to this place",
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


_LOCK = "lock"


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()


class DatasetWriter:
    """Parquet files of a known number of rows in each split.

    Where rows are cut into files and row groups depends on their number only, so that the same
    rows make the same bytes.
    """

    def __init__(
        self, folder: Path, schema: pa.Schema, rows: Mapping[str, int], rows_per_file: int
    ) -> None:
        with writing_dataset(folder):
            (folder / "data").mkdir(parents=True)
        self._splits = {
            split: _Split(folder / "data", split, schema, count, rows_per_file)
            for split, count in rows.items()
        }
        self._folder = folder

    def add(self, split: str, table: pa.Table) -> None:
        """The next rows of a split."""
        self._splits[split].add(table)

    def close(self) -> dict[str, str]:
        """Finish all files: name -> digest."""
        with writing_dataset(self._folder):
            names = [name for split in self._splits.values() for name in split.close()]
            sync(self._folder / "data")
            return {name: file_digest(self._folder / name) for name in sorted(names)}


class _Split:
    def __init__(
        self, folder: Path, split: str, schema: pa.Schema, rows: int, rows_per_file: int
    ) -> None:
        self._folder, self._schema = folder, schema
        self._left = rows
        files = -(-rows // rows_per_file)
        self._names = [f"{split}-{at:05d}-of-{files:05d}.parquet" for at in range(files)]
        self._per_file = rows_per_file
        self._waiting = schema.empty_table()
        self._writer: pq.ParquetWriter | None = None
        self._begun = 0
        self._room = 0  # rows that the open file still takes

    def add(self, table: pa.Table) -> None:
        self._waiting = pa.concat_tables([self._waiting, table])
        while self._left and len(self._waiting) >= (count := self._next()):
            self._write(self._waiting.slice(0, count))
            self._waiting = self._waiting.slice(count)

    def close(self) -> list[str]:
        self._finish()
        if self._left or len(self._waiting):
            raise IntegrityFault(
                f"a split has {len(self._waiting) - self._left:+,} rows against what was counted",
                place=str(self._folder),
                effect="nothing was written",
                remedy="report this with the command that was given",
            )
        return [f"data/{name}" for name in self._names]

    def _next(self) -> int:
        """Rows of the next row group."""
        return min(GROUP_ROWS, self._room or min(self._per_file, self._left))

    def _write(self, rows: pa.Table) -> None:
        """One row group."""
        with writing_dataset(self._folder):
            if not self._room:
                self._finish()
                path = self._folder / self._names[self._begun]
                self._writer = pq.ParquetWriter(path, self._schema, **_PARQUET)
                self._begun += 1
                self._room = min(self._per_file, self._left)
            assert self._writer is not None  # noqa: S101 - made above
            self._writer.write_table(rows, row_group_size=len(rows))
            self._room -= len(rows)
            self._left -= len(rows)

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
            sync(Path(self._writer.where))
            self._writer = None
