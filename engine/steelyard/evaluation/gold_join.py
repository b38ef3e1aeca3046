"""Judged pairs joined to their gold: the input of fits and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.calibrators.features import Features, Gold
from steelyard.core.schemas import Bool, Float64, Int64
from steelyard.errors import GoldRefused, UsageError, escape
from steelyard.evaluation.judged_pairs import (
    CALIBRATED,
    LENGTHS,
    MASSES,
    ORDERS,
    JudgedPairs,
    Source,
    complete_column,
    features_of,
    float_column,
    optional_column,
    read_pairs,
    require_single,
)
from steelyard.evaluation.metrics.pairs import CLASSES, TIE, ScoredPairs, gold_classes
from steelyard.input.gold_file import Annotations, GoldFile, read_gold_file
from steelyard.statistics.clusters import cluster_warning

READS = ("preference", "score", "tie", *ORDERS, *LENGTHS, *MASSES, *CALIBRATED)


@dataclass(frozen=True, slots=True)
class GoldPairs:
    """The pairs that have gold, k of them."""

    table: pa.Table  # k rows of what was read, by role (READS)
    rows: Int64  # k, indices into the judged pairs
    votes: Float64  # k x 3
    groups: Int64  # k
    by: pa.Array | None  # k values of the column to evaluate by
    annotations: Annotations | None  # their pairs are indices into the k, -1: not judged
    notes: tuple[str, ...]

    @property
    def features(self) -> Features:
        """Features of the k pairs."""
        return features_of(self.table)

    @property
    def gold(self) -> Gold:
        """Gold of the k pairs."""
        return Gold(self.votes, self.groups)

    @property
    def raw(self) -> ScoredPairs:
        """The k pairs as judged."""
        table = self.table
        masses, lengths = (
            [optional_column(table, name) for name in names] for names in (MASSES, LENGTHS)
        )
        preference = float_column(table, "preference")
        return ScoredPairs(
            preference=preference,
            votes=self.votes,
            groups=self.groups,
            tie=optional_column(table, "tie"),
            preference_ab=optional_column(table, "preference_ab"),
            preference_ba=optional_column(table, "preference_ba"),
            label_mass=None
            if masses[0] is None or masses[1] is None
            else (masses[0] + masses[1]) / 2,
            longer=None if lengths[0] is None or lengths[1] is None else lengths[0] - lengths[1],
            hard=bool(np.isin(preference, (0.0, 0.5, 1.0)).all()),
        )

    @property
    def calibrated(self) -> ScoredPairs | None:
        """The k pairs with calibrated preferences; None if any lacks one."""
        table = self.table
        preference = complete_column(table, "calibrated_preference")
        if preference is None:
            return None
        tie = optional_column(table, "calibrated_tie")
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
    columns = (by,) if by else ()
    if gold is None:
        pairs = read_pairs(source, (*columns, "gold"))
        matched = _from_source(pairs, source)
    else:
        file = read_gold_file(gold, gold_columns, columns)
        pairs = read_pairs(source, (*columns, *file.models))
        matched = _from_file(pairs, file, gold, by)
    require_single(source, pairs.table)
    column = matched.by
    if by and by in pairs.table.column_names:
        column = pairs.table[by].take(pa.array(matched.rows))
    if by and column is None:
        raise UsageError(
            f"neither the judged pairs nor the gold have a column {escape(by)}",
            place=str(source.path),
            remedy="name a column of the input, of the table, or of the gold file",
        )
    return replace(matched, by=column)


def _from_source(pairs: JudgedPairs, source: Source) -> GoldPairs:
    if "gold" not in pairs.table.column_names:
        gold = pa.nulls(len(pairs))
    else:
        gold = pairs.table["gold"].combine_chunks()
    known = gold.is_valid().to_numpy(zero_copy_only=False)
    if not known.any():
        raise GoldRefused(
            f"none of {len(pairs):,} judged pairs has gold",
            place=str(source.path),
            remedy="give a file with --gold, or score shards that have a gold column",
        )
    rows = np.flatnonzero(known)
    struct = gold.filter(pa.array(known))
    struct = struct.combine_chunks() if isinstance(struct, pa.ChunkedArray) else struct
    votes = np.stack(
        [
            pc.struct_field(struct, name).to_numpy(zero_copy_only=False)
            for name in ("a", "b", "tie")
        ],
        axis=1,
    )
    return _matched(pairs, rows, votes, pairs.groups[rows], (), named=pairs.named)


def _from_file(pairs: JudgedPairs, gold: GoldFile, path: Path, by: str | None) -> GoldPairs:
    if "pair_id" not in pairs.table.column_names:
        raise UsageError(
            "the judged pairs have no pair_id to join gold on",
            place=str(path),
            remedy="name it with --map pair_id=COLUMN",
        )
    ids = pairs.table["pair_id"].combine_chunks()
    index = pc.index_in(ids, value_set=gold.pair_ids)
    known = index.is_valid().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(known)
    if not len(rows):
        raise GoldRefused(
            f"none of {len(gold.pair_ids):,} pair_ids in gold is among {len(pairs):,} judged pairs;"
            f" gold has {escape(gold.pair_ids[0])}, the judged pairs {escape(ids[0])}",
            place=str(path),
            remedy="gold and judged pairs need the same pair_ids: --gold-map pair_id=COLUMN",
        )
    gold_rows: Int64 = index.filter(pa.array(known)).to_numpy(zero_copy_only=False).astype(np.int64)
    _check_models(pairs, gold, path, rows, gold_rows)
    groups = pairs.groups[rows]
    if _apart(pairs.groups) and "instruction" in gold.columns:
        groups = _codes(gold.columns["instruction"])[gold_rows]
    notes = []
    if missing := len(gold.pair_ids) - len(np.unique(gold_rows)):
        notes.append(f"{missing:,} of {len(gold.pair_ids):,} pairs in gold were not judged")
    if gold.unlabelled:
        notes.append(f"{gold.unlabelled:,} rows of the gold file have no gold")
    named = pairs.named or "instruction" in gold.columns
    matched = _matched(pairs, rows, gold.votes[gold_rows], groups, tuple(notes), named=named)
    column = gold.columns.get(by) if by else None
    annotations = None
    if gold.annotations is not None:
        back = np.full(len(gold.pair_ids), -1, dtype=np.int64)
        back[gold_rows] = np.arange(len(gold_rows))
        annotations = gold.annotations.moved(back[gold.annotations.pairs])
    values = None if column is None else column.take(pa.array(gold_rows))
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
        return np.asarray(equal.to_numpy(zero_copy_only=False))

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
    groups: Int64,
    notes: tuple[str, ...],
    *,
    named: bool,
) -> GoldPairs:
    if not named and _apart(groups):
        notes = (
            *notes,
            "every pair counts as a separate instruction; if pairs share instructions, name the"
            " column (--map instruction=COLUMN), or intervals are too narrow",
        )
    notes = (*pairs.notes, *notes, *_gold_notes(votes, groups))
    table = pairs.table.select([name for name in READS if name in pairs.table.column_names])
    if len(rows) < len(table):
        table = table.take(pa.array(rows))
    return GoldPairs(table, rows, votes, groups, None, None, notes)


def _gold_notes(votes: Float64, groups: Int64) -> list[str]:
    """Return what a user should know before trusting a number that rests on this gold."""
    notes = []
    count = len(np.unique(groups))
    if warning := cluster_warning(count):
        notes.append(f"gold: {warning}")
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


def _apart(groups: Int64) -> bool:
    return len(np.unique(groups)) == len(groups)


def _codes(values: pa.ChunkedArray) -> Int64:
    coded = values.combine_chunks().dictionary_encode(null_encoding="encode")
    codes: Int64 = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes
