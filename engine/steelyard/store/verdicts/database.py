"""The SQL of a run: its hand-off file, or live views over the parts that its journal lists.

Both have the same tables: verdicts, answers, reads, rejects, work, run. While a run writes, a
query sees the parts that were committed when its snapshot was taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields

import pyarrow as pa

from steelyard.core.schemas import PAIRS, READS, REJECTS
from steelyard.core.work import Work
from steelyard.errors import IntegrityFault
from steelyard.store.calibration import NO_CALIBRATION, lost_calibrator
from steelyard.store.durable import reading
from steelyard.store.folder import Folder
from steelyard.store.plan.files import Manifest, plan_files
from steelyard.store.reads import journal
from steelyard.store.run_record import ScoredRecord, read_content
from steelyard.store.rundir import DATABASE, RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import (
    MEMORY_LIMIT,
    Connection,
    DuckDBError,
    open_file,
    open_memory,
    open_scratch,
    register_parquet,
    utf8_text,
    view_parquet,
)
from steelyard.store.sql_faults import (
    interruptible,
    is_foreign,
    raising_python_errors,
)
from steelyard.store.verdicts.imported import define_tables
from steelyard.store.verdicts.statistics_views import create_statistics
from steelyard.store.verdicts.views import (
    REJECTS_SQL,
    VerdictSpec,
    answers_sql,
    verdict_sql,
)

SPILL = "duckdb.tmp"


@contextmanager
def open_sql(snapshot: RunSnapshot) -> Iterator[Connection]:
    """Open a run for queries: its hand-off file if it is up to date, else live views.

    Queries cannot name a file, install or load an extension, see a Python variable or change a
    setting.

    Raises:
        IntegrityFault: the database, or a part that a view would read, is damaged.
        EnvironmentFault: a file cannot be read.
    """
    with raising_python_errors(), reading(snapshot.run.root):
        handed_off = open_handoff(snapshot)
        connection = handed_off or _open_views(snapshot)
    with raising_python_errors(), closing(connection), interruptible(connection):
        try:
            yield connection
        except DuckDBError as error:
            if handed_off is not None and is_foreign(error):
                raise _corrupt(snapshot) from None
            raise


def _corrupt(snapshot: RunSnapshot) -> IntegrityFault:
    return IntegrityFault(
        "the database is damaged, or not the one that was written",
        place=str(snapshot.run.database),
        effect="no number is computed from it; it is made of the parts, which are still there",
        remedy=f"`steelyard compact {snapshot.run.root}` writes it again",
    )


@contextmanager
def workspace(
    run: RunDir,
    manifest: Manifest,
    committed: Sequence[journal.Part],
    spill: tuple[Folder, str] | None = None,
    *,
    more: Mapping[str, Sequence[str]] | None = None,
    result: str | None = None,
    memory: int = MEMORY_LIMIT,
) -> Iterator[Connection]:
    """Open a scratch database that has pairs_raw, rejects_raw and reads_raw of a run.

    Args:
        run: the run.
        manifest: its plan.
        committed: parts, which the caller has checked.
        spill: where a folder is made for what does not fit into the memory, and its name; None: in
            the run, by its writer.
        more: files of other reads by the name that they are shown under.
        result: path of a database file, new or not, that is attached as `result`.
        memory: bytes that it may take.

    Raises:
        IntegrityFault: a file of the plan is damaged.
    """
    sources = [
        *_sources(run, manifest, committed),
        *((name, files, READS) for name, files in (more or {}).items()),
    ]
    reads = [file for _, files, _ in sources for file in files]
    folder, name = spill or (run.files, SPILL)
    with open_scratch(folder, name, reads=reads, result=result, memory=memory) as connection:
        for name, files, schema in sources:
            view_parquet(connection, name, files, schema)
        yield connection


def open_handoff(snapshot: RunSnapshot) -> Connection | None:
    """Open the hand-off file; None: it is not there, or not of this state.

    Raises:
        IntegrityFault: the calibrator that was applied is gone.
    """
    if snapshot.lost_calibrator:
        raise lost_calibrator(snapshot.run)
    files = snapshot.run.files
    # A log next to it is of somebody who wrote to it and crashed: it is not what we wrote.
    if not files.exists(DATABASE) or files.exists(f"{DATABASE}.wal"):
        return None
    try:
        connection = open_file(files.library_path(DATABASE))
    except DuckDBError:
        return None
    built, state = built_from(connection), snapshot.state
    if snapshot.calibrator is None:  # without one, winners were always of raw preferences
        built = {"definition": state["definition"], **built}
    if built == state:
        return connection
    connection.close()
    if snapshot.calibrator is None and built.get("calibration", NO_CALIBRATION) != NO_CALIBRATION:
        raise lost_calibrator(snapshot.run)
    return None


def built_from(connection: Connection) -> dict[str, str]:
    """Return the state that a hand-off file was built from; empty if it does not say."""
    try:
        rows = connection.execute(
            "SELECT key, value FROM run WHERE key IN ('journal', 'calibration', 'definition')"
        ).fetchall()
    except DuckDBError:
        return {}
    return dict(rows)


def verdict_spec(snapshot: RunSnapshot, record: ScoredRecord) -> VerdictSpec:
    """Return what the views depend on."""
    judges = [judge.name for judge in record.judges]
    metadata = bool(snapshot.manifest and snapshot.manifest.metadata)
    return VerdictSpec(record.spec, judges, metadata, snapshot.calibrator)


def _open_views(snapshot: RunSnapshot) -> Connection:
    connection, record = open_memory(), snapshot.record
    if isinstance(record, ScoredRecord):
        run, parts = snapshot.run, snapshot.journal.parts
        journal.require_sound(run, snapshot.journal)
        if parts and snapshot.manifest is None:
            raise IntegrityFault(
                "the plan of the run is missing",
                place=str(run.plan),
                effect="its reads belong to no pairs",
                remedy=f"steelyard resume {run.root} makes it again, from the same input",
            )
        for name, files, schema in _sources(run, snapshot.manifest, parts):
            register_parquet(connection, name, files, schema)
        spec = verdict_spec(snapshot, record)
        connection.execute("CREATE VIEW reads AS SELECT * FROM reads_raw")
        connection.execute("CREATE VIEW verdicts AS " + verdict_sql(spec))
        connection.execute("CREATE VIEW answers AS " + answers_sql(spec))
        connection.execute("CREATE VIEW rejects AS " + REJECTS_SQL)
    else:
        define_tables(connection, snapshot, record.imported, "VIEW")
    add_run_tables(connection, snapshot)
    return connection


def _sources(
    run: RunDir, manifest: Manifest | None, committed: Sequence[journal.Part]
) -> Iterator[tuple[str, Sequence[str], pa.Schema]]:
    """Yield name, files and schema of the tables that views read, without files for no plan."""
    for name, prefix, schema in (
        ("pairs_raw", "plan/pairs", PAIRS),
        ("rejects_raw", "rejects/", REJECTS),
    ):
        files = plan_files(run, manifest, prefix) if manifest else []
        yield name, files, schema
    yield "reads_raw", [run.files.library_path(part.name) for part in committed], READS


def add_run_tables(connection: Connection, snapshot: RunSnapshot) -> None:
    """Create the views of statistics and the tables `run` and `work`, next to `verdicts`.

    `run` holds run.json as text by key, and the state that everything was built from; `work` what
    the reads of each bucket took (core.work.Work).
    """
    create_statistics(connection, snapshot.preference)
    rows = [
        (utf8_text(key), utf8_text(value) if isinstance(value, str) else json.dumps(value))
        for key, value in read_content(snapshot.run).items()
    ]
    connection.execute("CREATE TABLE run (key VARCHAR, value VARCHAR)")
    connection.executemany("INSERT INTO run VALUES (?, ?)", [*rows, *snapshot.state.items()])
    by_bucket = journal.work_by_bucket(snapshot.journal.parts)
    columns = {"bucket": pa.array(list(by_bucket), pa.int32())}
    for name in (field.name for field in fields(Work)):
        kind = pa.float64() if name.endswith("seconds") else pa.int64()
        columns[name] = pa.array([getattr(work, name) for work in by_bucket.values()], kind)
    connection.register("work_raw", pa.table(columns))
    connection.execute(
        "CREATE TABLE work AS SELECT *, 1 - computed_tokens / unique_tokens AS hit_rate"
        " FROM work_raw"
    )
    connection.unregister("work_raw")


def verdicts_of(spec: VerdictSpec, pairs: pa.Table, reads: pa.Table) -> pa.Table:
    """Return the verdicts of these pairs, in the order of their rows.

    Args:
        spec: what is asked, without metadata.
        pairs: PAIRS without the bucket.
        reads: READS of all their prompts.
    """
    with open_memory() as connection:
        connection.register("pairs_raw", pairs)
        connection.register("reads", reads)
        return connection.sql(f'FROM ({verdict_sql(spec)}) ORDER BY "row"').to_arrow_table()
