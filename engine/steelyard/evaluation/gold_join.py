"""Judged pairs joined to their gold: what fits and metrics start from."""

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
    rows: Int64  # k, places among the judged pairs
    votes: Float64  # k x 3
    groups: Int64  # k
    by: pa.Array | None  # k values of the column that was asked for
    annotations: Annotations | None  # their pairs are places among the k, -1: not judged
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
        """The k pairs with calibrated preferences; None: not all of them have one."""
        table = self.table
        preference = complete_column(table, "calibrated_preference")
        if preference is None:
            return None
        tie = optional_column(table, "calibrated_tie")
        return replace(self.raw, preference=preference, tie=tie, hard=False)

    def take(self, kept: Bool) -> GoldPairs:
        """Those of the k pairs that are marked."""
        annotations = self.annotations
        if annotations is not None:
            places = np.where(kept, np.cumsum(kept) - 1, -1)[annotations.pairs]
            annotations = annotations.moved(places)
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
    """Judged pairs joined to gold: that of a file, or what the source has itself.

    Raises:
        GoldRefused: there is no gold, it cannot be used, or it is that of other pairs.
        UsageError: no column is called `by`.
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
            f"neither the judged pairs nor gold have a column {escape(by)}",
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
    at = pc.index_in(ids, value_set=gold.pair_ids)
    known = at.is_valid().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(known)
    if not len(rows):
        raise GoldRefused(
            f"none of {len(gold.pair_ids):,} pair_ids in gold is among {len(pairs):,} judged pairs;"
            f" gold has {escape(gold.pair_ids[0])}, the judged pairs {escape(ids[0])}",
            place=str(path),
            remedy="gold and pairs have to have the same pair_ids; --gold-map pair_id=COLUMN",
        )
    places: Int64 = at.filter(pa.array(known)).to_numpy(zero_copy_only=False).astype(np.int64)
    _check_models(pairs, gold, path, rows, places)
    groups = pairs.groups[rows]
    if _apart(pairs.groups) and "instruction" in gold.columns:
        groups = _codes(gold.columns["instruction"])[places]
    missing = len(gold.pair_ids) - len(np.unique(places))
    notes = (
        [f"gold of {missing:,} of {len(gold.pair_ids):,} pairs has no judged pair"]
        if missing else []
    )  # fmt: skip
    if gold.unlabelled:
        notes.append(f"{gold.unlabelled:,} rows of the gold file have no gold")
    named = pairs.named or "instruction" in gold.columns
    matched = _matched(pairs, rows, gold.votes[places], groups, tuple(notes), named=named)
    taken = gold.columns.get(by) if by else None
    annotations = None
    if gold.annotations is not None:
        back = np.full(len(gold.pair_ids), -1, dtype=np.int64)
        back[places] = np.arange(len(places))
        annotations = gold.annotations.moved(back[gold.annotations.pairs])
    return replace(
        matched, by=None if taken is None else taken.take(pa.array(places)), annotations=annotations
    )


def _check_models(
    pairs: JudgedPairs, gold: GoldFile, path: Path, rows: Int64, places: Int64
) -> None:
    """Gold that names its models names those of the judged pair, in their order."""
    if not gold.models or not gold.models.keys() <= set(pairs.table.column_names):
        return
    a, b = (names.take(pa.array(places)) for names in gold.models.values())
    one, other = (
        pairs.table[name].take(pa.array(rows)).cast(pa.string()).combine_chunks()
        for name in gold.models
    )

    def both(x: pa.Array, y: pa.Array) -> Bool:
        same = pc.fill_null(pc.and_kleene(pc.equal(a, x), pc.equal(b, y)), fill_value=True)
        found: Bool = same.to_numpy(zero_copy_only=False)
        return found

    differs = ~both(one, other)
    swapped = differs & both(other, one)
    lines = []
    for mask, what in (
        (swapped, "name the models the other way round"),
        (differs & ~swapped, "name other models"),
    ):
        if mask.any():
            at = int(np.flatnonzero(mask)[0])
            shown = [escape(value[at].as_py()) for value in (gold.pair_ids.take(places), a, b)]
            judged = [escape(value[at].as_py()) for value in (one, other)]
            lines.append(
                f"{int(mask.sum()):,} {what}, the first {shown[0]}: {shown[1]} and {shown[2]} in"
                f" gold, {judged[0]} and {judged[1]} judged"
            )
    if lines:
        raise GoldRefused(
            "\n    ".join([f"{len(rows):,} judged pairs have gold, of which", *lines]),
            place=str(path),
            remedy="where models are the other way round, swap them and A and B (or the votes);"
            " where only spellings differ, leave the names out: --gold-map model_a=",
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
            "every pair counts as an instruction of its own; where pairs share one, name it"
            " (--map instruction=COLUMN), or intervals are too narrow",
        )
    notes = (*pairs.notes, *notes, *_gold_notes(votes, groups))
    table = pairs.table.select([name for name in READS if name in pairs.table.column_names])
    if len(rows) < len(table):
        table = table.take(pa.array(rows))
    return GoldPairs(table, rows, votes, groups, None, None, notes)


def _gold_notes(votes: Float64, groups: Int64) -> list[str]:
    """What a user should know before believing a number made of this gold."""
    notes = []
    count = len(np.unique(groups))
    if few := cluster_warning(count):
        notes.append(f"gold is of {few}")
    named = np.bincount(gold_classes(votes), minlength=len(CLASSES))
    decisive = int(named[:TIE].sum())
    if not decisive:
        notes.append(f"gold names no side in any of {len(votes):,} pairs: all are ties")
    elif decisive in named[:TIE]:
        side = CLASSES[int(named[:TIE].argmax())]
        notes.append(
            f"gold names {side} in all of {decisive:,} decided pairs: it cannot tell a judge from"
            f" one that always says {side}"
        )
    return notes


def _apart(groups: Int64) -> bool:
    return len(np.unique(groups)) == len(groups)


def _codes(values: pa.ChunkedArray) -> Int64:
    coded = values.combine_chunks().dictionary_encode(null_encoding="encode")
    codes: Int64 = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes
