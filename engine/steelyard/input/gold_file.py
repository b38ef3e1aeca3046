"""Gold of its own file: labels, votes or probabilities by pair_id, annotators kept apart.

| role | columns that stand for it | what |
|---|---|---|
| pair_id | pair_id | text or whole number |
| gold | gold, label, winner, vote | A, B, tie; or P(a) as a floating-point number |
| votes_a, votes_b, votes_tie | the same | counts or weights, in place of gold |
| annotator | annotator, worker, rater | who: a row is then one annotator's, a pair has several |
| instruction | instruction_id, instruction, prompt_id, prompt, question | the cluster |
| model_a, model_b | the same | whose responses: compared with the judged pair's |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from steelyard.core.schemas import Bool, Float64, Int64
from steelyard.errors import GoldRefused, UsageError, escape
from steelyard.input import discover
from steelyard.input.problems import RowProblems
from steelyard.input.votes import gold_column, read_gold, text_column

ROLES: dict[str, tuple[str, ...]] = {
    "pair_id": ("pair_id",),
    "gold": ("gold", "label", "winner", "vote"),
    "votes_a": ("votes_a",),
    "votes_b": ("votes_b",),
    "votes_tie": ("votes_tie",),
    "annotator": ("annotator", "worker", "rater"),
    "instruction": ("instruction_id", "instruction", "prompt_id", "prompt", "question"),
    "model_a": ("model_a",),
    "model_b": ("model_b",),
}
MODELS = ("model_a", "model_b")
VOTES = ("votes_a", "votes_b", "votes_tie")


@dataclass(frozen=True, slots=True)
class Annotations:
    """Single annotators' votes, m of them: on which pair, by whom, for what."""

    pairs: Int64  # m, places in GoldFile.pair_ids
    annotators: Int64  # m, places in `names`
    classes: Int64  # m: 0 a, 1 b, 2 tie
    names: tuple[str, ...]

    def moved(self, places: Int64) -> Annotations:
        """The same votes on pairs that have other places now, m of them; -1: left out."""
        kept = places >= 0
        return Annotations(places[kept], self.annotators[kept], self.classes[kept], self.names)


@dataclass(frozen=True, slots=True)
class GoldFile:
    """Gold of n pairs; annotators' votes are added up in `votes` and stand apart as well."""

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

    Args:
        path: where.
        columns: role -> column where names differ.
        want: further columns to take along where they are there.

    Raises:
        UsageError: there is no such file, column or role.
        GoldRefused: rows that cannot be used, all reasons at once, with counts.
    """
    rows = _read(path, columns or {}, want)
    votes, labelled, problems = _votes(rows.table, rows.roles, str(path))
    problems += _identity_problems(rows, labelled)
    if problems:
        raise GoldRefused(
            "\n    ".join([f"{len(rows.table):,} rows of gold, of which", *problems]),
            place=str(path),
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
    models: dict[str, pa.Array]  # role -> names, where gold has both


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
    named = {
        role: text_column(table[column], role, column, str(path))
        for role, column in roles.items()
        if role in {"pair_id", "annotator", *MODELS}
    }
    models = {role: named[role] for role in MODELS if set(MODELS) <= named.keys()}
    return _Rows(table, roles, named["pair_id"], named.get("annotator"), models)


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
    votes = {"votes_a", "votes_b"} <= roles.keys()
    if votes:
        roles.pop("gold", None)
    if {"votes_a", "votes_b"} & roles.keys() and "gold" not in roles and not votes:
        there, missing = sorted(("votes_a", "votes_b"), key=lambda one: one not in roles)
        raise GoldRefused(
            f"gold has {there} and no {missing}",
            place=place,
            remedy=f"name its column: --gold-map {missing}=COLUMN; columns:"
            f" {', '.join(map(escape, names))}",
        )
    if "pair_id" not in roles or not {"gold", "votes_a"} & roles.keys():
        missing = "pair_id" if "pair_id" not in roles else "gold (or votes_a and votes_b)"
        raise UsageError(
            f"gold has no column for {missing}",
            place=place,
            remedy=f"--gold-map ROLE=COLUMN; columns: {', '.join(map(escape, names))}",
        )
    return roles


def _votes(
    table: pa.Table, roles: Mapping[str, str], place: str
) -> tuple[Float64, Bool, list[str]]:
    """Votes of each row, which rows have any, and what is wrong with the others."""
    findings = RowProblems()
    taken = VOTES if "gold" not in roles else ("gold",)
    values = {
        role: gold_column(table[roles[role]], role, roles[role], place)
        for role in taken
        if role in roles
    }
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
    labelled: Bool = found.is_valid().to_numpy(zero_copy_only=False)
    return votes, labelled, problems


def _kind(detail: str) -> str:
    if "known are" in detail:
        return "have an unknown label"
    if "a number is P(a)" in detail:
        return "have a number that is no probability"
    return "have " + detail.partition(":")[0].replace("votes ", "votes that ", 1)


def _identity_problems(rows: _Rows, labelled: Bool) -> list[str]:
    problems = []
    ids, annotators = rows.ids, rows.annotators
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
        copies = pc.sum(many.field("counts")).as_py()
        whose = "" if annotators is None else " by the same annotator"
        problems.append(
            f"{copies:,} share {len(many):,} pair_ids{whose}, the first {name};"
            " with an annotator's name in a column (--gold-map annotator=) they are votes"
        )
    if rows.models:
        named = pa.table({"pair_id": ids, **rows.models}).filter(pa.array(labelled)).drop_null()
        kinds = pc.value_counts(named.group_by(named.column_names).aggregate([])["pair_id"])
        torn = kinds.filter(pc.greater(kinds.field("counts"), 1))
        if len(torn):
            name = escape(torn.field("values")[0].as_py())
            problems.append(
                f"the rows of {len(torn):,} pair_ids name different models, the first {name}"
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
    models = {name: texts.filter(keep).take(pa.array(first)) for name, texts in rows.models.items()}
    annotations = None
    if rows.annotators is not None:
        who = rows.annotators.filter(keep).fill_null("").dictionary_encode()
        numbers: Int64 = who.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        names = tuple(who.dictionary.to_pylist())
        annotations = Annotations(at, numbers, votes.argmax(axis=1).astype(np.int64), names)
    missing = int((~labelled).sum())
    return GoldFile(
        coded.dictionary, np.asarray(sums, np.float64), columns, models, annotations, missing
    )
