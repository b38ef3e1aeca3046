"""Judged pairs joined to their gold: what fits and metrics start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.calibrate.features import Features, Gold
from steelyard.errors import GoldRefused, UsageError, escape
from steelyard.gold import Annotations, GoldFile, read_gold_file
from steelyard.judged import Pairs, Source, column_of, numbers_of, read_pairs, whole_of
from steelyard.metrics.rows import Judged
from steelyard.records import Float64, Int64


@dataclass(frozen=True, slots=True)
class Matched:
    """The pairs that have gold, k of them."""

    pairs: Pairs
    rows: Int64  # k, places among the pairs
    votes: Float64  # k x 3
    groups: Int64  # k
    by: pa.Array | None  # k values of the column that was asked for
    annotations: Annotations | None  # their pairs are places among the k, -1: not judged
    notes: tuple[str, ...]

    @property
    def features(self) -> Features:
        """Features of the k pairs."""
        return self.pairs.features.take(self.rows)

    @property
    def gold(self) -> Gold:
        """Gold of the k pairs."""
        return Gold(self.votes, self.groups)

    @property
    def raw(self) -> Judged:
        """The k pairs as judged."""
        table, rows = self.pairs.table, self.rows
        masses = [numbers_of(table, f"label_mass_{order}") for order in ("ab", "ba")]
        preference = column_of(table, "preference")[rows]
        longer = self.pairs.features.longer

        def taken(column: Float64 | None) -> Float64 | None:
            return None if column is None else column[rows]

        return Judged(
            preference=preference,
            votes=self.votes,
            groups=self.groups,
            tie=taken(whole_of(table, "tie")),
            preference_ab=taken(numbers_of(table, "preference_ab")),
            preference_ba=taken(numbers_of(table, "preference_ba")),
            label_mass=None
            if masses[0] is None or masses[1] is None
            else ((masses[0] + masses[1]) / 2)[rows],
            longer=taken(longer),
            hard=bool(np.isin(preference, (0.0, 0.5, 1.0)).all()),
        )

    @property
    def calibrated(self) -> Judged | None:
        """The k pairs with the run's calibrated preferences; None: it is not calibrated."""
        preference = whole_of(self.pairs.table, "calibrated_preference")
        if preference is None:
            return None
        tie = whole_of(self.pairs.table, "calibrated_tie")
        rows = self.rows
        return replace(
            self.raw, preference=preference[rows], tie=None if tie is None else tie[rows],
            hard=False,
        )  # fmt: skip


def match_gold(
    source: Source,
    gold: Path | None,
    gold_columns: Mapping[str, str] | None = None,
    by: str | None = None,
) -> Matched:
    """Judged pairs joined to gold: that of a file, or what the source has itself.

    Raises:
        GoldRefused: there is no gold, it cannot be used, or it is that of other pairs.
        UsageError: no column is called `by`.
    """
    want = ((by,) if by else ()) + (() if gold else ("gold",))
    pairs = read_pairs(source, want)
    matched = _from_file(pairs, gold, gold_columns, by) if gold else _from_source(pairs, source)
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


def _from_source(pairs: Pairs, source: Source) -> Matched:
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
    return _matched(pairs, rows, votes, pairs.groups[rows], ())


def _from_file(
    pairs: Pairs, path: Path, columns: Mapping[str, str] | None, by: str | None
) -> Matched:
    gold = read_gold_file(path, columns, (by,) if by else ())
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
            effect="nothing was computed",
            remedy="gold and pairs have to have the same pair_ids; --gold-map pair_id=COLUMN",
        )
    places: Int64 = at.filter(pa.array(known)).to_numpy(zero_copy_only=False).astype(np.int64)
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
    matched = _matched(pairs, rows, gold.votes[places], groups, tuple(notes))
    taken = gold.columns.get(by) if by else None
    annotations = None if gold.annotations is None else _placed(gold.annotations, places, gold)
    return replace(
        matched, by=None if taken is None else taken.take(pa.array(places)), annotations=annotations
    )


def _placed(annotations: Annotations, places: Int64, gold: GoldFile) -> Annotations:
    back = np.full(len(gold.pair_ids), -1, dtype=np.int64)
    back[places] = np.arange(len(places))
    kept = back[annotations.pairs] >= 0
    return Annotations(
        back[annotations.pairs[kept]],
        annotations.annotators[kept],
        annotations.classes[kept],
        annotations.names,
    )


def _matched(
    pairs: Pairs, rows: Int64, votes: Float64, groups: Int64, notes: tuple[str, ...]
) -> Matched:
    if _apart(groups):
        notes = (
            *notes,
            "every pair counts as an instruction of its own; where pairs share one, name it"
            " (--map instruction=COLUMN), or intervals are too narrow",
        )
    return Matched(pairs, rows, votes, groups, None, None, (*pairs.notes, *notes))


def _apart(groups: Int64) -> bool:
    return len(np.unique(groups)) == len(groups)


def _codes(values: pa.ChunkedArray) -> Int64:
    coded = values.combine_chunks().dictionary_encode(null_encoding="encode")
    codes: Int64 = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes
