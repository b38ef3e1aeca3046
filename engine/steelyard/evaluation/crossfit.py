"""Calibrated values of pairs to whose gold the calibrator itself was fitted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from steelyard.evaluation.gold_join import GoldPairs
from steelyard.evaluation.judged_pairs import Source, complete_column, optional_column

SAME = 1e-9  # of preferences in SQL and in NumPy


@dataclass(frozen=True, slots=True)
class FitGold:
    """How many of the pairs the calibrator was fitted to, and what was done about it."""

    in_fit: int | None  # None: nothing says so
    crossfitted: int  # have values by the gold of other instructions
    pairs: int
    folds: int = 0
    seed: int | None = None

    @property
    def words(self) -> str:
        """The first line of a report; empty if no pair was in the fit."""
        if self.in_fit is None:
            return (
                "calibrated values may be too good: nothing says which gold the calibrator was"
                " fitted to; if it was this gold, fit and apply it again"
            )
        share = f"calibrated values of {self.in_fit:,} of {self.pairs:,} pairs"
        if self.in_fit > self.crossfitted:
            return (
                f"{share} are too good: the calibrator was fitted to their gold; name the column"
                " that was calibrated (--logit or --preference) to have them cross-fitted"
            )
        if self.crossfitted:
            return (
                f"{share} are cross-fitted ({self.folds} folds of instructions, seed {self.seed}):"
                " the calibrator was fitted to their gold"
            )
        return ""


def crossfit(source: Source, matched: GoldPairs) -> tuple[GoldPairs, FitGold | None]:
    """Give pairs that the calibrator was fitted to the values that other instructions' gold gives.

    `matched` are k pairs that all have a calibrated preference, or none.
    """
    preference = optional_column(matched.table, "calibrated_preference")
    if preference is None:
        return matched, None
    made, count = source.calibrator, len(matched.rows)
    if made is None or made.gold is None or matched.pair_ids is None:
        return matched, FitGold(None, 0, count)
    in_fit = int((made.gold.fold_of(matched.pair_ids) >= 0).sum())
    features, tie = matched.features, optional_column(matched.table, "calibrated_tie")
    known = all(complete_column(matched.table, name) is not None for name in made.curve.columns)
    if not known or np.abs(made.curve.preference(features) - preference).max() > SAME:
        return matched, FitGold(in_fit, 0, count)  # something else was calibrated
    columns = made.gold.crossfit(features, matched.pair_ids, preference, tie)
    table = matched.table
    for name, values in zip(("calibrated_preference", "calibrated_tie"), columns, strict=True):
        if values is not None:
            place = table.column_names.index(name)
            table = table.set_column(place, name, pa.array(values))
    folds, seed = len(made.gold.folds), made.gold.seed
    return replace(matched, table=table), FitGold(in_fit, in_fit, count, folds, seed)
