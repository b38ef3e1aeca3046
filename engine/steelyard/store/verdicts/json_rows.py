"""Rows of a query as values that JSON has, whatever DuckDB's types are.

Booleans, integers of any width, floats and texts are what they are, and bytes stay bytes. Decimals
become texts that keep their digits, times ISO 8601 with all digits (or DuckDB's own words, such as
`infinity`), maps lists of pairs, and all other types DuckDB's text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from steelyard.input.sql_roles import quoted
from steelyard.store.sql import Connection, Relation, Type

BATCH = 1000  # rows
HELD = "MATERIALIZED_RELATION"  # DuckDB's name of a result that is there already
_INTEGERS = ("tinyint", "smallint", "integer", "bigint", "hugeint")
_AS_THEY_ARE = {
    *("null", "boolean", "float", "double", "varchar", "blob"),
    *_INTEGERS,
    *(f"u{name}" for name in _INTEGERS),
}
_TIME = re.compile(
    r"(?:(?P<day>\S+) )?(?P<time>\d\d:\d\d:\d\d)(?P<fraction>\.\d+)?(?P<zone>[+-][\d:]+)?"
)
Children: TypeAlias = list[tuple[str, Type]]  # of a type, by name
# A value in SQL, and what is done to it in Python; None: nothing.
_Form: TypeAlias = tuple[str, Callable[[Any], Any] | None]


def json_rows(connection: Connection, relation: Relation) -> Iterator[dict[str, Any]]:
    """Yield the rows of a relation of a connection; a repeated column name gets a number.

    Raises:
        DuckDBError: the query fails.
    """
    names = distinct(relation.columns)
    forms = [_form(f"(#{n})", kind) for n, kind in enumerate(relation.types, 1)]
    chosen = ", ".join(f"{sql} AS c{n}" for n, (sql, _) in enumerate(forms))
    for row in _stream(connection, relation.project(chosen), held=relation.type == HELD):
        yield {
            name: value if decode is None else decode(value)
            for name, value, (_, decode) in zip(names, row, forms, strict=True)
        }


def _stream(connection: Connection, relation: Relation, *, held: bool) -> Iterator[tuple[Any, ...]]:
    if held:  # such as of EXPLAIN
        yield from relation.fetchall()
        return
    result = connection.execute(relation.sql_query())
    while rows := result.fetchmany(BATCH):
        yield from rows


def distinct(columns: list[str]) -> list[str]:
    """Return names of columns of which none is repeated: x, x becomes x, x_2."""
    seen: dict[str, int] = {}
    names = []
    for name in columns:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def _form(sql: str, kind: Type, depth: int = 0) -> _Form:
    """Return how an expression of a type is selected, and what its values become."""
    if kind.id in _AS_THEY_ARE:
        return sql, None
    if kind.id in _NESTED:
        return _NESTED[kind.id](sql, kind.children, depth)
    decode = int if kind.id == "bignum" else _iso if kind.id.startswith(("date", "time")) else None
    return f"CAST({sql} AS VARCHAR)", decode and _or_none(decode)


def _list(sql: str, children: Children, depth: int) -> _Form:
    child = dict(children)["child"]
    sql = f"CAST({sql} AS {child}[])" if len(children) > 1 else sql  # an array has a size
    element, decode = _form(f"x{depth}", child, depth + 1)
    if element != f"x{depth}":
        sql = f"list_transform({sql}, lambda x{depth}: {element})"
    if decode is None:
        return sql, None
    return sql, _or_none(lambda values: [decode(value) for value in values])


def _map(sql: str, children: Children, depth: int) -> _Form:
    entry = f"x{depth}"
    forms = [_form(f"{entry}.{name}", child, depth + 1) for name, child in children]
    pair = ", ".join(f"{name} := {form[0]}" for name, form in zip("kv", forms, strict=True))
    (_, key), (_, value) = forms

    def decode(entries: list[dict[str, Any]]) -> list[list[Any]]:
        return [
            [key(item["k"]) if key else item["k"], value(item["v"]) if value else item["v"]]
            for item in entries
        ]

    query = f"list_transform(map_entries({sql}), lambda {entry}: struct_pack({pair}))"
    return query, _or_none(decode)


def _struct(sql: str, children: Children, depth: int) -> _Form:
    """Return the form of a struct: an object, or a list where its fields have no names."""
    named = all(name for name, _ in children)
    forms = [
        _form(f"{sql}.{quoted(name)}" if named else f"{sql}[{n}]", child, depth)
        for n, (name, child) in enumerate(children, 1)
    ]
    fields = ", ".join(f"f{n} := {field}" for n, (field, _) in enumerate(forms))

    def decode(values: dict[str, Any]) -> dict[str, Any] | list[Any]:
        items = [
            value if inner is None else inner(value)
            for value, (_, inner) in zip(values.values(), forms, strict=True)
        ]
        if not named:
            return items
        return {name: item for (name, _), item in zip(children, items, strict=True)}

    query = f"CASE WHEN {sql} IS NOT NULL THEN struct_pack({fields}) END"
    return query, _or_none(decode)


_NESTED: dict[str, Callable[[str, Children, int], _Form]] = {
    **dict.fromkeys(("list", "array"), _list),
    **dict.fromkeys(("struct", "tuple"), _struct),
    "map": _map,
}


def _or_none(decode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else decode(value)


def _iso(text: str) -> str:
    """Return DuckDB's text of a time as Python would write it, if Python has such a time."""
    parts = _TIME.fullmatch(text)
    if parts is None:
        return text
    day = f"{parts['day']}T" if parts["day"] else ""
    fraction = parts["fraction"].ljust(7, "0") if parts["fraction"] else ""
    zone = parts["zone"] or ""
    zone += ":00" if len(zone) == len("+00") else ""
    return f"{day}{parts['time']}{fraction}{zone}"
