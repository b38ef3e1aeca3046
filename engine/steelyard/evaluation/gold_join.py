"""Judged pairs joined to their gold: the input of fits and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.calibrators.features import Features, Gold
from steelyard.comparisons.read import CALIBRATED
from steelyard.core.arrow import to_floats, to_ints, to_mask, votes_of
from steelyard.core.schemas import Bool, Float64, Int64, UInt64
from steelyard.errors import GoldRefused, UsageError, escape
from steelyard.evaluation.judged_pairs import (
    MASSES,
    MEMBER_COLUMN,
    ORDERS,
    JudgedPairs,
    Source,
    complete_column,
    members_of,
    optional_column,
    own_ids,
    read_pairs,
    require_single,
)
from steelyard.evaluation.metrics.pairs import CLASSES, TIE, ScoredPairs, gold_classes
from steelyard.input.gold_file import Annotations, GoldFile, read_gold_file
from steelyard.input.roles import LENGTHS
from steelyard.statistics.clusters import cluster_warning, instruction_ids
from steelyard.statistics.logistic import logit

READS = ("preference", "score", "tie", *ORDERS, *LENGTHS, *MASSES, *CALIBRATED)


@dataclass(frozen=True, slots=True)
class GoldPairs:
    """The pairs that have gold, k of them."""

    table: pa.Table  # k rows of what was read, by role (READS), and members
    rows: Int64  # k, indices into the judged pairs
    pair_ids: UInt64 | None  # k digests; None: the source has no pair_id
    instructions: UInt64  # k ids
    votes: Float64  # k x 3
    groups: Int64  # k, numbers of the instructions
    by: pa.Array | None  # k values of the column to evaluate by
    annotations: Annotations | None  # their pairs are indices into the k, -1: not judged
    notes: tuple[str, ...]

    @property
    def features(self) -> Features:
        """What calibrators see of the k pairs; a feature that any pair lacks is None."""
        ab, ba, a, b = (complete_column(self.table, name) for name in (*ORDERS, *LENGTHS))
        score = complete_column(self.table, "score")
        return Features(
            score=logit(to_floats(self.table["preference"])) if score is None else score,
            score_ab=None if ab is None else logit(ab),
            score_ba=None if ba is None else logit(ba),
            longer=None if a is None or b is None else a - b,
            has_scale=score is None,
            members=members_of(self.table),
        )

    @property
    def gold(self) -> Gold:
        """Gold of the k pairs."""
        return Gold(self.votes, self.groups)

    @property
    def raw(self) -> ScoredPairs:
        """The k pairs as judged."""
        names = ("tie", *ORDERS, *MASSES, *LENGTHS)
        tie, ab, ba, mass_ab, mass_ba, a, b = (optional_column(self.table, x) for x in names)
        preference = to_floats(self.table["preference"])
        return ScoredPairs(
            preference=preference,
            votes=self.votes,
            groups=self.groups,
            tie=tie,
            preference_ab=ab,
            preference_ba=ba,
            label_mass=None if mass_ab is None or mass_ba is None else (mass_ab + mass_ba) / 2,
            longer=None if a is None or b is None else a - b,
            hard=bool(np.isin(preference, (0.0, 0.5, 1.0)).all()),
        )

    @property
    def calibrated(self) -> ScoredPairs | None:
        """The k pairs with calibrated preferences; None if any lacks one."""
        preference = complete_column(self.table, "calibrated_preference")
        if preference is None:
            return None
        tie = optional_column(self.table, "calibrated_tie")
        return replace(self.raw, preference=preference, tie=tie, hard=False)

    def take(self, kept: Bool) -> GoldPairs:
        """Return those of the k pairs that are marked."""
        annotations = self.annotations
        if annotations is not None:
            moved = np.where(kept, np.cumsum(kept) - 1, -1)
            annotations = annotations.moved(moved[annotations.pairs])
        return replace(
            self,
            table=self.table.filter(pa.array(kept)),
            rows=self.rows[kept],
            pair_ids=None if self.pair_ids is None else self.pair_ids[kept],
            instructions=self.instructions[kept],
            votes=self.votes[kept],
            groups=self.groups[kept],
            by=None if self.by is None else self.by.filter(pa.array(kept)),
            annotations=annotations,
        )


def match_gold(
    source: Source,
    gold: Path | None,
    gold_columns: Mapping[str, str] | None = None,
    by: str | None = None,
) -> GoldPairs:
    """Join judged pairs to gold: that of a file, or that of the source itself.

    Raises:
        GoldRefused: there is no gold, it cannot be used, or it belongs to other pairs.
        UsageError: there is no column `by`.
    """
    return judged_and_gold(source, gold, gold_columns, by)[1]


def judged_and_gold(
    source: Source,
    gold: Path | None,
    gold_columns: Mapping[str, str] | None = None,
    by: str | None = None,
    want: Sequence[str] = (),
) -> tuple[JudgedPairs, GoldPairs]:
    """Return all judged pairs, with the wanted columns, and those that have gold (`match_gold`)."""
    columns = (*want, by) if by else tuple(want)
    if gold is None:
        pairs = read_pairs(source, (*columns, "gold"))
        matched = _from_source(pairs, source)
    else:
        file = read_gold_file(gold, gold_columns, (by,) if by else ())
        pairs = read_pairs(source, tuple(dict.fromkeys([*columns, *file.models])))
        matched = _from_file(pairs, file, gold, by)
    require_single(source, pairs.table)
    column = matched.by
    if by and by in pairs.table.column_names:
        column = pairs.table[by].take(pa.array(matched.rows)).combine_chunks()
    if by and column is None:
        raise UsageError(
            f"neither the judged pairs nor the gold have a column {escape(by)}",
            place=str(source.path),
            remedy="name a column of the input, of the table, or of the gold file",
        )
    return pairs, replace(matched, by=column)


def _from_source(pairs: JudgedPairs, source: Source) -> GoldPairs:
    has_gold = "gold" in pairs.table.column_names
    gold = pairs.table["gold"].combine_chunks() if has_gold else pa.nulls(len(pairs))
    rows = np.flatnonzero(to_mask(gold.is_valid()))
    if not len(rows):
        raise GoldRefused(
            f"none of {len(pairs):,} judged pairs has gold",
            place=str(source.path),
            remedy="give a file with --gold, or score shards that have a gold column",
        )
    votes = votes_of(gold.take(pa.array(rows)))
    return _matched(pairs, rows, votes, pairs.instructions[rows], (), named=pairs.named)


def _from_file(pairs: JudgedPairs, gold: GoldFile, path: Path, by: str | None) -> GoldPairs:
    if "pair_id" not in pairs.table.column_names:
        raise UsageError(
            "the judged pairs have no pair_id to join gold on",
            place=str(path),
            remedy="name it with --map pair_id=COLUMN",
        )
    ids = pairs.table["pair_id"].combine_chunks()
    index = pc.index_in(ids, value_set=gold.pair_ids)
    rows, gold_rows = np.flatnonzero(to_mask(index.is_valid())), to_ints(index.drop_null())
    if not len(rows):
        raise GoldRefused(
            f"none of {len(gold.pair_ids):,} pair_ids in gold is among {len(pairs):,} judged pairs;"
            f" gold has {escape(gold.pair_ids[0])}, the judged pairs {escape(ids[0])}",
            place=str(path),
            remedy="gold and judged pairs need the same pair_ids: --gold-map pair_id=COLUMN",
        )
    _check_models(pairs, gold, path, rows, gold_rows)
    instructions = pairs.instructions[rows]
    if _apart(pairs.instructions) and "instruction" in gold.columns:
        named_by_gold = _ids(gold.columns["instruction"].combine_chunks())
        known = None if pairs.pair_ids is None else pairs.pair_ids[rows]
        instructions = own_ids(named_by_gold.take(pa.array(gold_rows)), known)
    notes = []
    if missing := len(gold.pair_ids) - len(np.unique(gold_rows)):
        notes.append(f"{missing:,} of {len(gold.pair_ids):,} pairs in gold were not judged")
    if gold.unlabelled:
        notes.append(f"{gold.unlabelled:,} rows of the gold file have no gold")
    named = pairs.named or "instruction" in gold.columns
    votes = gold.votes[gold_rows]
    matched = _matched(pairs, rows, votes, instructions, tuple(notes), named=named)
    column = gold.columns.get(by) if by else None
    values = None if column is None else column.take(pa.array(gold_rows)).combine_chunks()
    annotations = None
    if gold.annotations is not None:
        back = np.full(len(gold.pair_ids), -1, dtype=np.int64)
        back[gold_rows] = np.arange(len(gold_rows))
        annotations = gold.annotations.moved(back[gold.annotations.pairs])
    return replace(matched, by=values, annotations=annotations)


def _check_models(
    pairs: JudgedPairs, gold: GoldFile, path: Path, rows: Int64, gold_rows: Int64
) -> None:
    """Refuse gold that names other models than the judged pairs, or in the other order."""
    if not gold.models or not gold.models.keys() <= set(pairs.table.column_names):
        return
    a, b = (names.take(pa.array(gold_rows)) for names in gold.models.values())
    judged_a, judged_b = (
        pairs.table[name].take(pa.array(rows)).cast(pa.string()).combine_chunks()
        for name in gold.models
    )

    def same(x: pa.Array, y: pa.Array) -> Bool:
        equal = pc.fill_null(pc.and_kleene(pc.equal(a, x), pc.equal(b, y)), fill_value=True)
        return to_mask(equal)

    differs = ~same(judged_a, judged_b)
    swapped = differs & same(judged_b, judged_a)
    lines = []
    for mask, what in (
        (swapped, "name the models the other way round"),
        (differs & ~swapped, "name other models"),
    ):
        if mask.any():
            first = int(np.flatnonzero(mask)[0])
            pair_id = gold.pair_ids[gold_rows[first]]
            names = [escape(side[first].as_py()) for side in (a, b, judged_a, judged_b)]
            lines.append(
                f"{int(mask.sum()):,} {what}, the first {escape(pair_id.as_py())}: {names[0]} and"
                f" {names[1]} in gold, {names[2]} and {names[3]} judged"
            )
    if lines:
        raise GoldRefused(
            "\n    ".join([f"{len(rows):,} judged pairs have gold, of which", *lines]),
            place=str(path),
            remedy="if models are the other way round, swap them and A and B (or the votes);"
            " if only spellings differ, leave the names out: --gold-map model_a=",
        )


def _matched(
    pairs: JudgedPairs,
    rows: Int64,
    votes: Float64,
    instructions: UInt64,
    notes: tuple[str, ...],
    *,
    named: bool,
) -> GoldPairs:
    if not named and _apart(instructions):
        notes = (
            *notes,
            "every pair counts as a separate instruction; if pairs share instructions, name the"
            " column (--map instruction=COLUMN), or intervals are too narrow",
        )
    groups = np.unique(instructions, return_inverse=True)[1].astype(np.int64)
    notes = (*pairs.notes, *notes, *_gold_notes(votes, groups))
    kept = [x for x in pairs.table.column_names if x in READS or MEMBER_COLUMN.fullmatch(x)]
    table = pairs.table.select(kept)
    if len(rows) < len(table):
        table = table.take(pa.array(rows))
    pair_ids = None if pairs.pair_ids is None else pairs.pair_ids[rows]
    return GoldPairs(table, rows, pair_ids, instructions, votes, groups, None, None, notes)


def _ids(values: pa.Array) -> pa.Array:
    """Return ids of gold's instructions, whatever type names them; null for a null."""
    if pt.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if (
        pt.is_integer(kind)
        or pt.is_floating(kind)
        or pt.is_string(kind)
        or pt.is_large_string(kind)
    ):
        return instruction_ids(values)
    coded = values.dictionary_encode()
    texts = [None if value is None else str(value) for value in coded.dictionary.to_pylist()]
    return instruction_ids(pa.array(texts, pa.string())).take(coded.indices)


def _gold_notes(votes: Float64, groups: Int64) -> list[str]:
    """Return what a user should know before trusting a number that rests on this gold."""
    warning = cluster_warning(len(np.unique(groups)))
    notes = [f"gold: {warning}"] if warning else []
    named = np.bincount(gold_classes(votes), minlength=len(CLASSES))
    decisive = int(named[:TIE].sum())
    if not decisive:
        notes.append(f"gold names no side in any of {len(votes):,} pairs: all are ties")
    elif decisive in named[:TIE]:
        side = CLASSES[int(named[:TIE].argmax())]
        notes.append(
            f"gold names {side} in all {decisive:,} decided pairs: a judge that always says {side}"
            " would be perfect"
        )
    return notes


def _apart(instructions: UInt64) -> bool:
    return len(np.unique(instructions)) == len(instructions)
