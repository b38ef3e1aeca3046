"""Which column plays which role: by name, or as `--map role=column` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from steelyard.errors import UsageError
from steelyard.input.problems import InputProblem, InputProblemError, printable

REQUIRED = ("instruction", "response_a", "response_b")
TEXTS = (*REQUIRED, "system", "reference", "category", "model_a", "model_b")
CONVERSATIONS = ("turns", "turns_a", "turns_b")
# What prompts are made of.
PROMPT_ROLES = (*REQUIRED, *CONVERSATIONS, "system", "reference", "images", "criteria", "category")
VOTES = ("votes_a", "votes_b", "votes_tie")
# Every role, with the column names that stand for it without --map. Those of SPECIAL are looked
# for only if the protocol asks for them.
NAMES: dict[str, tuple[str, ...]] = {
    "pair_id": ("pair_id",),
    "instruction": ("instruction", "prompt", "question"),
    "response_a": ("response_a",),
    "response_b": ("response_b",),
    "system": ("system",),
    "turns": ("turns",),
    "turns_a": ("turns_a",),
    "turns_b": ("turns_b",),
    "reference": ("reference",),
    "images": ("images", "image"),
    "criteria": ("criteria",),
    "category": ("category",),
    "model_a": ("model_a",),
    "model_b": ("model_b",),
    "gold": ("gold", "label"),
    "votes_a": ("votes_a",),
    "votes_b": ("votes_b",),
    "votes_tie": ("votes_tie",),
}
SPECIAL = ("turns_a", "turns_b", "criteria", "category")
# A response alone may stand in a column of this name.
ALONE = "response"


@dataclass(frozen=True, slots=True)
class Roles:
    """What the columns of a kind of table can be."""

    names: Mapping[str, tuple[str, ...]]  # role -> the column names that stand for it
    required: tuple[str, ...]


def pair_roles(required: Sequence[str] = REQUIRED, special: Sequence[str] = ()) -> Roles:
    """The roles of pairs under a protocol.

    Args:
        required: that every row has to fill.
        special: of SPECIAL, those that are looked for beside the usual ones.
    """
    names = NAMES | {role: () for role in SPECIAL if role not in special}
    if "response_b" not in required:
        names["response_a"] = (*names["response_a"], ALONE)
    return Roles(names, tuple(required))


PAIRS = pair_roles()


def check_map(column_map: Mapping[str, str], wanted: Roles = PAIRS) -> None:
    """Refuse what is wrong with a mapping whatever the shards hold.

    Raises:
        UsageError: an unknown role, or one column for two roles.
    """
    for role in column_map:
        if role not in wanted.names:
            near = get_close_matches(role, wanted.names, n=2) or list(wanted.names)
            known = " or ".join(filter(None, [", ".join(near[:-1]), near[-1]]))
            raise UsageError(
                f"unknown role {printable(role)}",
                place=f"--map {printable(role)}={printable(column_map[role])}",
                remedy=f"use {known}",
            )
    taken: dict[str, str] = {}
    for role, column in column_map.items():
        if column and column in taken:
            raise UsageError(
                f"column {printable(column)} is given to two roles, {taken[column]} and {role}",
                place=f"--map {role}={printable(column)}",
                remedy="give each role a column of its own",
            )
        taken[column] = role


def assign(
    place: str, columns: Sequence[str], column_map: Mapping[str, str], wanted: Roles = PAIRS
) -> dict[str, str]:
    """The column of each role that the shards fill.

    A column named by --map has that role only, and `--map role=` leaves a role empty: its column
    becomes metadata.

    Args:
        place: the shard that has these columns.
        columns: all of its column names.
        column_map: role -> column, as the user gave it; checked by `check_map`.
        wanted: which roles there are.

    Raises:
        InputProblemError: a mapped column is not there, a required role has no column, or two.
    """
    roles: dict[str, str] = {}
    mapped = set(column_map.values())
    for role, names in wanted.names.items():
        if role in column_map:
            chosen = [column_map[role]] if column_map[role] else []
            _check_present(place, role, chosen, columns)
        else:
            chosen = [name for name in names if name in columns and name not in mapped]
        if len(chosen) > 1:
            raise _refused(
                place,
                f"{' and '.join(chosen)} are both columns for the {role}",
                f"say which one: --map {role}={chosen[0]}",
            )
        if chosen:
            roles[role] = chosen[0]
    _check_required(place, roles, columns, column_map, wanted)
    _check_gold(place, roles)
    return roles


def _check_present(place: str, role: str, chosen: list[str], columns: Sequence[str]) -> None:
    for column in chosen:
        if column not in columns:
            near = get_close_matches(column, columns, n=2)
            raise _refused(
                place,
                f"there is no column {printable(column)} for --map {role}",
                f"did you mean {' or '.join(map(printable, near))}?" if near else _listing(columns),
            )


def _check_required(
    place: str,
    roles: Mapping[str, str],
    columns: Sequence[str],
    column_map: Mapping[str, str],
    known: Roles,
) -> None:
    missing = [role for role in known.required if role not in roles]
    if not missing:
        return
    role = missing[0]
    wanted = " or ".join(known.names[role])
    free = [column for column in columns if column not in roles.values()]
    folded = {column.casefold(): column for column in free}
    near = [folded[name] for name in get_close_matches(role, folded, n=1, cutoff=0.5)]
    example = printable(near[0]) if near else "COLUMN"
    emptied = " (--map leaves it empty)" if role in column_map else ""
    raise _refused(
        place,
        f"no column for {_and(missing)}{emptied}; looked for {wanted}",
        f"name it: --map {role}={example}; {_listing(columns)}",
    )


def _check_gold(place: str, roles: Mapping[str, str]) -> None:
    votes = [role for role in VOTES if role in roles]
    if "gold" in roles and votes:
        raise _refused(
            place,
            f"{printable(roles['gold'])} and {printable(roles[votes[0]])} are both columns"
            " for the gold",
            f"keep the votes with --map gold=, or the other with: "
            f"{' '.join(f'--map {role}=' for role in votes)}",
        )
    missing = [role for role in VOTES[:2] if role not in roles]
    if votes and missing:
        raise _refused(
            place,
            f"{printable(roles[votes[0]])} has no counterpart: no column for {_and(missing)}",
            f"name it: --map {missing[0]}=COLUMN, or leave votes out with --map {votes[0]}=",
        )


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _listing(columns: Sequence[str]) -> str:
    shown = ", ".join(printable(column) for column in columns[:12])
    return f"the columns are {shown}" + (", ..." if columns[12:] else "")


def _refused(place: str, cause: str, remedy: str) -> InputProblemError:
    return InputProblemError(InputProblem(printable(place), cause, remedy))
