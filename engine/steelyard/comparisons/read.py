"""Comparisons of a run, or of any Parquet file: named roles -> one checked Arrow table.

A source is a run directory, a `.duckdb` file that Steelyard wrote, or Parquet of any other tool: a
file, a folder or a pattern. The table has one column per role, under the role's name:

| role | becomes |
|---|---|
| model_a, model_b | dictionary of strings, trimmed, neither null nor empty |
| preference | float64 in [0, 1]: P(a is better) + half of P(tie) |
| tie | float64 in [0, 1], P(tie); null where the source does not know ties |
| score | float64, finite; a logit as it is |
| instruction | uint64, the cluster (`clusters.instruction_ids`); the pair where none is named |
| weight | float64 in [1e-9, 1e12]; rows of weight 0 are left out |
| length_a, length_b | float64, from 0 to 2**31 - 1; null where it is not known |
| preference_ab, preference_ba | float64 in [0, 1]: `preference` as read in each order |
| calibrated_preference, calibrated_tie | float64 in [0, 1] |
| pair_id | string |
| gold | votes for a, b and a tie (schemas.GOLD); null where a row has none |

Any other name is a column of the source (or a field of `metadata`), taken as it is.

The preference is the calibrated one where a source has it, unless --map names another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from steelyard.calibrators.calibrator import COLUMNS
from steelyard.comparisons.checks import PAIR, check_batch
from steelyard.comparisons.sources import SOURCE, OpenSource, open_source
from steelyard.errors import InputRefused, SteelyardError, UsageError
from steelyard.input.problems import RowProblems
from steelyard.input.roles import COMPARISONS
from steelyard.input.sql_roles import SOURCES, quoted, resolve_sql, typed_sql
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import Connection, describe_text, one_row
from steelyard.store.sql_faults import refusing

BATCH = 1 << 20  # rows that are checked at a time
CALIBRATED = COLUMNS[:2]  # preference and tie
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

    table: pa.Table  # one column per role that was asked for and is there
    left_out: dict[str, int]  # reason -> rows without a preference, which compare nothing
    columns: dict[str, str]  # role -> the column or expression that was read

    @property
    def preference(self) -> str:
        """The column, or the expression, that preferences are of."""
        parts = next(parts for parts in SOURCES if set(parts) <= self.columns.keys())
        return " - ".join(self.columns[part].replace('"', "") for part in parts)

    def has(self, *roles: str) -> bool:
        """Return whether the source has all these roles."""
        return set(roles) <= set(self.table.column_names)


def read_comparisons(
    source: Path | RunSnapshot,
    columns: Mapping[str, str] | None,
    need: Sequence[str],
    want: Sequence[str] = (),
    each: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None,
    *,
    raw: bool = False,
) -> Comparisons:
    """Read what a statistic needs from a run or a file.

    Args:
        source: run, run directory, `.duckdb` file, or Parquet file, folder or pattern.
        columns: role -> column, as `--map` gives it. In parentheses it is an expression over the
            columns, in DuckDB's SQL: `preference=(score - 1)`. An empty one leaves the role out.
        need: roles, or names of columns, that have to be there.
        want: roles that are taken where the source has them, and any row a value for them.
        each: what is done to every batch when it is checked, such as to make numbers of texts.
        raw: read raw preferences, even where there are calibrated ones.

    Raises:
        UsageError: there is no such source or role, or DuckDB refuses an expression.
        InputRefused: values that cannot be what their role says, with their numbers of rows.
        NothingLeft: no row can be used.
        IntegrityFault: a file of the run is damaged.
    """
    path = source if isinstance(source, Path) else source.run.root
    with (
        open_source(source) as opened,
        opened.files.reading() if opened.files else nullcontext(),
    ):
        connection, names = opened.connection, opened.names
        left_out, where = _left_out(connection, names)
        column_map = dict(columns or {})
        if not raw and "preference" in need:
            column_map = _calibrated(opened, column_map, where)
        roles = opened.resolve(str(path), column_map, need, want)
        with refusing(partial(_unreadable, path, connection, roles)):
            if "instruction" in {*need, *want} - column_map.keys():
                pair = resolve_sql(str(path), names, column_map, (), ["pair_id"]).get("pair_id")
                roles |= _clusters(connection, names, pair, where)
            roles = _without_empty(connection, roles, {*want} - {*need}, where)
            query = f"SELECT {_select(connection, roles)} FROM {SOURCE}{where}"  # noqa: S608
            reader = connection.sql(query).to_arrow_reader(BATCH)
            table = _read(reader, str(path), left_out, each or (lambda batch: batch))
    if not len(table):
        raise NothingLeft(
            "no comparisons are left: "
            + (f"left out: {describe(left_out)}" if left_out else "the source has no rows"),
            place=str(path),
            remedy="name a run with verdicts, or a file with comparisons",
        )
    if pair := roles.pop(PAIR, None):
        roles["instruction"] += f", else {pair}"
    return Comparisons(table, dict(left_out), roles)


def _unreadable(
    path: Path, connection: Connection, roles: Mapping[str, str], words: str
) -> SteelyardError:
    numbers = {role: sql for role, sql in roles.items() if typed_sql(role, sql).endswith("DOUBLE)")}
    if text := describe_text(connection, SOURCE, numbers):
        return InputRefused(text, place=str(path), remedy="name a column of numbers, or convert it")
    remedy = "check --map: a column's name, or an expression in parentheses"
    return UsageError(f"DuckDB cannot read the columns: {words}", place=str(path), remedy=remedy)


def describe(left_out: Mapping[str, int]) -> str:
    """Return in words what was left out."""
    return ", ".join(f"{count:,} rows: {reason}" for reason, count in left_out.items())


def _calibrated(opened: OpenSource, columns: Mapping[str, str], where: str) -> dict[str, str]:
    """Map preference and tie to calibrated columns that have values; both, or neither of them."""
    names, (preference, tie) = opened.names, CALIBRATED
    given = {part for parts in SOURCES for part in parts} & columns.keys()
    if (given and columns.get("preference") != preference) or preference not in names:
        return dict(columns)
    if opened.run is not None:  # no need to look at every verdict
        made = opened.run.calibrator
        filled = [] if made is None else [preference, tie][: 1 if made.tie is None else 2]
    else:
        present = [name for name in CALIBRATED if name in names]
        _, counts = _count_values(opened.connection, [names[name] for name in present], where)
        filled = [name for name in present if counts[names[name]]]
    if preference not in filled:
        return dict(columns)
    return {"preference": preference, "tie": tie if tie in filled else "", **columns}


def _clusters(
    connection: Connection, names: Mapping[str, str], pair: str | None, where: str
) -> dict[str, str]:
    """Choose the first cluster column that has values, and the pair for rows where it has none."""
    known = [name for name in COMPARISONS.names["instruction"] if name != "pair_id"]
    candidates = [*(names[name] for name in known if name in names), *([pair] if pair else [])]
    total, counts = _count_values(connection, candidates, where)
    filled = [sql for sql in candidates if counts[sql]]
    if not filled:
        return {}
    chosen = filled[0]
    if counts[chosen] == total or pair == chosen or pair not in filled:
        return {"instruction": chosen}
    return {"instruction": chosen, PAIR: pair}


def _count_values(
    connection: Connection, columns: Sequence[str], where: str
) -> tuple[int, dict[str, int]]:
    """Return how many rows there are, and in how many each column has a value."""
    counts = ", ".join(["count(*)", *(f"count({sql})" for sql in columns)])
    query = f"SELECT {counts} FROM {SOURCE}{where}"  # noqa: S608 - names are checked
    total, *filled = one_row(connection, query)
    return total, dict(zip(columns, filled, strict=True))


def _select(connection: Connection, roles: Mapping[str, str]) -> str:
    chosen = {role: typed_sql(role, sql) for role, sql in roles.items()}
    if sql := roles.get("instruction"):
        kind = connection.sql(f"SELECT {sql} FROM {SOURCE} LIMIT 0").types[0].id  # noqa: S608
        chosen["instruction"] = sql if kind in COUNTED else f"CAST({sql} AS VARCHAR)"
    if PAIR in roles:  # as text, so that no pair takes the number of an instruction
        chosen[PAIR] = f"CAST({roles[PAIR]} AS VARCHAR)"
    return ", ".join(f"{sql} AS {quoted(role)}" for role, sql in chosen.items())


def _without_empty(
    connection: Connection, roles: dict[str, str], want: Set[str], where: str
) -> dict[str, str]:
    """Drop the wanted roles that no row has a value for, as a run's gold may be."""
    wanted = [role for role in roles if role in want]
    _, counts = _count_values(connection, [roles[role] for role in wanted], where)
    return {role: sql for role, sql in roles.items() if role not in wanted or counts[sql]}


def _read(
    reader: pa.RecordBatchReader,
    place: str,
    left_out: Counter[str],
    each: Callable[[pa.RecordBatch], pa.RecordBatch],
) -> pa.Table:
    problems = RowProblems()
    rows, batches = 0, []
    for batch in reader:
        rows += len(batch)
        batches.append(each(check_batch(batch, problems, left_out)))
    problems.refuse(InputRefused, place, rows)
    return pa.Table.from_batches(batches).unify_dictionaries() if batches else pa.table({})


def _left_out(connection: Connection, names: Mapping[str, str]) -> tuple[Counter[str], str]:
    """Count a run's rows without numbers by status; the WHERE that leaves them out follows."""
    if any(names.get(name) != quoted(name) for name in ("status", "raw_preference")):
        return Counter(), ""
    counts = connection.sql(
        f"SELECT status, count(*) FROM {SOURCE} WHERE status <> 'ok' GROUP BY 1 ORDER BY 1"  # noqa: S608
    ).fetchall()
    kept = " WHERE coalesce(status, 'ok') = 'ok'"  # rows without a status are of no run
    return Counter({f"status {status}": rows for status, rows in counts}), kept
