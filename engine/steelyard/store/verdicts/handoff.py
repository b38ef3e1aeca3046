"""The hand-off file: written from plan and parts, audited, checkpointed, then renamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from steelyard.errors import IntegrityFault, UsageError
from steelyard.store.calibration import lost_calibrator, note_undone
from steelyard.store.durable import check_out
from steelyard.store.folder import Folder
from steelyard.store.plan.files import Manifest, load_manifest, pair_groups
from steelyard.store.reads import journal
from steelyard.store.run_record import ImportRecord, ScoredRecord
from steelyard.store.rundir import DATABASE, RECORD, RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import (
    MEMORY_LIMIT,
    Connection,
    DuckDBError,
    one_row,
    open_file,
    open_scratch,
    sql_text,
)
from steelyard.store.verdicts.database import (
    add_run_tables,
    built_from,
    open_handoff,
    verdict_spec,
    workspace,
)
from steelyard.store.verdicts.imported import define_tables, imported_files
from steelyard.store.verdicts.new_database import NewFile, copy, replacing, with_enough_memory
from steelyard.store.verdicts.portions import memory_for, portions
from steelyard.store.verdicts.statistics_views import create_statistics
from steelyard.store.verdicts.views import (
    REJECTS_SQL,
    VerdictSpec,
    answers_sql,
    calibrated_columns,
    verdict_sql,
)

DUCKDB_MAGIC, DUCKDB_MAGIC_OFFSET = b"DUCK", 8  # in its files


def compact(snapshot: RunSnapshot, out: Path | None = None) -> dict[str, int]:
    """Write a database of a run's verdicts, audit it, and rename it.

    Args:
        snapshot: the run; its own file is written by the run's one writer only (`RunDir.lock`).
        out: another file, which anyone may write at any time.

    Returns:
        pairs, prompts and how many of each are read, and rows of every table.

    Raises:
        IntegrityFault: a file is damaged, or the books do not balance, or `out` is given and the
            applied calibrator is gone: a run's own database is then written without it.
        UsageError: there is no plan yet, or a database cannot be at `out`.
    """
    record = snapshot.record
    if isinstance(record, ScoredRecord):
        manifest = snapshot.manifest or load_manifest(snapshot.run)
        write = partial(_write_database, snapshot, record, manifest)
    else:
        write = partial(_write_imported, snapshot, record.imported)
    if out is not None and out.absolute() == snapshot.run.database.absolute():
        out = None
    if out is None:
        with replacing(snapshot.run.files, DATABASE) as temporary:
            counts = with_enough_memory(write, temporary)
        if snapshot.lost_calibrator:
            note_undone(snapshot.run)
        return counts
    if snapshot.lost_calibrator:
        raise lost_calibrator(snapshot.run)
    if (out.parent / RECORD).exists():
        raise UsageError(
            "that is inside a run directory",
            place=str(out),
            effect="nothing was written",
            remedy="name another file with --out",
        )
    check_out(out, DUCKDB_MAGIC, skip=DUCKDB_MAGIC_OFFSET)
    with replacing(Folder(out.parent), out.name) as temporary:
        return with_enough_memory(write, temporary)


def ensure_current(run: RunDir) -> None:
    """Write the hand-off file unless it is up to date, as the run's writer.

    Raises:
        IntegrityFault: a file is damaged, or the books do not balance.
    """
    snapshot = RunSnapshot.take(run.root, run.files.disk, at_rest=True)
    current = open_handoff(snapshot)
    if current is None:
        compact(snapshot)
    else:
        current.close()


def recalibrate(run: RunDir) -> None:
    """Bring the hand-off file up to date after a calibrator was applied to the run.

    Where it holds all parts, only what the calibrator decides changes, in a copy that replaces it:
    no join is made again. Otherwise it is compacted.

    Raises:
        IntegrityFault: a file is damaged, or the books do not balance.
    """
    snapshot = RunSnapshot.take(run.root, run.files.disk, at_rest=True)
    wanted, present = snapshot.state, {}
    if run.files.exists(DATABASE) and not run.files.exists(f"{DATABASE}.wal"):
        path = run.files.library_path(DATABASE)
        with suppress(DuckDBError), open_file(path) as connection:
            present = built_from(connection)
    kept = {**present, "calibration": snapshot.calibration} == wanted
    if snapshot.calibrator is None or not kept:
        compact(snapshot)
        return
    with replacing(run.files, DATABASE) as new:
        copy(NewFile(run.files, DATABASE), new)
        digest = sql_text(snapshot.calibration)
        manifest = snapshot.manifest
        memory = memory_for(pair_groups(run, manifest) if manifest else [])
        with (
            open_scratch(*new.spill, result=new.path, memory=memory) as connection,
            _in_result(connection),
        ):
            for name, sql in calibrated_columns(snapshot.calibrator, _band(snapshot)):
                connection.execute(f"UPDATE verdicts SET {name} = {sql}")  # noqa: S608
            create_statistics(connection, snapshot.preference)
            connection.execute(
                f"UPDATE run SET value = {digest} WHERE key = 'calibration'"  # noqa: S608
            )


def _band(snapshot: RunSnapshot) -> float:
    """Return the tie band of calibrated preferences."""
    record = snapshot.record
    if not isinstance(record, ScoredRecord):
        return 0.0
    return verdict_spec(snapshot, record).preference_band


def _write_database(
    snapshot: RunSnapshot, record: ScoredRecord, manifest: Manifest, new: NewFile, factor: int
) -> dict[str, int]:
    run, parts = snapshot.run, snapshot.journal.parts
    journal.require_sound(run, snapshot.journal)
    spec, groups = verdict_spec(snapshot, record), pair_groups(run, manifest)
    memory = factor * memory_for(groups)
    with (
        workspace(run, manifest, parts, new.spill, result=new.path, memory=memory) as connection,
        _in_result(connection),
    ):
        connection.execute("CREATE TABLE reads AS SELECT * FROM reads_raw")
        _make_verdicts(connection, spec, portions(manifest, groups))
        connection.execute("CREATE VIEW answers AS " + answers_sql(spec))
        connection.execute("CREATE TABLE rejects AS " + REJECTS_SQL)
        add_run_tables(connection, snapshot)
        return _audit(connection, manifest)


def _make_verdicts(
    connection: Connection, spec: VerdictSpec, portions: Iterable[tuple[str, str]]
) -> None:
    """Create `verdicts`, a portion at a time: a join of all takes memory without bound."""
    query = verdict_sql(spec, "pairs_now", "reads_now") + ' ORDER BY v.shard, v."row"'
    start = "CREATE TABLE verdicts AS "
    for reads, pairs in portions:
        for name, condition in (("reads", reads), ("pairs", pairs)):
            connection.execute(
                f"CREATE OR REPLACE TEMP VIEW {name}_now AS FROM {name}_raw WHERE {condition}"
            )
        connection.execute(start + query)
        start = "INSERT INTO verdicts "


def _write_imported(
    snapshot: RunSnapshot, imported: ImportRecord, new: NewFile, factor: int
) -> dict[str, int]:
    files = [snapshot.run.files.library_path(name) for name in imported_files().values()]
    with (
        open_scratch(
            *new.spill, reads=files, result=new.path, memory=factor * MEMORY_LIMIT
        ) as connection,
        _in_result(connection),
    ):
        define_tables(connection, snapshot, imported, "TABLE")
        add_run_tables(connection, snapshot)
        verdicts, rejects = one_row(
            connection,
            "SELECT (SELECT count(*) FROM verdicts), (SELECT count(*) FROM rejects)",
        )
    counts = {"pairs": verdicts, "verdicts": verdicts, "prompts": 0, "reads": 0}
    return {**counts, "rejects": rejects}


@contextmanager
def _in_result(connection: Connection) -> Iterator[None]:
    """Work in the attached database file, which is whole afterwards."""
    connection.execute("USE result")
    yield
    connection.execute("CHECKPOINT result")
    connection.execute("USE memory")
    connection.execute("DETACH result")


def _audit(connection: Connection, manifest: Manifest) -> dict[str, int]:
    """Check that rows equal distinct keys, and the plan's numbers once every prompt is read.

    Raises:
        IntegrityFault: they differ.
    """
    reads, distinct, verdicts, pairs, rejects = one_row(
        connection,
        "SELECT (SELECT count(*) FROM reads), (SELECT count(DISTINCT prompt_key) FROM reads),"
        " (SELECT count(*) FROM verdicts), (SELECT count(*) FROM pairs_raw),"
        " (SELECT count(*) FROM rejects)",
    )
    complete = reads == manifest.prompts
    balanced = (
        reads == distinct
        and pairs == manifest.pairs
        and reads <= manifest.prompts
        and (not complete or verdicts == pairs)
        and verdicts <= pairs
    )
    if not balanced:
        raise IntegrityFault(
            f"the books do not balance: {reads} reads of {distinct} prompts for"
            f" {manifest.prompts} planned, {verdicts} verdicts of {pairs} pairs for"
            f" {manifest.pairs} planned",
            effect="no database was written; the parts are unchanged",
            remedy="report this with run.json, plan/plan.json and journal.jsonl",
        )
    counts = {"pairs": pairs, "verdicts": verdicts, "prompts": manifest.prompts, "reads": reads}
    return {**counts, "rejects": rejects}
