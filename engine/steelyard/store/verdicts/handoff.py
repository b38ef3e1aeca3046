"""The hand-off file: written from plan and parts, audited, checkpointed, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from steelyard.calibrators.calibrator import calibrated_sql
from steelyard.core.arrow import offsets_of
from steelyard.errors import IntegrityFault, UsageError
from steelyard.store.durable import TEMPORARY, check_out, publish, writing
from steelyard.store.plan.files import PAIRS_BYTES, Manifest, load_manifest, pair_groups
from steelyard.store.reads import journal
from steelyard.store.run_record import ImportRecord, ScoredRecord
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import (
    Connection,
    DuckDBError,
    one_row,
    open_file,
    open_scratch,
    raising_os_errors,
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
from steelyard.store.verdicts.views import REJECTS_SQL, VerdictSpec, answers_sql, verdict_sql

# Whose join and sort fit into DuckDB's memory, of which a sort takes several times its rows.
PROMPTS_AT_ONCE = 1_000_000
BYTES_AT_ONCE = 128 << 20
DUCKDB_MAGIC, DUCKDB_MAGIC_OFFSET = b"DUCK", 8  # in its files


def compact(snapshot: RunSnapshot, out: Path | None = None) -> dict[str, int]:
    """Write a database of a run's verdicts, audit it, and rename it.

    Args:
        snapshot: the run; its own file is written by the run's one writer only (`RunDir.lock`).
        out: another file, which anyone may write at any time.

    Returns:
        pairs, prompts and how many of each are read, and rows of every table.

    Raises:
        IntegrityFault: a file is damaged, or the books do not balance.
        UsageError: there is no plan yet, or a database cannot be at `out`.
    """
    record = snapshot.record
    if isinstance(record, ScoredRecord):
        manifest = snapshot.manifest or load_manifest(snapshot.run)
        write = partial(_write_database, snapshot, record, manifest)
    else:
        write = partial(_write_imported, snapshot, record.imported)
    target = out or snapshot.run.database
    elsewhere = target.absolute() != snapshot.run.database.absolute()
    if elsewhere and (target.parent / "run.json").exists():
        raise UsageError(
            "that is inside a run directory",
            place=str(target),
            effect="nothing was written",
            remedy="name another file with --out",
        )
    check_out(target, DUCKDB_MAGIC, skip=DUCKDB_MAGIC_OFFSET)
    with _replacing(target) as temporary:
        return write(temporary)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield the path of a new database, which replaces the target once it is whole."""
    temporary = target.with_name(f"{target.name}.{os.getpid()}{TEMPORARY}")
    try:
        with writing(target), raising_os_errors():
            yield temporary
            publish(temporary, target)
    finally:
        for path in (temporary, temporary.with_name(temporary.name + ".wal")):
            path.unlink(missing_ok=True)


def ensure_current(run: RunDir) -> None:
    """Write the hand-off file unless it is up to date."""
    snapshot = RunSnapshot.take(run.root)
    current = open_handoff(snapshot)
    if current is None:
        compact(snapshot)
    else:
        current.close()


def recalibrate(run: RunDir) -> None:
    """Bring the hand-off file up to date after a calibrator was applied to the run.

    Where it holds all parts, only the calibrated columns change, in a copy that replaces it: no
    join is made again. Otherwise it is compacted.

    Raises:
        IntegrityFault: a file is damaged, or the books do not balance.
    """
    snapshot = RunSnapshot.take(run.root)
    wanted, present = snapshot.state, {}
    with suppress(DuckDBError), open_file(run.database) as connection:
        present = built_from(connection)
    same_parts = present.get("journal") == wanted["journal"] and len(present) == len(wanted)
    if snapshot.calibrator is None or not same_parts:
        compact(snapshot)
        return
    with _replacing(run.database) as temporary:
        shutil.copyfile(run.database, temporary)
        digest = sql_text(snapshot.calibration)
        with (
            open_scratch(_spill(temporary), result=temporary) as connection,
            _in_result(connection),
        ):
            for name, sql in calibrated_sql(snapshot.calibrator):  # later ones read earlier ones
                connection.execute(f"UPDATE verdicts SET {name} = {sql}")  # noqa: S608
            connection.execute(
                f"UPDATE run SET value = {digest} WHERE key = 'calibration'"  # noqa: S608
            )


def _spill(path: Path) -> Path:
    return path.with_suffix(".spill")


def _write_database(
    snapshot: RunSnapshot, record: ScoredRecord, manifest: Manifest, path: Path
) -> dict[str, int]:
    run, parts = snapshot.run, snapshot.journal.parts
    journal.require_sound(run.root, snapshot.journal)
    spec = verdict_spec(snapshot, record)
    with (
        workspace(run, manifest, parts, spill=_spill(path), result=path) as connection,
        _in_result(connection),
    ):
        connection.execute("CREATE TABLE reads AS SELECT * FROM reads_raw")
        _make_verdicts(connection, spec, manifest, pair_groups(run, manifest))
        connection.execute("CREATE VIEW answers AS " + answers_sql(spec))
        connection.execute("CREATE TABLE rejects AS " + REJECTS_SQL)
        add_run_tables(connection, snapshot)
        return _audit(connection, manifest)


def _make_verdicts(
    connection: Connection, spec: VerdictSpec, manifest: Manifest, groups: Sequence[int]
) -> None:
    """Create `verdicts`, some pairs at a time: a join of all takes memory without bound.

    They are those of some buckets, for a prompt is in one bucket with all its pairs, and where
    pairs are large, of some row groups, which have `groups` pairs each.
    """
    query = verdict_sql(spec, "pairs_now", "reads_now") + ' ORDER BY v.shard, v."row"'
    start = "CREATE TABLE verdicts AS "
    view = "CREATE OR REPLACE TEMP VIEW {0}_now AS FROM {0}_raw WHERE {1}"
    for first, last in bucket_ranges(manifest.unique, PROMPTS_AT_ONCE):
        buckets = f"bucket BETWEEN {first} AND {last}"
        connection.execute(view.format("reads", buckets))
        share = sum(manifest.unique[first : last + 1]) / max(1, manifest.prompts)
        for pairs in pair_ranges(groups, share):
            connection.execute(view.format("pairs", f"{buckets} AND {pairs}"))
            connection.execute(start + query)
            start = "INSERT INTO verdicts "


def bucket_ranges(unique: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield first and last of neighbouring buckets that have about `most` prompts together."""
    first = prompts = 0
    for bucket, count in enumerate(unique):
        if prompts and prompts + count > most:
            yield first, bucket - 1
            first, prompts = bucket, 0
        prompts += count
    yield first, max(first, len(unique) - 1)


def pair_ranges(groups: Sequence[int], share: float) -> Iterator[str]:
    """Yield conditions for neighbouring row groups whose pairs take about BYTES_AT_ONCE.

    Args:
        groups: pairs of each row group, none of which has much more than PAIRS_BYTES.
        share: of the pairs that are looked at.
    """
    ends = offsets_of(groups).tolist()
    at_once = max(1, int(BYTES_AT_ONCE / (PAIRS_BYTES * max(share, 1e-9))))
    for group in range(0, max(1, len(groups)), at_once):
        end = ends[min(group + at_once, len(groups))]
        yield "true" if at_once >= len(groups) else f"pair BETWEEN {ends[group]} AND {end - 1}"


def _write_imported(snapshot: RunSnapshot, imported: ImportRecord, path: Path) -> dict[str, int]:
    files = imported_files(snapshot.run)
    with (
        open_scratch(_spill(path), reads=[*files.values()], result=path) as connection,
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
