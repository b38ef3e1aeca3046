"""A judge measured against gold: metrics with intervals, by group, raw and calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from steelyard.comparisons.read import CALIBRATED
from steelyard.core.schemas import Bool
from steelyard.errors import UsageError, escape
from steelyard.evaluation.crossfit import FitGold, crossfit
from steelyard.evaluation.gold_join import GoldPairs, match_gold
from steelyard.evaluation.judged_pairs import (
    MASSES,
    ORDERS,
    Source,
    describe_missing,
    optional_column,
)
from steelyard.evaluation.metrics.annotators import Annotator, compare_annotators, pairwise_kappa
from steelyard.evaluation.metrics.bootstrap import (
    Estimate,
    Evaluation,
    difference,
    resample,
    summarise,
)
from steelyard.evaluation.metrics.pairs import TIE, ScoredPairs, predicted_classes
from steelyard.statistics.intervals import RESTS_ON_COUNT

OPTIONAL = ("tie", *ORDERS, *MASSES, "calibrated_tie")  # what a pair may lack
MAX_REPLICATES = 100_000
MANY_TIES = 0.25  # share of verdicts
MOST_VALUES = 200  # of a column to evaluate by
COMPARED = (
    "mse", "vote_log_loss", "log_loss", "brier", "ece", "ece_confidence", "ece_debiased",
    "agreement", "decided_agreement", "macro_f1",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What a user decides about an evaluation."""

    by: str | None = None
    tie_band: float = 0.0
    replicates: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Assessment:
    """A part of the pairs: all of them, or those with one value of a column."""

    value: str | None
    raw: Evaluation
    calibrated: Evaluation | None
    change: dict[str, Estimate]  # calibrated less raw

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "value": self.value,
            "raw": self.raw.to_json(),
            "calibrated": self.calibrated.to_json() if self.calibrated else None,
            "change": [asdict(estimate) for estimate in self.change.values()],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All that `evaluate` reports."""

    options: EvaluateOptions
    whole: Assessment
    parts: tuple[Assessment, ...]
    annotators: tuple[Annotator, ...]
    annotator_kappa: float | None  # mean of pairwise kappas
    notes: tuple[str, ...]
    fit_gold: FitGold | None = None  # None: there are no calibrated values

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "fit_gold": asdict(self.fit_gold) if self.fit_gold else None,
            "by": self.options.by,
            "tie_band": self.options.tie_band,
            "bootstraps": self.options.replicates,
            "seed": self.options.seed,
            **self.whole.to_json(),
            "parts": [part.to_json() for part in self.parts],
            "annotators": [asdict(annotator) for annotator in self.annotators],
            "annotator_kappa": self.annotator_kappa,
            "notes": list(self.notes),
        }


def evaluate_source(
    source: Source,
    gold: Path | None,
    options: EvaluateOptions,
    gold_columns: Mapping[str, str] | None = None,
) -> Report:
    """Evaluate a run or a table against gold.

    Raises:
        UsageError: an option is out of range, or a column is missing.
        GoldRefused: gold cannot be used.
    """
    if not 0 <= options.tie_band < 0.5:
        raise UsageError(
            f"--tie-band is {options.tie_band}",
            remedy="give a distance from 0.5: 0 or more, below 0.5",
        )
    if not 0 <= options.replicates <= MAX_REPLICATES:
        raise UsageError(
            f"--replicates is {options.replicates:,}",
            remedy=f"give a number from 0 to {MAX_REPLICATES:,}",
        )
    if options.seed < 0:
        raise UsageError(f"--seed is {options.seed}", remedy="give 0 or more")
    matched, missing = comparable_pairs(match_gold(source, gold, gold_columns, options.by))
    matched, fit_gold = crossfit(source, matched)
    raw, calibrated = matched.raw, matched.calibrated
    if source.columns.get("preference") == CALIBRATED[0]:
        calibrated = None  # they are what is evaluated, and nothing is there to compare them with
    parts = [
        _assess(value, raw.take(rows), calibrated.take(rows) if calibrated else None, options)
        for value, rows in _parts(matched, options.by)
    ]
    annotators, kappa = _annotators(matched, calibrated or raw, options)
    whole = _assess(None, raw, calibrated, options)
    ties = _ties(raw, calibrated, options.tie_band)
    notes = (*matched.notes, *missing, *_near_chance(whole), *_rest_on_count(whole), *ties)
    return Report(options, whole, tuple(parts), annotators, kappa, notes, fit_gold)


def comparable_pairs(matched: GoldPairs) -> tuple[GoldPairs, list[str]]:
    """Return the pairs that have all preferences, so that raw and calibrated are of the same."""
    notes = []
    preference = optional_column(matched.table, "calibrated_preference")
    if preference is not None and not np.isfinite(preference).all():
        kept = np.isfinite(preference)
        notes.append(
            f"{int((~kept).sum()):,} of {len(kept):,} pairs with gold have no calibrated_preference"
            " and are left out, so that raw and calibrated metrics are of the same pairs"
        )
        matched = matched.take(kept)
    missing = describe_missing(matched.table, OPTIONAL)
    if missing:
        notes.append(f"pairs lack {missing}; they are left out of the metrics that need it")
    return matched, notes


def _ties(raw: ScoredPairs, calibrated: ScoredPairs | None, band: float) -> list[str]:
    """Warn if calibration has turned many verdicts into ties, which changes agreement alone."""
    if calibrated is None:
        return []
    before, after = (
        float((predicted_classes(pairs.preference, pairs.tie, band) == TIE).mean())
        for pairs in (raw, calibrated)
    )
    if after <= MANY_TIES or after <= 2 * before:
        return []
    return [
        f"{after:.0%} of calibrated verdicts are ties, and {before:.0%} of raw verdicts: this"
        " alone changes agreement and macro-F1, without a better judge"
    ]


def _near_chance(whole: Assessment) -> list[str]:
    """Warn if verdicts may agree with gold no more often than a coin."""
    rates = {
        name: evaluation.estimates.get("decided_agreement")
        for name, evaluation in (("", whole.raw), ("calibrated ", whole.calibrated))
        if evaluation
    }
    return [
        f"near chance: if {name}verdicts and gold both name a side, they agree in"
        f" {rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}] of pairs; a coin would in 50%"
        for name, rate in rates.items()
        if rate and rate.low is not None and rate.high is not None and rate.low <= 0.5 <= rate.high
    ]


def _rest_on_count(whole: Assessment) -> list[str]:
    """Name the metrics whose interval rests on the number of instructions alone."""
    kinds = (("raw", whole.raw), ("calibrated", whole.calibrated))
    names = {
        kind: [item.metric for item in evaluation.estimates.values() if item.rests_on_count]
        for kind, evaluation in kinds
        if evaluation
    }
    return [
        f"{', '.join(metrics)} ({kind}): {RESTS_ON_COUNT}"
        for kind, metrics in names.items()
        if metrics
    ]


def _assess(
    value: str | None, raw: ScoredPairs, calibrated: ScoredPairs | None, options: EvaluateOptions
) -> Assessment:
    settings = {"replicates": options.replicates, "seed": options.seed}
    before = resample(raw, band=options.tie_band, **settings)
    if calibrated is None:
        return Assessment(value, summarise(before), None, {})
    after = resample(calibrated, band=options.tie_band, **settings)
    change = difference(after, before, COMPARED)
    return Assessment(value, summarise(before), summarise(after), change)


def _parts(matched: GoldPairs, by: str | None) -> list[tuple[str, Bool]]:
    """Return the values of the column, most frequent first, with their rows."""
    if by is None or matched.by is None:
        return []
    column = matched.by
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_nested(column.type):
        raise UsageError(
            f"{escape(by)} holds {escape(column.type)}, which cannot be grouped by",
            remedy="choose a column of text or numbers",
        )
    coded = column.dictionary_encode(null_encoding="encode")
    values = coded.dictionary.to_pylist()
    if len(values) > MOST_VALUES:
        raise UsageError(
            f"{escape(by)} has {len(values):,} values; at most {MOST_VALUES} can be evaluated",
            remedy="choose a column with fewer values",
        )
    codes = np.asarray(coded.indices)
    order = np.argsort(-np.bincount(codes, minlength=len(values)), kind="stable").tolist()
    return [(str(values[code]), codes == code) for code in order]


def _annotators(
    matched: GoldPairs, judged: ScoredPairs, options: EvaluateOptions
) -> tuple[tuple[Annotator, ...], float | None]:
    votes = matched.annotations
    if votes is None:
        return (), None
    named = predicted_classes(judged.preference, judged.tie, options.tie_band)
    rows = compare_annotators(votes.pairs, votes.annotators, votes.classes, named, votes.names)
    kappa = pairwise_kappa(votes.pairs, votes.annotators, votes.classes)
    return tuple(sorted(rows, key=lambda row: (-row.votes, row.name))), kappa
