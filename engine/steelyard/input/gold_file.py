"""Gold in a separate file: labels, votes or probabilities by pair_id, annotators kept apart.

`roles.GOLD_FILE` says which columns are what. In place of gold there may be votes for a, b and
ties; with an annotator, a row is the label of that annotator, and a pair has several rows; the
instruction is the cluster; models are compared with those of the judged pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.core.arrow import to_ints, to_mask, votes_of
from steelyard.core.schemas import Bool, Float64, Int64
from steelyard.errors import GoldRefused, escape
from steelyard.input.problems import Reason, RowProblems, list_columns, raised_as
from steelyard.input.role_types import absent, role_type
from steelyard.input.roles import GOLD_FILE, MODELS, VOTES, check_map, resolve
from steelyard.input.rows import find_invalid_utf8
from steelyard.input.schema import unusable_column
from steelyard.input.tables import open_table
from steelyard.input.types import UnsupportedError, cast
from steelyard.input.votes import read_gold

_REMEDY = "correct the rows; labels are A, B and tie, numbers P(a), votes at least 0"
_REPEATED = (
    "keep one row per pair, or name the column of annotators, so that their rows are votes:"
    " --gold-map annotator=COLUMN"
)
_OTHER_GOLD = ", or name another column: --gold-map gold=COLUMN"
_OPTIONAL = {"instruction", *MODELS}  # roles that some of several files may lack
_SEPARATOR = "\x1f"  # between a pair's id and its annotator


@dataclass(frozen=True, slots=True)
class Annotations:
    """Single annotators' votes, m of them: on which pair, by whom, for what."""

    pairs: Int64  # m, positions in GoldFile.pair_ids
    annotators: Int64  # m, positions in `names`
    classes: Int64  # m: 0 a, 1 b, 2 tie
    names: tuple[str, ...]

    def moved(self, positions: Int64) -> Annotations:
        """Return the votes on pairs that have other positions now, m of them; -1: left out."""
        kept = positions >= 0
        return Annotations(positions[kept], self.annotators[kept], self.classes[kept], self.names)


@dataclass(frozen=True, slots=True)
class GoldFile:
    """Gold of n pairs; annotators' votes are added up in `votes` and also kept apart."""

    pair_ids: pa.Array  # n strings, unique
    votes: Float64  # n x 3: for a, for b, for a tie; sums are positive
    columns: dict[str, pa.Array] = field(default_factory=dict)  # instruction, and what was wanted
    models: dict[str, pa.Array] = field(default_factory=dict)  # model_a and model_b, or nothing
    annotations: Annotations | None = None
    unlabelled: int = 0  # rows without gold, left out


def read_gold_file(
    path: Path, columns: Mapping[str, str] | None = None, want: Sequence[str] = ()
) -> GoldFile:
    """Read and check a gold file: Parquet, a folder or a pattern of it.

    `columns` gives role -> column where names differ; `want` are further columns to take along.

    Raises:
        UsageError: there is no such role.
        GoldRefused: the file or rows of it cannot be used, all reasons at once, with counts.
    """
    rows = _read(path, columns or {}, want)
    count = len(rows.table)
    problems = RowProblems(np.arange(count))
    find_invalid_utf8(((rows.roles[role], x) for role, x in rows.columns.items()), problems)
    problems.refuse(GoldRefused, str(path), count)  # what follows reads texts as UTF-8
    gold = read_gold(rows.columns, rows.roles, problems, _REMEDY)
    _check_agreement(rows, gold, problems)
    labelled = to_mask(gold.is_valid())
    _check_pairs(rows, labelled, problems)
    problems.refuse(GoldRefused, str(path), count)
    if not labelled.any():
        remedy = "name the column with --gold-map gold=COLUMN"
        raise GoldRefused(f"none of {count:,} rows has gold", place=str(path), remedy=remedy)
    return _grouped(rows, votes_of(gold.filter(pa.array(labelled))), labelled, want)


@dataclass(frozen=True, slots=True)
class _Rows:
    table: pa.Table  # as the file has it
    roles: dict[str, str]
    columns: dict[str, pa.Array]  # role -> values in its type, of all roles but the instruction

    @property
    def models(self) -> dict[str, pa.Array]:
        """The models' names, if gold has both."""
        return {x: self.columns[x] for x in MODELS} if set(MODELS) <= self.columns.keys() else {}


def _read(path: Path, columns: Mapping[str, str], want: Sequence[str]) -> _Rows:
    data = open_table(path, GoldRefused)
    names = data.names
    roles = _resolve(str(path), names, columns)
    with raised_as(GoldRefused):
        data.require_same(roles, lambda place, own: _resolve(place, own, columns), _OPTIONAL)
        if "gold" in roles:
            data.require_gold(roles["gold"], _OTHER_GOLD)
    chosen = dict.fromkeys([*roles.values(), *(name for name in want if name in names)])
    try:
        with data.reading(GoldRefused):
            table = data.data.to_table(columns=list(chosen)).combine_chunks()
    except pa.ArrowException as error:
        cause = f"the data cannot be read: {escape(error, 200)}"
        raise GoldRefused(cause, place=str(path), remedy="write the file again") from None
    with raised_as(GoldRefused):
        values = {
            role: _column(table[name], role, name, str(path))
            for role, name in roles.items()
            if role != "instruction"
        }
    return _Rows(table, roles, values)


def _resolve(place: str, names: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return the column of each role; votes take precedence over gold, if they agree."""
    check_map(columns, GOLD_FILE)
    with raised_as(GoldRefused):
        roles = resolve(place, names, columns, GOLD_FILE)
    unused = () if {"votes_a", "votes_b"} <= roles.keys() else VOTES
    roles = {role: name for role, name in roles.items() if role not in unused}
    if not {"gold", "votes_a"} & roles.keys():
        raise GoldRefused(
            f"no column for gold; looked for {', '.join(GOLD_FILE.names['gold'])}, or votes_a and"
            " votes_b",
            place=place,
            remedy=f"name it: --gold-map gold=COLUMN; {list_columns(names)}",
        )
    return roles


def _column(values: pa.ChunkedArray, role: str, name: str, place: str) -> pa.Array:
    whole = values.combine_chunks()
    try:
        kind = role_type(role, whole.type)
    except UnsupportedError as error:
        other = f", or name another column: --gold-map {role}=COLUMN"
        column = pa.field(name, whole.type)
        raise unusable_column(place, column, role, error, other) from None
    return absent(role, len(whole)) if pt.is_null(kind) else cast(whole, kind)


def _check_pairs(rows: _Rows, labelled: Bool, problems: RowProblems) -> None:
    """Note labelled rows without a pair, and those that contradict others of their pair."""
    ids, annotators = rows.columns["pair_id"], rows.columns.get("annotator")
    nameless = labelled & to_mask(ids.is_null())
    problems.add(nameless, Reason.NULL, "there is no pair_id", remedy="give each row its pair_id")
    keys, whose, remedy = ids, "", _REPEATED
    if annotators is not None:
        keys = pc.binary_join_element_wise(ids, annotators.fill_null(""), _SEPARATOR)
        whose, remedy = " by the same annotator", "keep one row per pair and annotator"
    problems.add(
        labelled & to_mask(pc.is_in(keys, value_set=_repeated(keys.filter(pa.array(labelled))))),
        Reason.GOLD,
        f"the pair_id is in several rows{whose}",
        lambda row: keys[row].as_py().replace(_SEPARATOR, " by "),
        remedy,
    )
    if rows.models:
        named = pa.table({"pair_id": ids, **rows.models}).filter(pa.array(labelled)).drop_null()
        distinct = named.group_by(named.column_names).aggregate([])["pair_id"]
        problems.add(
            labelled & to_mask(pc.is_in(ids, value_set=_repeated(distinct))),
            Reason.GOLD,
            "rows of the pair name different models",
            lambda row: ids[row],
            "name the same models in all rows of a pair",
        )


def _check_agreement(rows: _Rows, votes: pa.StructArray, problems: RowProblems) -> None:
    """Note rows whose label names another side than most of their votes."""
    if not {"gold", "votes_a"} <= rows.columns.keys():
        return
    label = read_gold({"gold": rows.columns["gold"]}, rows.roles, problems, _REMEDY)
    differs = _sides(votes) != _sides(label)
    problems.add(
        differs & to_mask(votes.is_valid()) & to_mask(label.is_valid()),
        Reason.GOLD,
        "the label and the votes name different sides",
        lambda row: f"{rows.columns['gold'][row]}, {_shown(votes[row].as_py())}",
        "correct these rows, or read one of the two: --gold-map votes_a=, or --gold-map gold=",
    )


def _shown(votes: Mapping[str, float]) -> str:
    return " ".join(f"{side}={count:g}" for side, count in votes.items())


def _sides(gold: pa.StructArray) -> Int64:
    """Return what each row's gold is for: 1 a, 2 b, 4 a tie, also where two share the lead."""
    votes = np.nan_to_num(votes_of(gold))
    leaders = (votes == votes.max(axis=1, keepdims=True, initial=0)) @ np.array([1, 2, 4])
    return np.where(np.isin(leaders, (1, 2)), leaders, 4)


def _repeated(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the values that occur more than once."""
    counts = pc.value_counts(values.drop_null())
    return counts.filter(pc.greater(counts.field("counts"), 1)).field("values")


def _grouped(rows: _Rows, votes: Float64, labelled: Bool, want: Sequence[str]) -> GoldFile:
    """Add up the rows of each pair; `votes` (k x 3) are those of the k rows that have gold."""
    keep = pa.array(labelled)
    coded = rows.columns["pair_id"].filter(keep).dictionary_encode()
    pair_of = to_ints(coded.indices)
    pairs = len(coded.dictionary)
    sums = np.stack([np.bincount(pair_of, weights=x, minlength=pairs) for x in votes.T], axis=1)
    first = np.zeros(pairs, dtype=np.int64)
    first[pair_of[::-1]] = np.arange(len(pair_of))[::-1]
    first_rows = pa.array(np.flatnonzero(labelled)[first])
    taken = {name: name for name in want if name in rows.table.column_names}
    if "instruction" in rows.roles:
        taken["instruction"] = rows.roles["instruction"]
    annotations = None
    if (annotators := rows.columns.get("annotator")) is not None:
        who = annotators.filter(keep).fill_null("").dictionary_encode()
        names = tuple(who.dictionary.to_pylist())
        classes = votes.argmax(axis=1).astype(np.int64)
        annotations = Annotations(pair_of, to_ints(who.indices), classes, names)
    return GoldFile(
        coded.dictionary,
        np.asarray(sums, np.float64),
        {name: rows.table[column].take(first_rows) for name, column in taken.items()},
        {name: texts.take(first_rows) for name, texts in rows.models.items()},
        annotations,
        int((~labelled).sum()),
    )
