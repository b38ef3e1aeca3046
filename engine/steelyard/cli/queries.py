"""The commands that read a run's database: sql, compact."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from steelyard.cli.common import PATH, emit, json_option, rows_of, run_argument


@click.command()
@run_argument
@click.argument("query", metavar="QUERY")
@click.option("--max-rows", default=40, help="Rows to print, without --json.")
@json_option
def sql(run: Path, query: str, max_rows: int) -> None:
    """Query a run in DuckDB's SQL, even while it is active.

    The tables are verdicts, answers, reads, rejects, work and run; docs/sql.md describes their
    columns. A query cannot open files or load extensions.
    """
    from steelyard.store.snapshot import RunSnapshot
    from steelyard.store.verdicts import database

    if not query.strip(" \n\t;"):
        raise click.UsageError("the query is empty")
    emit(
        RunSnapshot.take(run),
        lambda snapshot: database.show(snapshot, query, max_rows),
        lambda snapshot: rows_of(database.query(snapshot, query)),
    )


@click.command()
@run_argument
@click.option("--out", type=PATH, help="File to write.  [default: RUN/verdicts.duckdb]")
@json_option
def compact(run: Path, out: Path | None) -> None:
    """Write a run's verdicts as one checked DuckDB file.

    `score` and `resume` do this when they end; the file replaces the run's earlier one.
    """
    from steelyard.store.run_record import read_record
    from steelyard.store.rundir import RunDir
    from steelyard.store.snapshot import RunSnapshot
    from steelyard.store.verdicts import handoff

    directory = RunDir(run)
    read_record(directory)
    with nullcontext() if out else directory.lock():  # the run's own file has one writer
        counts = handoff.compact(RunSnapshot.take(run), out)
    emit(
        {"database": str(out or directory.database), **counts},
        "{database}: {verdicts:,} verdicts of {pairs:,} pairs, from {reads:,} reads of"
        " {prompts:,} prompts".format_map,
    )
