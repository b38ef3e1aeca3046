"""The answers to a user's query: as a table, as JSON values, drawn, or written to a file.

Next to the tables of a run a query may read `texts`, which comes from the run's shards.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow as pa

from steelyard.errors import EnvironmentFault, UsageError, machine_fault
from steelyard.store.durable import TEMPORARY, check_new, publish, writing
from steelyard.store.run_record import ScoredRecord
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import Connection, Relation, check_reading, one_row
from steelyard.store.sql_faults import limited, refusing
from steelyard.store.verdicts import written_rows
from steelyard.store.verdicts.database import open_sql
from steelyard.store.verdicts.json_rows import json_rows
from steelyard.store.verdicts.statistics_views import STATISTICS
from steelyard.store.verdicts.text_table import TextTable


@contextmanager
def _answer(
    snapshot: RunSnapshot, sql: str, seconds: float | None, *, remote: bool = False
) -> Iterator[tuple[Connection, Relation | None]]:
    """Give the relation of a user's query; None for a statement that has none."""
    texts = TextTable(snapshot.record, remote=remote)
    try:
        with (
            texts.raising(),
            open_sql(snapshot) as connection,
            limited(connection, seconds),
            refusing(_refused),
        ):
            check_reading(connection, sql)
            texts.create(connection)
            yield connection, connection.sql(sql)
    except MemoryError as error:
        raise EnvironmentFault(
            f"the query needs too much memory: {error}",
            effect="nothing of it is shown",
            remedy="select fewer columns or rows, or aggregate them; a query gets a quarter of the"
            " machine's memory",
        ) from None
    except OSError as error:
        raise machine_fault(error, str(snapshot.run.root), doing="query") from error


def empty_views(snapshot: RunSnapshot, sql: str) -> tuple[str, ...]:
    """Return which views that a query names are empty because each response was judged alone."""
    named = [view for view in STATISTICS if re.search(rf"\b{view}\b", sql, re.IGNORECASE)]
    record = snapshot.record
    if not named or not isinstance(record, ScoredRecord) or record.spec.axes.shows != "response":
        return ()
    with open_sql(snapshot) as connection:
        return tuple(
            view
            for view in named
            if not one_row(connection, f"SELECT count(*) FROM {view}")[0]  # noqa: S608 - our names
        )


def query(
    snapshot: RunSnapshot, sql: str, seconds: float | None = None, *, remote: bool = False
) -> pa.Table:
    """Return the rows of a query.

    Args:
        snapshot: of the run.
        sql: the query.
        seconds: how long it may take.
        remote: whether `texts` may be fetched from addresses that the run names.

    Raises:
        UsageError: DuckDB refuses it; its words are in the message. Or the run has no texts.
        InputRefused: it reads `texts`, and the shards are missing or have changed.
        EnvironmentFault: it takes more than `seconds`, or more memory than queries get.
    """
    with _answer(snapshot, sql, seconds, remote=remote) as (_, relation):
        return pa.table({}) if relation is None else relation.to_arrow_table()


def rows(
    snapshot: RunSnapshot, sql: str, seconds: float | None = None, *, remote: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a query as JSON values (`json_rows`).

    Raises:
        SteelyardError: as `query`.
    """
    with _answer(snapshot, sql, seconds, remote=remote) as (connection, relation):
        yield from () if relation is None else json_rows(connection, relation)


def show(
    snapshot: RunSnapshot,
    sql: str,
    max_rows: int,
    seconds: float | None = None,
    *,
    remote: bool = False,
) -> str:
    """Return the first `max_rows` rows of a query, drawn as a table.

    Raises:
        SteelyardError: as `query`.
    """
    with _answer(snapshot, sql, seconds, remote=remote) as (_, relation):
        if relation is None:
            return ""
        if relation.columns == ["explain_key", "explain_value"]:
            return "\n".join(str(plan) for _, plan in relation.fetchall())
        width = shutil.get_terminal_size((200, 24)).columns
        with redirect_stdout(io.StringIO()) as drawn:
            relation.show(max_rows=max_rows, max_width=width)
        return drawn.getvalue().rstrip("\n")


def csv_lines(
    snapshot: RunSnapshot, sql: str, seconds: float | None = None, *, remote: bool = False
) -> Iterator[str]:
    """Yield the rows of a query as lines of CSV, the names of the columns first.

    Raises:
        SteelyardError: as `query`.
    """
    with _answer(snapshot, sql, seconds, remote=remote) as (connection, relation):
        yield from written_rows.csv_lines(connection, _required(relation))


def write(
    snapshot: RunSnapshot,
    sql: str,
    kind: str,
    path: Path,
    seconds: float | None = None,
    *,
    remote: bool = False,
) -> int:
    """Write the rows of a query to a new file, whole or not at all, and return how many there are.

    Args:
        snapshot: of the run.
        sql: the query.
        kind: csv or parquet.
        path: the file. Its rows are written as they come, within the memory of queries.
        seconds: how long the query may take.
        remote: whether `texts` may be fetched from addresses that the run names.

    Raises:
        UsageError: there is something of that name.
        SteelyardError: as `query`.
    """
    check_new(path)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with _answer(snapshot, sql, seconds, remote=remote) as (connection, relation):
            present = _required(relation)
            with writing(path, "nothing was written", "run the command again"):
                with temporary.open("wb") as file:
                    if kind == "csv":
                        count = written_rows.write_csv(connection, present, file)
                    else:
                        count = written_rows.write_parquet(present, file)
                publish(temporary, path)
        return count
    finally:
        temporary.unlink(missing_ok=True)


def _required(relation: Relation | None) -> Relation:
    if relation is None:
        raise UsageError("the query has no rows", remedy="write SELECT ...")
    return relation


def _refused(words: str) -> UsageError:
    return UsageError(
        f"DuckDB refuses the query: {words}",
        remedy="tables: verdicts, answers, reads, rejects, work, run, texts; try"
        " `DESCRIBE verdicts`",
    )
