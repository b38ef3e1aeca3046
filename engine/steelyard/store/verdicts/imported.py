"""Imported verdicts on the disk: written once as Parquet, and shown as the tables of a run.

RUN/imported/ exists as a whole or not at all; run.json names its files with their digests.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any, Literal

import pyarrow as pa

from steelyard.core.schemas import READS, REJECTS
from steelyard.errors import IntegrityFault, SteelyardError
from steelyard.store.durable import PARQUET, TEMPORARY, writing
from steelyard.store.run_record import ImportRecord
from steelyard.store.rundir import IMPORTED, RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import Connection, register_parquet, view_parquet
from steelyard.store.verdicts.views import NO_MEMBERS, with_calibration

NEW = f"{IMPORTED}{TEMPORARY}"
_TABLES = ("verdicts", "rejects")
# Of a row group: what waits in memory, and what its readers hold.
_GROUP_ROWS = 1 << 16
_GROUP_BYTES = 16 << 20
_AGAIN = ("nothing was imported", "import the tables again")  # effect and remedy of a failure


class ImportWriter:
    """Collects verdicts and refused rows; `commit` gives them their place in the run."""

    def __init__(self, run: RunDir, schema: pa.Schema) -> None:
        self._run, self._folder = run, run.files.inside(NEW)
        self._waiting: dict[str, list[pa.RecordBatch]] = {name: [] for name in _TABLES}
        self.pairs = 0
        self.rejected: Counter[str] = Counter()
        with writing(self._folder.path, *_AGAIN):
            run.files.make()
            run.files.remove_tree(NEW)
            self._folder.make()
            self._writers = {
                name: self._folder.parquet(f"{name}.parquet", schemas, **PARQUET)
                for name, schemas in zip(_TABLES, (schema, REJECTS), strict=True)
            }

    def add(self, verdicts: pa.RecordBatch, rejects: pa.RecordBatch) -> None:
        """Take the two parts of a batch."""
        self.pairs += len(verdicts)
        self.rejected.update(rejects["reason"].to_pylist())
        for name, rows in zip(_TABLES, (verdicts, rejects), strict=True):
            waiting = self._waiting[name]
            waiting.append(rows)
            size = sum(batch.nbytes for batch in waiting)
            if size >= _GROUP_BYTES or sum(map(len, waiting)) >= _GROUP_ROWS:
                self._flush(name)

    def commit(self) -> dict[str, Any]:
        """Make everything durable; what run.json has to say of it."""
        run = self._run.files
        with writing(self._folder.path, *_AGAIN):
            for name, writer in self._writers.items():
                self._flush(name)
                writer.close()
            run.remove_tree(IMPORTED)  # of an import that was cut short
            run.publish(NEW, IMPORTED)
            files = {name: run.digest(file) for name, file in imported_files().items()}
        return {"pairs": self.pairs, "rejected": dict(self.rejected), "files": files}

    def abandon(self) -> None:
        """Remove what was written."""
        with suppress(OSError, SteelyardError):
            for writer in self._writers.values():
                writer.close()
            self._run.files.remove_tree(NEW)

    def _flush(self, name: str) -> None:
        if self._waiting[name]:
            with writing(self._folder.path, *_AGAIN):
                self._writers[name].write_table(pa.Table.from_batches(self._waiting[name]))
            self._waiting[name] = []


def imported_files() -> dict[str, str]:
    """Return the names of the files of imported verdicts by the names of their tables."""
    return {name: f"{IMPORTED}/{name}.parquet" for name in _TABLES}


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
    files = snapshot.run.files
    for name, file in imported_files().items():
        if not files.exists(file) or files.digest(file) != imported.files.get(name):
            raise IntegrityFault(
                "the imported verdicts are damaged or missing",
                place=str(snapshot.run.root / file),
                effect="no number is computed from them",
                remedy="import the tables again, into a new run directory",
            )
        path = files.library_path(file)
        show = view_parquet if kind == "TABLE" else register_parquet
        show(connection, f"{name}_raw", [path], READS)
        query = f"SELECT * FROM {name}_raw"  # noqa: S608 - our own names
        if name == "verdicts":
            query = f"SELECT *, {NO_MEMBERS} AS members FROM {name}_raw"  # noqa: S608 - our own names
            query = with_calibration(query, snapshot.calibrator, 0.0)
        connection.execute(f"CREATE {kind} {name} AS {query}")
