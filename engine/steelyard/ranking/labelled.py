"""Comparisons of which some have gold: the input of estimates that count the judge's error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from steelyard.core.arrow import to_floats
from steelyard.core.schemas import Bool, Float64, Int64
from steelyard.errors import InputRefused
from steelyard.evaluation.gold_join import judged_and_gold
from steelyard.evaluation.judged_pairs import GoldSource, Source
from steelyard.input.roles import MODELS
from steelyard.ranking.tournament import between_two
from steelyard.statistics.prediction_powered import selection_p_value

CHANCE = 0.01  # of gold that is a random sample and looks like none
SHARES = np.array([1.0, 0.0, 0.5])  # of a vote for a, b and a tie


@dataclass(frozen=True, slots=True)
class LabelledComparisons:
    """Comparisons of two competitors each; columns of length n."""

    table: pa.Table  # model_a, model_b, preference; others as `comparisons.read` gives them
    label: Float64  # share of gold's votes for a, a tie is half a vote; NaN without gold
    cluster: Int64
    read_as: str  # the column, or the expression, that preferences are of: never calibrated ones
    notes: tuple[str, ...]

    @property
    def preference(self) -> Float64:
        """The judge's."""
        return to_floats(self.table["preference"])

    @property
    def weight(self) -> Float64:
        """1 where the source has none."""
        if "weight" not in self.table.column_names:
            return np.ones(len(self.table))
        return to_floats(self.table["weight"])

    def take(self, rows: Bool) -> LabelledComparisons:
        """Return some of the rows."""
        table = self.table.filter(pa.array(rows))
        return replace(self, table=table, label=self.label[rows], cluster=self.cluster[rows])


def read_labelled(path: Path, columns: Mapping[str, str], gold: GoldSource) -> LabelledComparisons:
    """Read the comparisons of a run or a file, and gold for some: of a file, or their own.

    Raises:
        InputRefused: the source has no competitors.
        GoldRefused: there is no gold, or it belongs to other pairs.
    """
    source = Source(path, columns)
    pairs, matched = judged_and_gold(source, gold.gold, gold.gold_columns, want=(*MODELS, "weight"))
    if missing := [name for name in MODELS if name not in pairs.table.column_names]:
        raise InputRefused(
            f"no column for {missing[0]}",
            place=str(path),
            remedy=f"name it: --map {missing[0]}=COLUMN",
        )
    label = np.full(len(pairs), np.nan)
    label[matched.rows] = matched.votes @ SHARES / matched.votes.sum(axis=1)
    comparisons = LabelledComparisons(
        pairs.table, label, pairs.groups, pairs.preference, matched.notes
    ).take(between_two(pairs.table))
    return replace(comparisons, notes=(*comparisons.notes, *_selection_notes(comparisons)))


def _selection_notes(comparisons: LabelledComparisons) -> list[str]:
    """Warn where gold does not look like a random sample of the comparisons."""
    preference, certainty = comparisons.preference, np.abs(comparisons.preference - 0.5)
    values = (preference, certainty)
    p_values = [
        selection_p_value(comparisons.label, x, comparisons.cluster, comparisons.weight)
        for x in values
    ]
    if min(p_values) >= CHANCE / len(p_values):
        return []
    return [
        "gold does not look like a random sample of these pairs, by the judge's preferences (p ="
        f" {min(p_values):.1g}): prediction-powered numbers are right for a random sample only"
    ]
