"""Which column plays which role: by its name, or as `--map role=column` says.

A further name for a column is one row of ALIASES. Below it is what the columns of each kind of
table can be, then `resolve`, which finds the column of each role in all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from steelyard.errors import InputRefused, UsageError, close_names, did_you_mean
from steelyard.input.problems import list_columns, printable

# Column names that stand for a role without --map, after the role's own name.
ALIASES: dict[str, tuple[str, ...]] = {
    "instruction": ("prompt", "question"),
    "instruction_id": ("prompt_id",),
    "images": ("image",),
    "response": ("output",),
    "model": ("generator",),
    "gold": ("label",),
    "annotator": ("worker", "rater"),
    "preference": ("raw_preference",),
    "tie": ("raw_tie",),
    "logit": ("score_difference",),
}
# Names of both sides in well-known tables of pairs, looked for where no column has a name above;
# they count together, or not at all.
SIDES: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("response_a", "response_b"): (
        *(("chosen", "rejected"), ("response_j", "response_k")),
        *(("answer_a", "answer_b"), ("output_a", "output_b"), ("completion_a", "completion_b")),
        *(("output_1", "output_2"), ("response_1", "response_2"), ("response1", "response2")),
        *(("response_0", "response_1"), ("answer_0", "answer_1"), ("response_A", "response_B")),
        ("conversation_a", "conversation_b"),
    ),
    ("model_a", "model_b"): (
        *(("generator_1", "generator_2"), ("chosen_model", "rejected_model")),
        *(("model_1", "model_2"), ("generator_a", "generator_b")),
    ),
}
# Of these the first is the better response: gold, if the table has no other.
BETTER = (("chosen", "rejected"), ("response_j", "response_k"))
# What the other roles may be called, too, in tables with such responses.
WITH_SIDES = {
    "instruction": ("query", "input", "context", "conversations", "conversation", "messages"),
    "gold": ("winner",),
}

REQUIRED = ("instruction", "response_a", "response_b")
CONVERSATIONS = ("turns", "turns_a", "turns_b")
MODELS = ("model_a", "model_b")
TEXTS = (*REQUIRED, "system", "reference", "category", *MODELS)
VOTES = ("votes_a", "votes_b", "votes_tie")
LENGTHS = ("length_a", "length_b")
# What prompts are made of.
PROMPT_ROLES = (
    *(*REQUIRED, *CONVERSATIONS, "system", "reference", "images", "criteria", "category"),
    "responses",
)
# Roles of pairs that are looked for only if the protocol asks for them.
SPECIAL = ("turns_a", "turns_b", "criteria", "category")


@dataclass(frozen=True, slots=True)
class Roles:
    """What the columns of one kind of table can be."""

    names: Mapping[str, tuple[str, ...]]  # role -> the column names that stand for it, best first
    required: tuple[str, ...] = ()
    option: str = "--map"  # how users name a role's column
    # Whether a column has one role at most, and two columns for one role are refused; otherwise
    # the first name that is there counts.
    strict: bool = True
    sides: tuple[tuple[str, str], ...] = ()  # those of SIDES that are looked for


def names_of(*roles: str) -> tuple[str, ...]:
    """Return the column names that stand for these roles."""
    return tuple(name for role in roles for name in (role, *ALIASES.get(role, ())))


def _named(*roles: str) -> dict[str, tuple[str, ...]]:
    return {role: names_of(role) for role in roles}


NOT_TEXT = ("gold", *VOTES, *LENGTHS, "preference")  # roles that may be numbers
# Names of columns that are texts where a format has no types, such as CSV, whatever they hold; and
# those among them where an empty text is an answer.
RESPONSE_NAMES = frozenset(names_of("response_a", "response_b", "response"))
TEXT_NAMES = RESPONSE_NAMES | frozenset(
    names_of(*TEXTS, "response", "model", "annotator", "winner", "instruction_id", "pair_id")
)

PAIRS = Roles(
    _named(
        *("pair_id", *REQUIRED, "system", *CONVERSATIONS, "reference", "images", "criteria"),
        *("category", *MODELS, "gold", *VOTES),
    )
    | dict.fromkeys(SPECIAL, ()),
    REQUIRED,
    sides=tuple(SIDES),
)
# Verdicts that were made elsewhere, for an import.
VERDICT_TABLE = Roles(
    _named(
        *("pair_id", *REQUIRED, *MODELS, "gold", *VOTES),
        *("instruction_id", "preference", "winner", *LENGTHS),
    ),
    MODELS,
    sides=tuple(SIDES),
)
# Files of responses, one row per response, and files of instructions.
RESPONSES = Roles(
    {"instruction_id": ("instruction_id",), **_named("instruction", "system", "model", "response")},
    ("instruction", "model", "response"),
)
INSTRUCTIONS = Roles(_named("instruction"), ("instruction",))
# Gold in a separate file. In it and in comparisons, `instruction` is whatever says which rows
# belong together; ids come before texts.
_CLUSTER = names_of("instruction_id", "instruction")
GOLD_FILE = Roles(
    {
        **_named("pair_id", "gold", *VOTES, "annotator", *MODELS),
        "gold": (*names_of("gold"), "winner", "vote"),
        "instruction": _CLUSTER,
    },
    ("pair_id",),
    option="--gold-map",
    strict=False,
)
# Comparisons of any source: what ratings, win rates and evaluations read.
COMPARISONS = Roles(
    {
        **_named(*MODELS, "preference", "logit", "score_a", "score_b", "winner", "tie", "weight"),
        **_named(*LENGTHS, "pair_id", "preference_ab", "preference_ba"),
        **_named("calibrated_preference", "calibrated_tie"),
        "score": (),  # a logit taken as it is, only if --map names it
        "gold": ("gold",),
        "instruction": (*_CLUSTER, "pair_id"),  # votes on one pair belong together
    },
    strict=False,
)


def pair_roles(required: Sequence[str] = REQUIRED, special: Sequence[str] = ()) -> Roles:
    """Return the roles of pairs under a protocol, which asks for `special` ones of SPECIAL."""
    names = {**PAIRS.names, **_named(*special)}
    if "response_b" not in required:
        names["response_a"] = (*names["response_a"], "response")
        names["model_a"] = (*names["model_a"], *names_of("model"))
    return Roles(names, tuple(required), sides=PAIRS.sides)


def is_better_side(role: str, roles: Mapping[str, str]) -> bool:
    """Return whether a role is gold that the names of the responses' columns imply: A is better."""
    return role == "gold" and roles[role] == roles.get("response_a")


def check_map(column_map: Mapping[str, str], roles: Roles) -> None:
    """Refuse what is wrong with a mapping, whatever the table holds.

    Raises:
        UsageError: an unknown role, or one column for two roles.
    """
    taken: dict[str, str] = {}
    for role, column in column_map.items():
        place = f"{roles.option} {printable(role)}={printable(column)}"
        if role not in roles.names:
            known = f"the roles are {', '.join(roles.names)}"
            remedy = did_you_mean(role, roles.names, known)
            raise UsageError(f"unknown role {printable(role)}", place=place, remedy=remedy)
        if roles.strict and column and column in taken:
            raise UsageError(
                f"column {printable(column)} is given to two roles, {taken[column]} and {role}",
                place=place,
                remedy="give each role a separate column",
            )
        taken[column] = role


def resolve(
    place: str, columns: Collection[str], column_map: Mapping[str, str], roles: Roles
) -> dict[str, str]:
    """Return the column of each role that the table fills.

    A column named by --map has that role only, and `--map role=` leaves a role empty: in shards,
    its column becomes metadata. `place` names what has the columns; `check_map` has checked
    `column_map`.

    Raises:
        InputRefused: a mapped column is not there, a required role has no column, or two.
    """
    resolved: dict[str, str] = {}
    mapped = set(column_map.values()) if roles.strict else set()
    known, better = (
        (roles.names, "")
        if not roles.sides
        else _with_sides(place, set(columns) - mapped, column_map, roles)
    )
    for role, names in known.items():
        if role in column_map:
            chosen = [column_map[role]] if column_map[role] else []
            if chosen and chosen[0] not in columns:
                cause = f"there is no column {printable(chosen[0])} for {roles.option} {role}"
                remedy = did_you_mean(chosen[0], columns, list_columns(columns))
                raise _refused(place, cause, remedy)
        else:
            chosen = [name for name in names if name in columns and name not in mapped]
        if len(chosen) > 1 and roles.strict:
            cause = f"{' and '.join(chosen)} are both columns for the {role}"
            raise _refused(place, cause, f"choose one: {roles.option} {role}={chosen[0]}")
        if chosen:
            resolved[role] = chosen[0]
    missing = [role for role in roles.required if role not in resolved]
    if missing:
        raise _refused(place, *_no_column(missing, resolved, columns, column_map, roles))
    _check_gold(place, resolved, roles)
    if better and not {"gold", "votes_a"} & {*resolved, *column_map}:
        resolved["gold"] = better
    return resolved


def _with_sides(
    place: str, columns: Collection[str], column_map: Mapping[str, str], roles: Roles
) -> tuple[dict[str, tuple[str, ...]], str]:
    """Return the names of each role, with those of SIDES that count, and the better side's.

    Raises:
        InputRefused: the columns are those of several pairs of responses.
    """
    names = dict(roles.names)
    better = ""
    for sides in roles.sides:
        pairs = SIDES[sides]
        own = {name for side in sides for name in names.get(side, ())}
        if own & set(columns) or set(sides) & set(column_map):
            continue
        here = [pair for pair in pairs if set(pair) <= set(columns)]
        if len(here) > 1:
            cause = f"{' and '.join(map('/'.join, here))} may both be {' and '.join(sides)}"
            example = " ".join(map(f"{roles.option} {{}}={{}}".format, sides, here[0]))
            raise _refused(place, cause, f"choose one of them: {example}")
        if here:
            names |= {side: (column,) for side, column in zip(sides, here[0], strict=True)}
        if here and sides[0] == "response_a":
            better = here[0][0] if here[0] in BETTER else ""
            taken = {name for others in names.values() for name in others}
            for role, others in WITH_SIDES.items():
                if not set(names.get(role, ())) & set(columns):
                    free = [name for name in others if name in columns and name not in taken]
                    names[role] = tuple(free[:1]) or names[role]
    return names, better


def _no_column(
    missing: Sequence[str],
    resolved: Mapping[str, str],
    columns: Collection[str],
    column_map: Mapping[str, str],
    roles: Roles,
) -> tuple[str, str]:
    """Return cause and remedy."""
    role = missing[0]
    emptied = f" ({roles.option} leaves it empty)" if role in column_map else ""
    example = example_column(role, [x for x in columns if x not in resolved.values()])
    looked = _join(roles.names[role], "or")
    given = {column: other for other, column in column_map.items() if other != role}
    if taken := next((name for name in roles.names[role] if name in columns and name in given), ""):
        return (
            f"no column is left for {_join(missing, 'and')}: {roles.option}"
            f" {given[taken]}={taken} takes {taken}",
            f"name another column for one of the two: {roles.option} {role}={example}",
        )
    return (
        f"no column for {_join(missing, 'and')}{emptied}; looked for {looked}",
        f"{'give --criteria FILE for all rows, or ' if role == 'criteria' else ''}"
        f"name it: {roles.option} {role}={example}; {list_columns(columns)}",
    )


def example_column(role: str, columns: Collection[str]) -> str:
    """Return the column whose name is most like the role's, for a remedy; else `COLUMN`."""
    near = close_names(role, columns, count=1)
    return printable(near[0]) if near else "COLUMN"


def _check_gold(place: str, resolved: Mapping[str, str], roles: Roles) -> None:
    votes = [role for role in VOTES if role in resolved]
    if not votes or ("gold" in resolved and not roles.strict):
        return
    first = printable(resolved[votes[0]])
    if "gold" in resolved:
        raise _refused(
            place,
            f"{printable(resolved['gold'])} and {first} are both columns for the gold",
            f"keep the votes with {roles.option} gold=, or the other with: "
            f"{' '.join(f'{roles.option} {role}=' for role in votes)}",
        )
    missing = [role for role in VOTES[:2] if role not in resolved]
    if missing:
        raise _refused(
            place,
            f"{first} has no counterpart: no column for {_join(missing, 'and')}",
            f"name it: {roles.option} {missing[0]}=COLUMN,"
            f" or leave votes out with {roles.option} {votes[0]}=",
        )


def _join(words: Sequence[str], last: str) -> str:
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _refused(place: str, cause: str, remedy: str) -> InputRefused:
    return InputRefused(cause, place=place, remedy=remedy)
