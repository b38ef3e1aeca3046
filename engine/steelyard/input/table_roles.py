"""Which column, or expression over columns, fills which role of a table of comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from steelyard.errors import UsageError, escape

# Roles with the column names that stand for them without --map, the first that is there.
ROLES: dict[str, tuple[str, ...]] = {
    "model_a": ("model_a",),
    "model_b": ("model_b",),
    "preference": ("preference", "raw_preference"),
    "logit": ("logit", "score_difference"),
    "score": (),  # a logit taken as it is, only where --map names it
    "score_a": ("score_a",),
    "score_b": ("score_b",),
    "winner": ("winner",),
    "tie": ("tie", "raw_tie"),
    # Ids go before texts, as at an import; without either, votes on one pair belong together.
    "instruction": ("instruction_id", "prompt_id", "instruction", "prompt", "question", "pair_id"),
    "weight": ("weight",),
    "length_a": ("length_a",),
    "length_b": ("length_b",),
    "pair_id": ("pair_id",),
    "gold": ("gold",),
    "preference_ab": ("preference_ab",),
    "preference_ba": ("preference_ba",),
    "calibrated_preference": ("calibrated_preference",),
    "calibrated_tie": ("calibrated_tie",),
}
# What `preference` is made of where no column holds it, in the order in which they are tried.
SOURCES = (("preference",), ("logit",), ("winner",), ("score_a", "score_b"))
NUMBERS = {
    "preference", "logit", "score", "score_a", "score_b", "tie", "weight", "length_a", "length_b",
    "preference_ab", "preference_ba", "calibrated_preference", "calibrated_tie",
}  # fmt: skip
TEXTS = {"model_a", "model_b", "winner", "pair_id"}


def assign(
    place: str,
    names: Sequence[str],
    columns: Mapping[str, str],
    need: Sequence[str],
    want: Sequence[str] = (),
) -> dict[str, str]:
    """The SQL of each role that is asked for and there, `preference` by what it is made of.

    Args:
        place: what is read, for messages.
        names: the source's columns; fields of metadata as `metadata.name`.
        columns: role -> column or (expression), as the user gave them.
        need: roles or columns that have to be there.
        want: roles that may be missing.

    Raises:
        UsageError: an unknown role, or no column for one that is needed.
    """
    for role in columns:
        if role not in ROLES:
            near = get_close_matches(role, ROLES, n=2) or list(ROLES)
            raise UsageError(
                f"unknown role {escape(role)}",
                place=f"--map {escape(role)}={escape(columns[role])}",
                remedy=f"use {' or '.join(near) if len(near) < 3 else ', '.join(near)}",
            )
    made = next((one for one in SOURCES if set(one) <= columns.keys()), None)
    chosen: dict[str, str] = {}
    for role in dict.fromkeys((*need, *want)):
        tried = (made,) if made else SOURCES
        for parts in tried if role == "preference" else ((role,),):
            found = {part: _find(place, part, names, columns) for part in parts}
            if all(found.values()):
                chosen |= {part: sql for part, sql in found.items() if sql}
                break
        else:
            if role in need:
                raise _missing(place, role, names)
    return chosen


def expression(role: str, roles: Mapping[str, str]) -> str:
    """The role's SQL, cast to what its checks expect."""
    sql = roles[role]
    if role in NUMBERS:
        return f"CAST({sql} AS DOUBLE)"
    if role in TEXTS:
        return f"CAST({sql} AS VARCHAR)"
    return sql


def cluster_columns(
    place: str, names: Sequence[str], columns: Mapping[str, str]
) -> tuple[list[str], str | None]:
    """SQL of the columns that can say which instruction a row is of, and of the pair's id.

    Args:
        place: what is read, for messages.
        names: the source's columns.
        columns: role -> column or (expression), as the user gave them.

    Returns:
        Those of instructions, in order of preference, and the pair's, which stands in for them.
    """
    found = (_column(name, names) for name in ROLES["instruction"] if name != "pair_id")
    own = [quoted(name) for name in found if name is not None]
    return own, _find(place, "pair_id", names, columns)


def quoted(name: str) -> str:
    """A column's name in SQL; `metadata.name` is a field."""
    if name.startswith("metadata."):
        return 'metadata."' + name.removeprefix("metadata.").replace('"', '""') + '"'
    return '"' + name.replace('"', '""') + '"'


def _find(place: str, role: str, names: Sequence[str], columns: Mapping[str, str]) -> str | None:
    given = columns.get(role)
    if given == "":
        return None
    if given is not None and given.startswith("(") and given.endswith(")"):
        return given
    if given is not None and _column(given, names) is None:
        near = get_close_matches(given, names, n=2)
        raise UsageError(
            f"there is no column {escape(given)} for --map {role}",
            place=place,
            remedy=f"did you mean {' or '.join(near)}?" if near else listing(names),
        )
    for name in (given,) if given is not None else ROLES.get(role, (role,)):
        column = _column(name, names)
        if column is not None:
            return quoted(column)
    return None


def _column(name: str, names: Sequence[str]) -> str | None:
    """The column of that name, or the field of metadata."""
    return next((one for one in (name, f"metadata.{name}") if one in names), None)


def _missing(place: str, role: str, names: Sequence[str]) -> UsageError:
    if role not in ROLES:
        return UsageError(f"there is no column {escape(role)}", place=place, remedy=listing(names))
    looked = [*ROLES[role]]
    if role == "preference":
        looked += [name for parts in SOURCES[1:] for part in parts for name in ROLES[part]]
    return UsageError(
        f"no column for {role}; looked for {', '.join(looked)}",
        place=place,
        remedy=f"name it: --map {role}=COLUMN; {listing(names)}",
    )


def listing(names: Sequence[str]) -> str:
    """The columns, for a remedy."""
    shown = ", ".join(escape(name) for name in names[:16])
    return f"the columns are {shown}" + (", ..." if names[16:] else "")
