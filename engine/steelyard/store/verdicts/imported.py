"""Imported verdicts on the disk: written once as Parquet, and shown as the tables of a run.

RUN/imported/ exists as a whole or not at all; run.json names its files with their digests.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from steelyard.core.schemas import READS, REJECTS
from steelyard.errors import IntegrityFault
from steelyard.store.durable import PARQUET, TEMPORARY, file_digest, sync, writing
from steelyard.store.run_record import ImportRecord
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import Connection, sql_text
from steelyard.store.verdicts.views import with_calibration

_TABLES = ("verdicts", "rejects")
_GROUP_ROWS = 1 << 16


class ImportWriter:
    """Collects verdicts and refused rows; `commit` gives them their place in the run."""

    def __init__(self, run: RunDir, schema: pa.Schema) -> None:
        self._folder = run.imported.with_name(run.imported.name + TEMPORARY)
        self._place = run.imported
        self._waiting: dict[str, list[pa.RecordBatch]] = {name: [] for name in _TABLES}
        self.pairs = 0
        self.rejected: Counter[str] = Counter()
        shutil.rmtree(self._folder, ignore_errors=True)
        with writing(self._folder):
            self._folder.mkdir(parents=True)
            self._writers = {
                name: pq.ParquetWriter(self._path(name), schemas, **PARQUET)
                for name, schemas in zip(_TABLES, (schema, REJECTS), strict=True)
            }

    def add(self, verdicts: pa.RecordBatch, rejects: pa.RecordBatch) -> None:
        """Take the two parts of a batch."""
        self.pairs += len(verdicts)
        self.rejected.update(rejects["reason"].to_pylist())
        for name, rows in zip(_TABLES, (verdicts, rejects), strict=True):
            self._waiting[name].append(rows)
            if sum(map(len, self._waiting[name])) >= _GROUP_ROWS:
                self._flush(name)

    def commit(self) -> dict[str, Any]:
        """Make everything durable; what run.json has to say of it."""
        with writing(self._folder):
            for name, writer in self._writers.items():
                self._flush(name)
                writer.close()
                sync(self._path(name))
            sync(self._folder)
            shutil.rmtree(self._place, ignore_errors=True)  # of an import that was cut short
            self._folder.replace(self._place)
            sync(self._place.parent)
        files = {name: file_digest(self._place / f"{name}.parquet") for name in _TABLES}
        return {"pairs": self.pairs, "rejected": dict(self.rejected), "files": files}

    def abandon(self) -> None:
        """Remove what was written."""
        for writer in self._writers.values():
            writer.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _flush(self, name: str) -> None:
        if self._waiting[name]:
            with writing(self._folder):
                self._writers[name].write_table(pa.Table.from_batches(self._waiting[name]))
            self._waiting[name] = []

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.parquet"


def imported_files(run: RunDir) -> dict[str, Path]:
    """Return the files of imported verdicts by the names of their tables."""
    return {name: run.imported / f"{name}.parquet" for name in _TABLES}


def define_tables(
    connection: Connection,
    snapshot: RunSnapshot,
    imported: ImportRecord,
    kind: Literal["TABLE", "VIEW"],
) -> None:
    """Create verdicts, rejects and reads, which has no rows, in a connection.

    Views go through Arrow, so that SQL itself needs no right to open any file; tables are read
    natively, with bounded memory.

    Raises:
        IntegrityFault: a file differs from what was imported.
    """
    connection.register("reads_raw", READS.empty_table())
    connection.execute(f"CREATE {kind} reads AS SELECT * FROM reads_raw")  # noqa: S608 - our own text
    for name, path in imported_files(snapshot.run).items():
        if not path.exists() or file_digest(path) != imported.files[name]:
            raise IntegrityFault(
                "the imported verdicts are damaged or missing",
                place=str(path),
                effect="no number is computed from them",
                remedy="import the tables again, into a new run directory",
            )
        source = f"read_parquet({sql_text(path)})"
        if kind == "VIEW":
            source = f"{name}_raw"
            connection.register(source, ds.dataset(str(path), format="parquet"))
        query = f"SELECT * FROM {source}"  # noqa: S608 - our own names
        if name == "verdicts":
            query = with_calibration(query, snapshot.calibrator)
        connection.execute(f"CREATE {kind} {name} AS {query}")
