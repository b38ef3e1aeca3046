"""The SQL of a run: its hand-off file, or live views over the parts that its journal lists.

Both have the same tables: verdicts, answers, reads, rejects, work, run. While a run writes, a
query sees the parts that were committed when it began.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import xxhash

from steelyard.core.schemas import PAIRS, READS, REJECTS
from steelyard.core.work import Work
from steelyard.errors import UsageError
from steelyard.store.plan.files import Manifest, load_manifest, read_manifest, require_plan_file
from steelyard.store.reads import journal
from steelyard.store.run_record import RunRecord, ScoredRecord, read_content, read_record
from steelyard.store.rundir import RunDir
from steelyard.store.sql import (
    Connection,
    DuckDBError,
    Relation,
    lock,
    open_file,
    open_memory,
    open_scratch,
    refusing,
    register_parquet,
    view_parquet,
)
from steelyard.store.verdicts.calibration import run_calibrator
from steelyard.store.verdicts.imported import define_tables
from steelyard.store.verdicts.statistics_views import create_statistics
from steelyard.store.verdicts.views import (
    REJECTS_SQL,
    VerdictSpec,
    answers_sql,
    verdict_sql,
)

NO_CALIBRATION = "none"


@contextmanager
def open_sql(run: RunDir) -> Iterator[Connection]:
    """A locked connection on the run: the hand-off file if it is up to date, else live views.

    No file can be named in a query, no extension installed or loaded, no Python variable seen,
    no setting changed.

    Raises:
        IntegrityFault: a part that a view would read is damaged.
    """
    record = read_record(run)
    connection = open_handoff(run) or _open_views(run, record)
    try:
        lock(connection)
        yield connection
    finally:
        connection.close()


def query(run: RunDir, sql: str) -> pa.Table:
    """The rows of one query.

    Raises:
        UsageError: DuckDB refuses it; its words are in the message.
    """
    with open_sql(run) as connection, refusing(_refused):
        relation = connection.sql(sql)
        return pa.table({}) if relation is None else relation.to_arrow_table()


def show(run: RunDir, sql: str, max_rows: int) -> str:
    """The rows of one query drawn as a table, the first `max_rows` of them."""
    with open_sql(run) as connection, refusing(_refused):
        relation = connection.sql(sql)
        if relation is None:
            return ""
        if relation.columns == ["explain_key", "explain_value"]:
            return "\n".join(str(plan) for _, plan in relation.fetchall())
        return draw(relation, max_rows)


def draw(relation: Relation, max_rows: int) -> str:
    """A relation as DuckDB draws it."""
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        relation.show(max_rows=max_rows, max_width=shutil.get_terminal_size((200, 24)).columns)
    return text.getvalue().rstrip("\n")


@contextmanager
def workspace(
    run: RunDir, committed: Sequence[journal.Part], spill: Path | None = None
) -> Iterator[Connection]:
    """An in-memory DuckDB for our own statements, with bounded memory.

    Has pairs_raw, rejects_raw and reads_raw of the run. `spill` is the folder for what does not
    fit into the memory; its default is the writer's.

    Raises:
        UsageError: there is no plan yet.
        IntegrityFault: a file of the plan is damaged. Parts are the caller's to check.
    """
    manifest = load_manifest(run)
    with open_scratch(spill or run.root / "duckdb.tmp") as connection:
        pairs, rejects = (
            _plan_files(run, manifest, prefix) for prefix in ("plan/pairs", "rejects/")
        )
        view_parquet(connection, "pairs_raw", pairs, PAIRS)
        view_parquet(connection, "rejects_raw", rejects, REJECTS)
        files = [run.root / part.name for part in committed]
        view_parquet(connection, "reads_raw", files, READS)
        yield connection


def open_handoff(run: RunDir) -> Connection | None:
    """The hand-off file, unless parts were committed or a calibrator was applied after it."""
    if not run.database.exists():
        return None
    try:
        connection = open_file(run.database)
    except DuckDBError:
        return None
    if built_from(connection) == expected_state(run):
        return connection
    connection.close()
    return None


def built_from(connection: Connection) -> dict[str, str]:
    """What a hand-off file says it was made of; empty if it does not say."""
    try:
        rows = connection.execute(
            "SELECT key, value FROM run WHERE key IN ('journal', 'calibration')"
        ).fetchall()
    except DuckDBError:
        return {}
    return dict(rows)


def expected_state(run: RunDir) -> dict[str, str]:
    """What an up-to-date hand-off file is made of: the committed parts and the calibrator."""
    return {
        "journal": _parts_digest(journal.read_journal(run.root)),
        "calibration": _calibration_digest(run),
    }


def view_spec(run: RunDir, record: ScoredRecord, manifest: Manifest | None) -> VerdictSpec:
    """What the views have to know of a run."""
    metadata = bool(manifest and manifest.metadata)
    judges = [judge.name for judge in record.judges]
    return VerdictSpec.of(record.spec, judges, metadata=metadata, calibrator=run_calibrator(run))


def _open_views(run: RunDir, record: RunRecord) -> Connection:
    if isinstance(record, ScoredRecord):
        return _open_live(run, record)
    connection = open_memory()
    define_tables(connection, run, record.imported, "VIEW")
    create_statistics(connection)
    run_table(connection, run, [])
    work_table(connection, [])
    return connection


def _open_live(run: RunDir, record: ScoredRecord) -> Connection:
    parts = journal.committed_parts(run.root)
    manifest = read_manifest(run)
    connection = open_memory()
    register_parquet(connection, "pairs_raw", _plan_files(run, manifest, "plan/pairs"), PAIRS)
    register_parquet(connection, "rejects_raw", _plan_files(run, manifest, "rejects/"), REJECTS)
    register_parquet(connection, "reads_raw", [run.root / part.name for part in parts], READS)
    connection.execute("CREATE VIEW reads AS SELECT * FROM reads_raw")
    spec = view_spec(run, record, manifest)
    connection.execute("CREATE VIEW verdicts AS " + verdict_sql(spec))
    connection.execute("CREATE VIEW answers AS " + answers_sql(spec))
    connection.execute("CREATE VIEW rejects AS " + REJECTS_SQL)
    create_statistics(connection)
    run_table(connection, run, parts)
    work_table(connection, parts)
    return connection


def _plan_files(run: RunDir, manifest: Manifest | None, prefix: str) -> list[Path]:
    if manifest is None:
        return []
    return [
        require_plan_file(run, manifest, name) for name in manifest.files if name.startswith(prefix)
    ]


def run_table(connection: Connection, run: RunDir, committed: Sequence[journal.Part]) -> None:
    """Table `run`: what run.json says, as text by key, and which parts were read."""
    rows = [
        (key, value if isinstance(value, str) else json.dumps(value))
        for key, value in read_content(run).items()
    ]
    rows.append(("journal", _parts_digest(committed)))
    rows.append(("calibration", _calibration_digest(run)))
    connection.execute("CREATE TABLE run (key VARCHAR, value VARCHAR)")
    connection.executemany("INSERT INTO run VALUES (?, ?)", rows)


def work_table(connection: Connection, committed: Sequence[journal.Part]) -> None:
    """Table `work`: what the reads of each bucket took (work.Work)."""
    by_bucket = journal.work_by_bucket(committed)
    columns = {"bucket": pa.array(list(by_bucket), pa.int32())}
    for name in (one.name for one in fields(Work)):
        kind = pa.float64() if name.endswith("seconds") else pa.int64()
        columns[name] = pa.array([getattr(work, name) for work in by_bucket.values()], kind)
    connection.register("work_raw", pa.table(columns))
    connection.execute(
        "CREATE TABLE work AS SELECT *, 1 - computed_tokens / unique_tokens AS hit_rate"
        " FROM work_raw"
    )
    connection.unregister("work_raw")


def _parts_digest(committed: Sequence[journal.Part]) -> str:
    text = "".join(f"{part.name} {part.digest} {part.pairs}\n" for part in committed)
    return xxhash.xxh3_128_hexdigest(text.encode())


def _calibration_digest(run: RunDir) -> str:
    if not run.calibration.exists():
        return NO_CALIBRATION
    return xxhash.xxh3_128_hexdigest(run.calibration.read_bytes())


def _refused(words: str) -> UsageError:
    return UsageError(
        f"DuckDB refuses the query: {words}",
        remedy="tables: verdicts, answers, reads, rejects, work, run; try `DESCRIBE verdicts`",
    )


def verdicts_of(spec: VerdictSpec, pairs: pa.Table, reads: pa.Table) -> pa.Table:
    """The verdicts of these pairs, in the order of their rows.

    Args:
        spec: what is asked, without metadata.
        pairs: PAIRS without the bucket.
        reads: READS of all their prompts.
    """
    with open_memory() as connection:
        connection.register("pairs_raw", pairs)
        connection.register("reads", reads)
        lock(connection)
        return connection.sql(f'FROM ({verdict_sql(spec)}) ORDER BY "row"').to_arrow_table()
