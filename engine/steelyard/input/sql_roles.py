"""Roles of a table that DuckDB reads: a column, or an SQL expression over columns, for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from steelyard.errors import InputRefused
from steelyard.input.problems import list_columns, printable
from steelyard.input.roles import COMPARISONS, check_map, example_column, resolve

# What `preference` is made of where no column holds it, in the order in which they are tried.
SOURCES = (("preference",), ("logit",), ("winner",), ("score_a", "score_b"))
_TEXTS = {"model_a", "model_b", "winner", "pair_id"}
_AS_THEY_ARE = {"instruction", "gold"}


def resolve_sql(
    place: str,
    columns: Mapping[str, str],
    column_map: Mapping[str, str],
    need: Sequence[str],
    want: Sequence[str] = (),
) -> dict[str, str]:
    """Return the SQL of each role that is there, and of `preference` by what it is made of.

    Args:
        place: what is read, for messages.
        columns: name -> SQL of the table's columns.
        column_map: role -> column or (expression), as the user gave them.
        need: roles, or names of other columns, that have to be there.
        want: the same, but they may be missing.

    Raises:
        UsageError: an unknown role.
        InputRefused: no column for a role that is needed.
    """
    check_map(column_map, COMPARISONS)
    mapped = next((parts for parts in SOURCES if set(parts) <= column_map.keys()), None)
    sources = (mapped,) if mapped else SOURCES
    asked = {
        role: sources if role == "preference" else ((role,),)
        for role in dict.fromkeys((*need, *want))
    }
    names = {
        part: COMPARISONS.names.get(part, (part,))
        for alternatives in asked.values()
        for parts in alternatives
        for part in parts
    }
    given = {role: column for role, column in column_map.items() if role in names}
    sql = {role: text for role, text in given.items() if _is_expression(text)}
    named = {
        role: name if name in columns else name.removeprefix("metadata.")
        for role, name in given.items()
        if role not in sql
    }
    resolved = resolve(place, columns, named, replace(COMPARISONS, names=names))
    sql = {role: columns[name] for role, name in resolved.items()} | sql
    chosen: dict[str, str] = {}
    for role, alternatives in asked.items():
        made_of = next((parts for parts in alternatives if set(parts) <= sql.keys()), ())
        if not made_of and role in need:
            raise _missing(place, role, columns)
        chosen |= {part: sql[part] for part in made_of}
    return chosen


def _is_expression(text: str) -> bool:
    return text.startswith("(") and text.endswith(")")


def _missing(place: str, role: str, columns: Mapping[str, str]) -> InputRefused:
    if role not in COMPARISONS.names:
        cause = f"there is no column {printable(role)}"
        return InputRefused(cause, place=place, remedy=list_columns(columns))
    parts = [part for parts in SOURCES for part in parts] if role == "preference" else [role]
    looked = [name for part in parts for name in COMPARISONS.names[part]]
    return InputRefused(
        f"no column for {role}; looked for {', '.join(looked)}",
        place=place,
        remedy=f"name it: --map {role}={example_column(role, columns)}; {list_columns(columns)}",
    )


def typed_sql(role: str, sql: str) -> str:
    """Return the role's SQL, cast to what its checks expect."""
    if role not in COMPARISONS.names or role in _AS_THEY_ARE:
        return sql
    return f"CAST({sql} AS {'VARCHAR' if role in _TEXTS else 'DOUBLE'})"


def quoted(name: str) -> str:
    """Return a column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'
