"""Comparisons of a run, or of any Parquet file: named roles -> one checked Arrow table.

A source is a run directory, a `.duckdb` file that Steelyard wrote, or Parquet of any other tool: a
file, a folder or a pattern. The table has one column a role, under the role's name:

| role | becomes |
|---|---|
| model_a, model_b | dictionary of strings, trimmed, neither null nor empty |
| preference | float64 in [0, 1]: P(a is better) + half of P(tie) |
| tie | float64 in [0, 1], P(tie); null where the source does not tell ties apart |
| score | float64, finite; a logit as it stands |
| instruction | uint64, the cluster (`clusters.instruction_ids`); the pair where none is named |
| weight | float64 in [1e-9, 1e12]; rows of weight 0 are left out |
| length_a, length_b | float64, from 0 to 2**31 - 1; null where it is not known |
| preference_ab, preference_ba | float64 in [0, 1]: `preference` as read in each order |
| calibrated_preference, calibrated_tie | float64 in [0, 1] |
| pair_id | string |
| gold | votes for a, b and a tie (schemas.GOLD); null where a row has none |

Any other name is a column of the source (or a field of `metadata`), taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from steelyard.comparisons.checks import PAIR, Checks, checked
from steelyard.errors import InputRefused, UsageError, escape
from steelyard.input import discover
from steelyard.input.table_roles import ROLES, assign, cluster_columns, expression
from steelyard.store.rundir import RunDir
from steelyard.store.sql import Connection, lock, one_row, open_file, open_memory, refusing
from steelyard.store.verdicts.database import open_sql

BATCH = 1 << 20  # rows that are checked at a time
SOURCE = "source_rows"
# What DuckDB calls the types that `instruction_ids` takes as numbers; all others become texts.
COUNTED = {
    "tinyint", "smallint", "integer", "bigint",
    "utinyint", "usmallint", "uinteger", "ubigint", "float", "double",
}  # fmt: skip


class NothingLeft(InputRefused):
    """A source has no rows, or none with a preference."""


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Checked comparisons, in the order of the source."""

    table: pa.Table  # one column a role that was asked for and is there
    left_out: dict[str, int]  # reason -> rows without a preference, which are no comparisons
    columns: dict[str, str]  # role -> the column or expression that was read

    def has(self, *roles: str) -> bool:
        """Whether the source has all these roles."""
        return set(roles) <= set(self.table.column_names)


def read_comparisons(
    path: Path,
    columns: Mapping[str, str] | None,
    need: Sequence[str],
    want: Sequence[str] = (),
    each: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None,
) -> Comparisons:
    """Read what a statistic needs from a run or a file.

    Args:
        path: run directory, `.duckdb` file, or Parquet file, folder or pattern.
        columns: role -> column, as `--map` gives it. In parentheses it is an expression over the
            columns, in DuckDB's SQL: `preference=(score - 1)`. An empty one leaves the role out.
        need: roles, or names of columns, that have to be there.
        want: roles that are taken where the source has them, and any row a value for them.
        each: what is done to every batch when it is checked, such as to make numbers of texts.

    Raises:
        UsageError: there is no such source, role or column.
        InputRefused: values that cannot be what their role says, with their numbers of rows.
        NothingLeft: no row can be used.
        IntegrityFault: a file of the run is damaged.
    """
    with _open(path) as (connection, names):
        columns = columns or {}
        roles = assign(str(path), names, columns, need, want)
        left_out, where = _left_out(connection, names)
        with refusing(partial(_unreadable, path)):
            if "instruction" in {*need, *want} - columns.keys():
                own, pair = cluster_columns(str(path), names, columns)
                roles |= _clusters(connection, own, pair, where)
            roles = _without_empty(connection, roles, want, where)
            query = f"SELECT {_select(connection, roles)} FROM {SOURCE}{where}"  # noqa: S608
            table, more = _read(connection, query, Checks(str(path)), each or (lambda batch: batch))
    left_out = {key: count for key, count in (left_out | more).items() if count}
    if not len(table):
        raise NothingLeft(
            "no comparison is left"
            + (f"; left out: {describe(left_out)}" if left_out else ", there are no rows"),
            place=str(path),
            remedy="name a run with verdicts, or a file with comparisons",
        )
    if pair := roles.pop(PAIR, None):
        roles["instruction"] += f", else {pair}"
    return Comparisons(table, left_out, roles)


def _unreadable(path: Path, words: str) -> UsageError:
    return UsageError(
        f"DuckDB cannot read the columns: {words}",
        place=str(path),
        remedy="check --map: a column's name, or an expression in parentheses",
    )


def describe(left_out: Mapping[str, int]) -> str:
    """What was left out, as words."""
    return ", ".join(f"{count:,} rows: {reason}" for reason, count in left_out.items())


def _clusters(
    connection: Connection, own: Sequence[str], pair: str | None, where: str
) -> dict[str, str]:
    """The first of these columns that has values, and the pair for rows where it has none."""
    candidates = [*own, *([pair] if pair else [])]
    if not candidates:
        return {}
    counts = ", ".join(f"count({sql})" for sql in candidates)
    query = f"SELECT count(*), {counts} FROM {SOURCE}{where}"  # noqa: S608 - names are checked
    total, *found = one_row(connection, query)
    filled = {sql: count for sql, count in zip(candidates, found, strict=True) if count}
    if not filled:
        return {}
    chosen = next(iter(filled))
    if filled[chosen] == total or pair == chosen or pair not in filled:
        return {"instruction": chosen}
    return {"instruction": chosen, PAIR: pair}


def _select(connection: Connection, roles: Mapping[str, str]) -> str:
    chosen = {role: expression(role, roles) for role in roles}
    if sql := roles.get("instruction"):
        kind = connection.sql(f"SELECT {sql} FROM {SOURCE} LIMIT 0").types[0].id  # noqa: S608
        chosen["instruction"] = sql if kind in COUNTED else f"CAST({sql} AS VARCHAR)"
    if PAIR in roles:  # as text, so that no pair takes the number of an instruction
        chosen[PAIR] = f"CAST({roles[PAIR]} AS VARCHAR)"
    return ", ".join(f'{sql} AS "{role}"' for role, sql in chosen.items())


def _without_empty(
    connection: Connection, roles: dict[str, str], want: Sequence[str], where: str
) -> dict[str, str]:
    """The roles without those wanted ones that no row has a value for, as a run's gold may be."""
    wanted = [role for role in roles if role in want]
    if not wanted:
        return roles
    counts = ", ".join(f"count({roles[role]})" for role in wanted)
    found = one_row(connection, f"SELECT {counts} FROM {SOURCE}{where}")  # noqa: S608
    empty = {role for role, count in zip(wanted, found, strict=True) if not count}
    return {role: sql for role, sql in roles.items() if role not in empty}


def _read(
    connection: Connection,
    query: str,
    checks: Checks,
    each: Callable[[pa.RecordBatch], pa.RecordBatch],
) -> tuple[pa.Table, dict[str, int]]:
    reader = connection.sql(query).to_arrow_reader(BATCH)
    batches = [each(checked(batch, checks)) for batch in reader]
    checks.refuse()
    if not batches:
        return pa.table({}), checks.left_out
    return pa.Table.from_batches(batches).unify_dictionaries(), checks.left_out


def _left_out(connection: Connection, names: Sequence[str]) -> tuple[dict[str, int], str]:
    """Rows that a run marks as without numbers, by status, and the WHERE that leaves them out."""
    if not {"status", "raw_preference"} <= set(names):
        return {}, ""
    found = connection.sql(
        f"SELECT status, count(*) FROM {SOURCE} WHERE status <> 'ok' GROUP BY 1 ORDER BY 1"  # noqa: S608
    ).fetchall()
    return {f"status {status}": count for status, count in found}, " WHERE status = 'ok'"


@contextmanager
def _open(path: Path) -> Iterator[tuple[Connection, list[str]]]:
    """A locked connection on which the source's rows have the name SOURCE, and their columns."""
    if (path / "run.json").exists():
        with open_sql(RunDir(path)) as connection:
            yield connection, _named(connection, "SELECT * FROM verdicts")
    else:
        connection = _database(path) if path.suffix == ".duckdb" else open_memory()
        try:
            if path.suffix != ".duckdb":
                connection.register("parquet_rows", _dataset(path))
            lock(connection)
            table = "verdicts" if path.suffix == ".duckdb" else "parquet_rows"
            yield connection, _named(connection, f"SELECT * FROM {table}")  # noqa: S608
        finally:
            connection.close()


def _named(connection: Connection, query: str) -> list[str]:
    connection.execute(f"CREATE TEMP VIEW {SOURCE} AS {query}")
    described = connection.execute(f"DESCRIBE {SOURCE}").fetchall()
    names = [row[0] for row in described]
    fields = next((row[1] for row in described if row[0] == "metadata"), "")
    if fields.startswith("STRUCT"):
        inner = connection.sql(f"SELECT metadata.* FROM {SOURCE} LIMIT 0").columns  # noqa: S608
        names += [f"metadata.{name}" for name in inner]
    return names


def _database(path: Path) -> Connection:
    def refusal(words: str) -> UsageError:
        return UsageError(
            f"this is not a database with verdicts: {words}",
            place=str(path),
            remedy="name a file that `steelyard score` or `steelyard compact` wrote",
        )

    with refusing(refusal):
        connection = open_file(path)
        connection.execute("SELECT * FROM verdicts LIMIT 0")
    return connection


def _dataset(path: Path) -> ds.Dataset:
    files = [source.path for source in discover([path])]
    for file in files:  # each alone: an error of all together does not say which it is
        try:
            names = pq.read_schema(file).names
        except (pa.ArrowException, OSError) as error:
            raise InputRefused(
                f"this is no Parquet that can be read: {escape(error, 200)}",
                place=file,
                remedy="name a run directory, a .duckdb file of a run, or Parquet files",
            ) from None
        if not names:
            raise InputRefused(
                "this Parquet has no columns",
                place=file,
                remedy="name a file with comparisons, or take it out of the folder",
            )
    return ds.dataset(files, format="parquet")


__all__ = ["ROLES", "Comparisons", "NothingLeft", "describe", "read_comparisons"]
