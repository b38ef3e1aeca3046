"""The command `sql`: a query over a run, printed or written to a file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from steelyard.cli.common import (
    PATH,
    echo,
    emit,
    json_option,
    print_notes,
    remote_option,
    run_argument,
    wants_json,
)
from steelyard.errors import printable

MOST_SECONDS = 10_000_000  # of a query
STDOUT = Path("-")


@click.command()
@run_argument
@click.argument("query", metavar="QUERY")
@click.option("--max-rows", default=40, help="Rows to print, without --json.")
@click.option(
    "--csv", type=PATH, metavar="FILE", help="Write all rows to a new CSV file; - prints."
)
@click.option("--parquet", type=PATH, metavar="FILE", help="Write all rows to a new Parquet file.")
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    help="End a query that takes longer, with exit code 5.  [default: no limit]",
)
@remote_option
@json_option
def sql(
    run: Path,
    query: str,
    *,
    max_rows: int,
    csv: Path | None,
    parquet: Path | None,
    timeout: float | None,
    remote: bool,
) -> None:
    """Query a run in DuckDB's SQL, even while it is active.

    The tables are verdicts, answers, reads, rejects, work, run, and texts, which is read from the
    run's shards; docs/sql.md describes their columns. A query cannot open files or load extensions.
    It takes at most a quarter of the machine's memory (or 1 GiB), and goes on in TMPDIR beyond it.
    """
    from steelyard.store.snapshot import RunSnapshot
    from steelyard.store.verdicts import user_queries

    if not query.strip(" \n\t;"):
        raise click.UsageError("the query is empty")
    if timeout is not None and not 0 < timeout <= MOST_SECONDS:
        raise click.UsageError(f"--timeout is a number of seconds from 0 to {MOST_SECONDS:,}")
    if sum((csv is not None, parquet is not None, wants_json())) > 1:
        raise click.UsageError("give one of --csv, --parquet and --json")
    out = csv or parquet
    snapshot = RunSnapshot.take(run)
    print_notes(
        tuple(
            f"the view {view} is empty: it compares the two responses of a pair, and in this run"
            f" each response was scored alone; `steelyard rank {run}` compares the scores"
            for view in user_queries.empty_views(snapshot, query)
        )
    )
    if out is None:
        emit(
            snapshot,
            lambda snapshot: user_queries.show(snapshot, query, max_rows, timeout, remote=remote),
            lambda snapshot: user_queries.rows(snapshot, query, timeout, remote=remote),
        )
        return
    if parquet == STDOUT:
        raise click.UsageError("--parquet needs a file")
    kind = "csv" if csv else "parquet"
    if out == STDOUT:
        escapes = printable if sys.stdout.isatty() else str  # a program gets the data as they are
        rows = -1  # not the names
        for line in user_queries.csv_lines(snapshot, query, timeout, remote=remote):
            echo(line, escapes=escapes)
            rows += 1
        print_notes((f"{rows:,} rows",))
        return
    rows = user_queries.write(snapshot, query, kind, out, timeout, remote=remote)
    print_notes((f"{rows:,} rows in {out}",))
