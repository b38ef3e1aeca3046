"""Gold of its own file: labels, votes or probabilities by pair_id, annotators kept apart.

| role | columns that stand for it | what |
|---|---|---|
| pair_id | pair_id | text or whole number |
| gold | gold, label, winner, vote | A, B, tie; or P(a) as a floating-point number |
| votes_a, votes_b, votes_tie | the same | counts or weights, in place of gold |
| annotator | annotator, worker, rater | who: a row is then one annotator's, a pair has several |
| instruction | instruction_id, instruction, prompt_id, prompt, question | the cluster |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.types as pt

from steelyard.errors import GoldRefused, UsageError, escape
from steelyard.records import Bool, Float64, Int64
from steelyard.shards import discover
from steelyard.shards.columns import is_text
from steelyard.shards.findings import Findings
from steelyard.shards.gold import read_gold

ROLES: dict[str, tuple[str, ...]] = {
    "pair_id": ("pair_id",),
    "gold": ("gold", "label", "winner", "vote"),
    "votes_a": ("votes_a",),
    "votes_b": ("votes_b",),
    "votes_tie": ("votes_tie",),
    "annotator": ("annotator", "worker", "rater"),
    "instruction": ("instruction_id", "instruction", "prompt_id", "prompt", "question"),
}
VOTES = ("votes_a", "votes_b", "votes_tie")


@dataclass(frozen=True, slots=True)
class Annotations:
    """Single annotators' votes, m of them: on which pair, by whom, for what."""

    pairs: Int64  # m, places in GoldFile.pair_ids
    annotators: Int64  # m, places in `names`
    classes: Int64  # m: 0 a, 1 b, 2 tie
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GoldFile:
    """Gold of n pairs; annotators' votes are added up in `votes` and stand apart as well."""

    pair_ids: pa.Array  # n strings, unique
    votes: Float64  # n x 3: for a, for b, for a tie; sums are positive
    columns: dict[str, pa.Array] = field(default_factory=dict)  # instruction, and what was wanted
    annotations: Annotations | None = None
    unlabelled: int = 0  # rows without gold, left out


def read_gold_file(
    path: Path, columns: Mapping[str, str] | None = None, want: Sequence[str] = ()
) -> GoldFile:
    """Read and check a gold file: Parquet, a folder or a pattern of it.

    Args:
        path: where.
        columns: role -> column where names differ.
        want: further columns to take along where they are there.

    Raises:
        UsageError: there is no such file, column or role.
        GoldRefused: rows that cannot be used, all reasons at once, with counts.
    """
    rows = _read(path, columns or {}, want)
    votes, labelled, problems = _votes(rows.table, rows.roles)
    problems += _identity_problems(rows.ids, rows.annotators, labelled)
    if problems:
        raise GoldRefused(
            "\n    ".join([f"{len(rows.table):,} rows of gold, of which", *problems]),
            place=str(path),
            effect="nothing was computed",
            remedy="correct the rows; labels are A, B and tie, numbers P(a), votes at least 0",
        )
    if not labelled.any():
        raise GoldRefused(
            f"none of {len(rows.table):,} rows has gold",
            place=str(path),
            remedy="name the column with --gold-map gold=COLUMN",
        )
    return _grouped(rows, votes, labelled, want)


@dataclass(frozen=True, slots=True)
class _Rows:
    table: pa.Table
    roles: dict[str, str]
    ids: pa.Array
    annotators: pa.Array | None


def _read(path: Path, columns: Mapping[str, str], want: Sequence[str]) -> _Rows:
    files = [source.path for source in discover([path])]
    try:
        data = ds.dataset(files, format="parquet")
        roles = _assign(str(path), data.schema.names, columns)
        chosen = dict.fromkeys([*roles.values(), *(n for n in want if n in data.schema.names)])
        table = data.to_table(columns=list(chosen)).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise GoldRefused(
            f"this is no Parquet that can be read: {escape(error, 200)}",
            place=str(path),
            remedy="give gold as Parquet with pair_id and gold, label or votes",
        ) from None

    named = [_texts(table, roles[role]) for role in ("pair_id", "annotator") if role in roles]
    return _Rows(table, roles, named[0], named[1] if len(named) > 1 else None)


def _assign(place: str, names: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    for role, column in columns.items():
        if role not in ROLES or (column and column not in names):
            raise UsageError(
                f"--gold-map {escape(role)}={escape(column)}: "
                + ("there is no such column" if role in ROLES else "there is no such role"),
                place=place,
                remedy=f"roles: {', '.join(ROLES)}; columns: {', '.join(map(escape, names))}",
            )
    tried = {role: (columns[role],) if role in columns else known for role, known in ROLES.items()}
    roles = {
        role: column
        for role, known in tried.items()
        if (column := next((one for one in known if one in names), ""))
    }
    if {"votes_a", "votes_b"} <= roles.keys():
        roles.pop("gold", None)
    if "pair_id" not in roles or not {"gold", "votes_a"} & roles.keys():
        missing = "pair_id" if "pair_id" not in roles else "gold (or votes_a and votes_b)"
        raise UsageError(
            f"gold has no column for {missing}",
            place=place,
            remedy=f"--gold-map ROLE=COLUMN; columns: {', '.join(map(escape, names))}",
        )
    return roles


def _texts(table: pa.Table, name: str) -> pa.Array:
    return pa.concat_arrays(table[name].chunks or [pa.array([], pa.string())]).cast(pa.string())


def _votes(table: pa.Table, roles: Mapping[str, str]) -> tuple[Float64, Bool, list[str]]:
    """Votes of each row, which rows have any, and what is wrong with the others."""
    findings = Findings()
    taken = VOTES if "gold" not in roles else ("gold",)
    values = {}
    for role in (role for role in taken if role in roles):
        column = pa.concat_arrays(table[roles[role]].chunks or [pa.array([], pa.string())])
        if role == "gold" and is_text(column.type):
            values[role] = column.cast(pa.string())
        elif role != "gold" or pt.is_floating(column.type):
            values[role] = column.cast(pa.float64())
        elif pt.is_struct(column.type) or pt.is_null(column.type):
            values[role] = column if pt.is_struct(column.type) else column.cast(pa.string())
        else:
            raise UsageError(
                f"gold in {escape(roles[role])} is {column.type}; a whole number is no label",
                remedy="write A, B and tie, or P(a) as a floating-point number",
            )
    found = read_gold(values, roles, findings)
    counts: dict[str, list[int]] = {}
    for row, (_, detail) in sorted(findings.found.items()):
        counts.setdefault(_kind(detail), []).append(row)
    problems = [
        f"{len(rows):,} {kind}, the first in row {rows[0]:,}: {findings.found[rows[0]][1]}"
        for kind, rows in counts.items()
    ]
    fields = [pc.fill_null(pc.struct_field(found, name), 0) for name in ("a", "b", "tie")]
    votes = np.stack([one.to_numpy(zero_copy_only=False) for one in fields], axis=1)
    return votes, found.is_valid().to_numpy(zero_copy_only=False), problems


def _kind(detail: str) -> str:
    if "known are" in detail:
        return "have an unknown label"
    if "a number is P(a)" in detail:
        return "have a number that is no probability"
    return "have " + detail.partition(":")[0].replace("votes ", "votes that ", 1)


def _identity_problems(ids: pa.Array, annotators: pa.Array | None, labelled: Bool) -> list[str]:
    problems = []
    nameless = labelled & ids.is_null().to_numpy(zero_copy_only=False)
    if nameless.any():
        first = int(np.flatnonzero(nameless)[0])
        problems.append(f"{int(nameless.sum()):,} have no pair_id, the first in row {first:,}")
    keys = ids if annotators is None else pc.binary_join_element_wise(
        ids, annotators.fill_null(""), "\x1f"
    )  # fmt: skip
    counts = pc.value_counts(keys.filter(pa.array(labelled)).drop_null())
    many = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(many):
        name = escape(many.field("values")[0].as_py().replace("\x1f", " by "))
        rows = pc.sum(many.field("counts")).as_py()
        whose = "" if annotators is None else " by the same annotator"
        problems.append(
            f"{rows:,} share {len(many):,} pair_ids{whose}, the first {name};"
            " with an annotator's name in a column (--gold-map annotator=) they are votes"
        )
    return problems


def _grouped(rows: _Rows, votes: Float64, labelled: Bool, want: Sequence[str]) -> GoldFile:
    """Rows of one pair put together; rows without gold are left out."""
    keep = pa.array(labelled)
    coded = rows.ids.filter(keep).dictionary_encode()
    at: Int64 = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    pairs = len(coded.dictionary)
    votes = votes[labelled]
    sums = np.stack([np.bincount(at, weights=one, minlength=pairs) for one in votes.T], axis=1)
    first = np.zeros(pairs, dtype=np.int64)
    first[at[::-1]] = np.arange(len(at))[::-1]
    taken = {name: name for name in want if name in rows.table.column_names}
    if "instruction" in rows.roles:
        taken["instruction"] = rows.roles["instruction"]
    columns = {
        name: rows.table[column].filter(keep).take(pa.array(first))
        for name, column in taken.items()
    }
    annotations = None
    if rows.annotators is not None:
        who = rows.annotators.filter(keep).fill_null("").dictionary_encode()
        numbers: Int64 = who.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        names = tuple(who.dictionary.to_pylist())
        annotations = Annotations(at, numbers, votes.argmax(axis=1).astype(np.int64), names)
    missing = int((~labelled).sum())
    return GoldFile(coded.dictionary, np.asarray(sums, np.float64), columns, annotations, missing)
