"""The only file that opens DuckDB: live views over journaled parts, locked SQL, compaction.

The same four names stand in both: verdicts, reads, rejects, run. While a run writes, a query sees
the parts that were committed when it began.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import xxhash

from steelyard.errors import IntegrityFault, UsageError, escape
from steelyard.protocols import get_protocol
from steelyard.records import PAIRS, READS, REJECTS
from steelyard.store import journal
from steelyard.store.files import TEMPORARY, publish, writing
from steelyard.store.plan_files import (
    Manifest,
    load_manifest,
    read_manifest,
    require_plan_file,
)
from steelyard.store.rundir import RunDir

# The oldest DuckDB that has to read the hand-off file.
STORAGE_VERSION = "v1.5.0"
MEMORY_LIMIT = "768MB"  # beyond it DuckDB spills into the run directory
LOW_LABEL_MASS = 0.5

Connection: TypeAlias = duckdb.DuckDBPyConnection


def verdict_sql(judge: str, protocol: str, *, metadata: bool) -> str:
    """The one definition of a verdict: pairs joined to the reads of both orders.

    Reads `pairs_raw` and `reads`. A pair appears when both its prompts are read.
    """
    derived = ",\n  ".join(
        f"CASE WHEN ab.status = 'ok' AND ba.status = 'ok' THEN {expression} END AS {name}"
        for name, expression in get_protocol(protocol).verdict_sql
    )
    flags = " || ".join(
        f"CASE WHEN {condition} THEN ['{flag}'] ELSE []::VARCHAR[] END"
        for flag, condition in (
            ("truncated", "ab.truncated OR ba.truncated"),
            ("outside_ab", "ab.argmax_outside"),
            ("outside_ba", "ba.argmax_outside"),
            ("low_label_mass", f"least(ab.label_mass, ba.label_mass) < {LOW_LABEL_MASS}"),
        )
    )
    status = "CASE WHEN ab.status <> 'ok' THEN ab.status ELSE ba.status END"
    return f"""
SELECT p.pair_id, p.shard, p."row", p.model_a, p.model_b,
  {_text(judge)} AS judge, {_text(protocol)} AS protocol,
  {derived},
  {flags} AS flags,
  {status} AS status, coalesce(ab.error, ba.error) AS error,
  p.length_a, p.length_b, p.gold,
  {"p.metadata" if metadata else "NULL::STRUCT(none VARCHAR)"} AS metadata,
  greatest(ab.read_at, ba.read_at) AS read_at, p.key_ab, p.key_ba
FROM pairs_raw p
JOIN reads ab ON p.key_ab = ab.prompt_key
JOIN reads ba ON p.key_ba = ba.prompt_key"""  # noqa: S608 - our own text


_REJECTS_SQL = """
SELECT shard, "row", pair_id, reason, detail FROM rejects_raw
UNION ALL
SELECT shard, "row", pair_id, status, error FROM verdicts WHERE status = 'overlong'"""


@contextmanager
def open_sql(run: RunDir) -> Iterator[Connection]:
    """A locked connection on the run: the hand-off file if it is up to date, else live views.

    No file can be named in a query, no extension installed or loaded, no Python variable seen,
    no setting changed.

    Raises:
        IntegrityFault: a part that a view would read is damaged.
    """
    passport = run.read_passport()
    connection = _open_handoff(run) or _open_live(run, passport)
    try:
        _lock(connection)
        yield connection
    finally:
        connection.close()


def query(run: RunDir, sql: str) -> pa.Table:
    """The rows of one query.

    Raises:
        UsageError: DuckDB refuses it; its words are in the message.
    """
    with open_sql(run) as connection:
        try:
            relation = connection.sql(sql)
            return pa.table({}) if relation is None else relation.to_arrow_table()
        except duckdb.Error as error:
            raise _refused(error) from None


def show(run: RunDir, sql: str, max_rows: int) -> str:
    """The rows of one query drawn as a table, the first `max_rows` of them."""
    with open_sql(run) as connection:
        try:
            relation = connection.sql(sql)
            if relation is None:
                return ""
            return draw(relation, max_rows)
        except duckdb.Error as error:
            raise _refused(error) from None


def draw(relation: duckdb.DuckDBPyRelation, max_rows: int) -> str:
    """A relation as DuckDB draws it."""
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        relation.show(max_rows=max_rows, max_width=200)
    return text.getvalue().rstrip("\n")


def balance_pairs(run: RunDir) -> None:
    """Make the journal's sum of completed pairs equal a fresh count.

    It is exact while a session lasts; reads taken over and parts set aside move it.
    """
    committed = journal.read_journal(run.root)
    with _workspace(run, committed) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pairs_raw p SEMI JOIN reads_raw ab ON p.key_ab = ab.prompt_key"
            " SEMI JOIN reads_raw ba ON p.key_ba = ba.prompt_key"
        ).fetchone()
    assert row is not None
    off = int(row[0]) - sum(part.pairs for part in committed)
    if off and committed:
        first = replace(committed[0], pairs=committed[0].pairs + off)
        journal.rewrite(run.root, [first, *committed[1:]])


def ambiguous_pair_ids(run: RunDir) -> int:
    """How many pair_ids of the plan stand for pairs of different content."""
    with _workspace(run, []) as connection:
        row = connection.execute(
            "SELECT count(*) FROM (SELECT pair_id FROM pairs_raw GROUP BY pair_id"
            " HAVING min((key_ab, key_ba)) <> max((key_ab, key_ba)))"
        ).fetchone()
    assert row is not None
    return int(row[0])


def matching_reads(
    run: RunDir,
    manifest: Manifest,
    other: RunDir,
    theirs: Sequence[journal.Part],
    origin: str,
    rows: int,
) -> Iterator[pa.Table]:
    """Good reads of another run for prompts of this one that are not read yet (READS).

    Args:
        run: this run.
        manifest: its plan.
        other: the other run.
        theirs: its parts, checked.
        origin: what `reused_from` says of reads that the other run made itself.
        rows: how many a table has at most.
    """
    columns = [name for name in READS.names if name not in {"bucket", "reused_from"}]
    chosen = ", ".join(f"r.{name}" for name in columns)
    with _workspace(run, journal.read_journal(run.root)) as connection:
        files = [other.root / part.name for part in theirs]
        _parquet_view(connection, "theirs", files, READS)
        reader = connection.sql(
            f"""
            SELECT {chosen}, k.bucket, coalesce(r.reused_from, {_text(origin)}) AS reused_from
            FROM theirs r JOIN (
              SELECT key_ab AS key, bucket FROM pairs_raw
              UNION SELECT key_ba, bucket FROM pairs_raw
            ) k ON r.prompt_key = k.key
            ANTI JOIN reads_raw own ON r.prompt_key = own.prompt_key
            WHERE r.status = 'ok' ORDER BY k.bucket"""  # noqa: S608 - our own names
        ).to_arrow_reader(rows)
        for batch in reader:
            table = pa.Table.from_batches([batch]).select(READS.names)
            yield table.cast(READS)


def compact(run: RunDir, out: Path | None = None) -> dict[str, int]:
    """Write the hand-off file from plan and parts, audited, then renamed.

    Returns:
        pairs, prompts and how many of each are read, and rows of every table.

    Raises:
        IntegrityFault: a file is damaged, or the books do not balance.
        UsageError: there is no plan yet.
    """
    passport = run.read_passport()
    manifest = load_manifest(run)
    target = out or run.database
    if not target.parent.is_dir():
        raise UsageError(
            "the folder for the database does not exist",
            place=str(target.parent),
            remedy="make it, or choose another place with --out",
        )
    temporary = target.with_name(target.name + TEMPORARY)
    with writing(target):
        _remove(temporary)
        try:
            counts = _write_database(run, passport, manifest, temporary)
            publish(temporary, target)
        except duckdb.IOException as error:
            raise OSError(str(error)) from error
        finally:
            _remove(temporary)
    return counts


def ensure_compact(run: RunDir) -> None:
    """Write the hand-off file unless it is up to date."""
    current = _open_handoff(run)
    if current is None:
        compact(run)
    else:
        current.close()


@contextmanager
def _workspace(run: RunDir, committed: Sequence[journal.Part]) -> Iterator[Connection]:
    """An in-memory DuckDB for our own statements, with bounded memory.

    Has pairs_raw, rejects_raw and reads_raw of the run.

    Raises:
        UsageError: there is no plan yet.
        IntegrityFault: a file of the plan is damaged. Parts are the caller's to check.
    """
    manifest = load_manifest(run)
    spill = run.root / "duckdb.tmp"
    settings = {"memory_limit": MEMORY_LIMIT, "temp_directory": str(spill)}
    try:
        with duckdb.connect(":memory:", config=settings) as connection:
            pairs, rejects = (
                _plan_files(run, manifest, prefix) for prefix in ("plan/pairs", "rejects/")
            )
            _parquet_view(connection, "pairs_raw", pairs, PAIRS)
            _parquet_view(connection, "rejects_raw", rejects, REJECTS)
            files = [run.root / part.name for part in committed]
            _parquet_view(connection, "reads_raw", files, READS)
            yield connection
    finally:
        shutil.rmtree(spill, ignore_errors=True)


def _write_database(
    run: RunDir, passport: dict[str, Any], manifest: Manifest, path: Path
) -> dict[str, int]:
    committed = journal.read_journal(run.root)
    journal.require_intact(run.root, committed)
    with _workspace(run, committed) as connection:
        connection.execute(f"ATTACH {_text(path)} AS o (STORAGE_VERSION '{STORAGE_VERSION}')")
        connection.execute("USE o")
        connection.execute("CREATE TABLE reads AS SELECT * FROM reads_raw")
        connection.execute(
            "CREATE TABLE verdicts AS "
            + verdict_sql(**_verdict_arguments(passport, manifest))
            + ' ORDER BY p.shard, p."row"'
        )
        connection.execute("CREATE TABLE rejects AS " + _REJECTS_SQL)
        _run_table(connection, run, passport)
        counts = _audit(connection, manifest)
        connection.execute("CHECKPOINT o")
        connection.execute("USE memory")
        connection.execute("DETACH o")
    return counts


def _audit(connection: Connection, manifest: Manifest) -> dict[str, int]:
    """Rows = distinct keys, and the plan's numbers once every prompt is read.

    Raises:
        IntegrityFault: they differ.
    """
    row = connection.execute(
        "SELECT (SELECT count(*) FROM reads), (SELECT count(DISTINCT prompt_key) FROM reads),"
        " (SELECT count(*) FROM verdicts), (SELECT count(*) FROM pairs_raw),"
        " (SELECT count(*) FROM rejects)"
    ).fetchone()
    assert row is not None
    reads, distinct, verdicts, pairs, rejects = row
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
    return {
        "pairs": pairs,
        "verdicts": verdicts,
        "prompts": manifest.prompts,
        "reads": reads,
        "rejects": rejects,
    }


def _open_handoff(run: RunDir) -> Connection | None:
    """The hand-off file, unless parts were committed after it."""
    if not run.database.exists():
        return None
    try:
        connection = duckdb.connect(str(run.database), read_only=True)
    except duckdb.Error:
        return None
    try:
        row = connection.execute("SELECT value FROM run WHERE key = 'journal'").fetchone()
        if row is not None and row[0] == _journal_digest(run):
            return connection
    except duckdb.Error:
        pass
    connection.close()
    return None


def _open_live(run: RunDir, passport: dict[str, Any]) -> Connection:
    parts = journal.read_journal(run.root)
    journal.require_intact(run.root, parts)
    manifest = read_manifest(run)
    connection = duckdb.connect(":memory:")
    _register(connection, "pairs_raw", _plan_files(run, manifest, "plan/pairs"), PAIRS)
    _register(connection, "rejects_raw", _plan_files(run, manifest, "rejects/"), REJECTS)
    _register(connection, "reads_raw", [run.root / part.name for part in parts], READS)
    connection.execute("CREATE VIEW reads AS SELECT * FROM reads_raw")
    connection.execute(
        "CREATE VIEW verdicts AS " + verdict_sql(**_verdict_arguments(passport, manifest))
    )
    connection.execute("CREATE VIEW rejects AS " + _REJECTS_SQL)
    _run_table(connection, run, passport)
    return connection


def _register(connection: Connection, name: str, files: Sequence[Path], schema: pa.Schema) -> None:
    """Show Parquet files through Arrow, so that SQL itself needs no right to open any file."""
    if files:
        connection.register(name, ds.dataset([str(file) for file in files], format="parquet"))
    else:
        connection.register(name, schema.empty_table())


def _parquet_view(
    connection: Connection, name: str, files: Sequence[Path], schema: pa.Schema
) -> None:
    if files:
        listing = ", ".join(map(_text, files))
        connection.execute(
            f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet([{listing}])"  # noqa: S608
        )
    else:
        connection.register(name, schema.empty_table())


def _plan_files(run: RunDir, manifest: Manifest | None, prefix: str) -> list[Path]:
    if manifest is None:
        return []
    return [
        require_plan_file(run, manifest, name) for name in manifest.files if name.startswith(prefix)
    ]


def _verdict_arguments(passport: dict[str, Any], manifest: Manifest | None) -> dict[str, Any]:
    return {
        "judge": passport["judge"]["name"],
        "protocol": passport["config"]["protocol"],
        "metadata": bool(manifest and manifest.metadata),
    }


def _run_table(connection: Connection, run: RunDir, passport: dict[str, Any]) -> None:
    """Table `run`: what run.json says, as text by key."""
    rows = [
        (key, value if isinstance(value, str) else json.dumps(value))
        for key, value in passport.items()
    ]
    rows.append(("journal", _journal_digest(run)))
    connection.execute("CREATE TABLE run (key VARCHAR, value VARCHAR)")
    connection.executemany("INSERT INTO run VALUES (?, ?)", rows)


def _lock(connection: Connection) -> None:
    for setting in (
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "allow_community_extensions = false",
        "python_enable_replacements = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")


def _journal_digest(run: RunDir) -> str:
    path = run.root / journal.NAME
    return xxhash.xxh3_128_hexdigest(path.read_bytes() if path.exists() else b"")


def _refused(error: duckdb.Error) -> UsageError:
    words = re.sub(r"\s+", " ", str(error).split("\n\n")[0])
    return UsageError(
        f"DuckDB refuses the query: {escape(words, 300)}",
        remedy="tables are verdicts, reads, rejects and run; `DESCRIBE verdicts` lists columns",
    )


def _text(value: object) -> str:
    """A SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"


def _remove(path: Path) -> None:
    for name in (path, path.with_name(path.name + ".wal")):
        with suppress(FileNotFoundError):
            name.unlink()
