"""Fitting a calibrator to gold and applying it: files in, files out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from steelyard.calibrators.abstention import (
    TrustThreshold,
    coverage_risk,
    fit_trust_threshold,
    instructions_needed,
    thresholds_of,
)
from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.cross_validation import choose, grouped_folds
from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.linear import Linear
from steelyard.calibrators.methods import CHOICES, FLATTEST, METHODS, Curve, available, contextual
from steelyard.calibrators.ties import fit_tie
from steelyard.core.schemas import Bool
from steelyard.errors import CalibratorRefused, UsageError, escape
from steelyard.evaluation.gold_join import GoldPairs, match_gold
from steelyard.evaluation.judged_pairs import (
    ORDERS,
    Source,
    binding,
    content_free,
    describe_differences,
    describe_missing,
    optional_column,
    read_pairs,
)
from steelyard.evaluation.metrics.pairs import named_by_gold
from steelyard.statistics.clusters import MIN_FOR_INTERVAL, cluster_warning
from steelyard.statistics.drift import Drift, Reference, measure_drift
from steelyard.store.rundir import RunDir
from steelyard.store.verdicts import handoff
from steelyard.store.verdicts.calibration import calibrate_file, load_calibrator, save_calibrator

FEWEST_PAIRS = 10
HEAVIEST = 0.5  # share of all votes that one pair may have without a note
COLUMNS = {"score_ab": "preference_ab", "score_ba": "preference_ba", "longer": "both lengths"}


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What a user decides about a fit."""

    method: str = "auto"
    agreement: float | None = None  # asked of trusted verdicts; None: no threshold is fitted
    confidence: float = 0.95
    content_free: Path | None = None  # judged pairs without content, for `contextual`
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Fitted:
    """A calibrator, and what to tell the user."""

    calibrator: Calibrator
    curve: list[dict[str, float]]  # coverage and risk, on the gold of the threshold
    notes: tuple[str, ...]


def fit_calibrator(
    source: Source,
    gold: Path | None,
    options: FitOptions,
    gold_columns: Mapping[str, str] | None = None,
) -> Fitted:
    """Fit a calibrator to gold.

    Where a threshold is asked for, instructions are halved: the curve is fitted on one half, the
    threshold on the other, because its promise holds for a curve that has not seen its gold.

    Raises:
        UsageError: an unknown method, or an option out of range.
        GoldRefused: gold cannot be used.
        CalibratorRefused: there is too little of it, or the reads lack what the method needs.
    """
    _check(options)
    matched = match_gold(source, gold, gold_columns)
    features, all_gold, notes = matched.features, matched.gold, list(matched.notes)
    _check_size(source, matched, options)
    missing = describe_missing(matched.table, ORDERS)
    _check_reads(source, features, missing, options)
    if missing:
        notes.append(f"pairs with gold lack {missing}: `position` cannot be fitted")
    heaviest = float(all_gold.weights.max() / all_gold.weights.sum())
    if heaviest > HEAVIEST:
        notes.append(f"one pair has {heaviest:.0%} of all votes: the fit is about that pair")
    half = np.ones(len(all_gold), dtype=np.bool_)
    if options.agreement is not None:
        half = grouped_folds(all_gold.groups, 2, options.seed) == 0
    mine, theirs = features.take(half), all_gold.take(half)
    method, curve, table = _curve(source, mine, theirs, options)
    fitted_on = len(np.unique(theirs.groups))
    if isinstance(curve, Linear) and fitted_on < MIN_FOR_INTERVAL:
        curve = replace(curve, intervals={})
    if options.agreement is not None and (few := cluster_warning(fitted_on)):
        notes.append(f"the half of gold that the curve is fitted on is of {few}")
    if isinstance(curve, Linear) and curve.coefficients.get("logit", 1.0) <= FLATTEST:
        notes.append("the judge's preferences say nothing about gold, or its opposite")
    tie = fit_tie(curve.preference(mine), theirs.votes)
    threshold, risks = _threshold(curve, features, all_gold, ~half, options)
    if threshold is not None and threshold.threshold is None:
        notes.append(_no_threshold(threshold, all_gold))
    raw = matched.table["preference"].to_numpy()
    calibrator = Calibrator(
        method=method,
        curve=curve,
        tie=tie,
        selective=threshold,
        reference=Reference.of(raw),
        bound=binding(source),
        notes=_fit_notes(theirs, options, table),
    )
    return Fitted(calibrator, risks, tuple(notes))


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying a calibrator did."""

    place: str
    rows: int
    drift: Drift | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "place": self.place,
            "pairs": self.rows,
            "drift": asdict(self.drift) if self.drift else None,
        }


def apply_calibrator(source: Source, path: Path, out: Path | None, *, force: bool) -> Applied:
    """Give verdicts their calibrated columns; no judge is loaded and raw values stay.

    A run keeps the calibrator as calibration.json, and its hand-off file is written again. A table
    is written to `out` with the columns added.

    Raises:
        CalibratorRefused: it was fitted under something else, or needs what the reads lack.
        RunLocked: the run is being written.
    """
    calibrator = load_calibrator(path)
    if words := _check_binding(source, calibrator, path, force=force):
        calibrator = replace(calibrator, notes={**calibrator.notes, "forced": words})
    pairs = read_pairs(source)
    missing = _missing(calibrator, pairs.table, str(source.path))
    drift = None
    if calibrator.reference is not None:
        drift = measure_drift(calibrator.reference, pairs.table["preference"].to_numpy())
    notes = [*pairs.notes, *missing, *([_drift_note(drift)] if drift and drift.drifted else [])]
    count = len(pairs)
    del pairs  # the memory is DuckDB's from here on
    if not source.is_run:
        if out is None:
            raise UsageError("a table needs a place for the result", remedy="name it with --out")
        columns = {name: one for name, one in source.columns.items() if name != "score"}
        rows = calibrate_file(source.path, columns, calibrator, out)
        return Applied(str(out), rows, drift, tuple(notes))
    run = RunDir(source.path)
    with run.lock():
        save_calibrator(run.calibration, calibrator)
        if run.database.exists():
            handoff.recalibrate(run)
    return Applied(str(source.path), count, drift, tuple(notes))


def _check(options: FitOptions) -> None:
    if options.method not in CHOICES:
        raise UsageError(
            f"no method is called {escape(options.method)}",
            remedy=f"choose one of: {', '.join(CHOICES)}",
        )
    if (options.method == "contextual") != (options.content_free is not None):
        raise UsageError(
            "`contextual` and --content-free belong together",
            remedy="judge a pair of texts such as N/A, then name that run with --content-free",
        )
    if options.seed < 0:
        raise UsageError(f"--seed is {options.seed}", remedy="give a number from 0 on")
    for name, value in (("--agreement", options.agreement), ("--confidence", options.confidence)):
        if value is not None and not 0 < value < 1:
            raise UsageError(f"{name} is {value}", remedy="give a share between 0 and 1")


def _check_size(source: Source, matched: GoldPairs, options: FitOptions) -> None:
    pairs, groups = len(matched.rows), len(np.unique(matched.groups))
    if pairs < FEWEST_PAIRS:
        cause = f"{pairs} pairs with gold are too few to fit anything; {FEWEST_PAIRS} are the least"
    elif groups < 2 and (options.method == "auto" or options.agreement is not None):
        cause = "all gold is of one instruction: nothing can be held out"
    elif matched.raw.hard:
        cause = "the judge gives decisions without probabilities: there is nothing to calibrate"
    else:
        return
    raise CalibratorRefused(
        cause, place=str(source.path), effect="no calibrator was written", remedy="give more gold"
    )


def _check_reads(source: Source, features: Features, missing: str, options: FitOptions) -> None:
    known = available(features)
    if options.method in {"auto", "contextual", *known}:
        return
    needs = " and ".join(COLUMNS[one] for one in METHODS[options.method].needs)
    raise CalibratorRefused(
        f"{options.method} needs {needs} of every pair with gold, which these reads lack"
        + (f" ({missing})" if missing else ""),
        place=str(source.path),
        effect="no calibrator was written",
        remedy=f"choose one of: auto, {', '.join(known)}",
    )


def _curve(
    source: Source, features: Features, gold: Gold, options: FitOptions
) -> tuple[str, Curve, list[dict[str, Any]]]:
    if options.method == "auto":
        candidates = choose(features, gold, options.seed)
        method = next(candidate.method for candidate in candidates if candidate.chosen)
        return (
            method,
            METHODS[method].fit(features, gold),
            [asdict(candidate) for candidate in candidates],
        )
    if options.content_free is not None:
        return "contextual", contextual(content_free(source, options.content_free)), []
    return options.method, METHODS[options.method].fit(features, gold), []


def _threshold(
    curve: Curve, features: Features, gold: Gold, rows: Bool, options: FitOptions
) -> tuple[TrustThreshold | None, list[dict[str, float]]]:
    if options.agreement is None:
        rows = ~rows  # the curve is shown on what it was fitted on
    preference, votes = curve.preference(features.take(rows)), gold.votes[rows]
    agrees = named_by_gold(preference, votes)
    risks = coverage_risk(preference, agrees)
    if options.agreement is None:
        return None, risks
    fitted = fit_trust_threshold(
        preference,
        agrees,
        gold.groups[rows],
        options.agreement,
        options.confidence,
        thresholds=thresholds_of(curve.preference(features.take(~rows))),
        largest=int(gold.sizes.max()),
    )
    return fitted, risks


def _no_threshold(asked: TrustThreshold, gold: Gold) -> str:
    sizes = gold.sizes
    needed = instructions_needed(sizes, asked.agreement, asked.confidence, int(sizes.max()))
    return (
        f"no threshold keeps this promise on gold of {len(sizes):,} instructions (an agreement of"
        f" {asked.agreement:.0%} with confidence {asked.confidence:.0%}): no verdict is trusted;"
        f" with no wrong verdict at all gold of about {2 * needed:,} such instructions would do,"
        " half of them to fit the curve"
    )


def _fit_notes(gold: Gold, options: FitOptions, table: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "pairs": len(gold),
        "votes": float(gold.weights.sum()),
        "tie_votes": float(gold.votes[:, 2].sum()),
        "instructions": len(np.unique(gold.groups)),
        "seed": options.seed,
        "candidates": table,
    }


def _check_binding(source: Source, calibrator: Calibrator, path: Path, *, force: bool) -> str:
    """In what the reads differ from those that it was fitted on; empty: in nothing."""
    words = describe_differences(calibrator.bound, binding(source))
    if words and not force:
        raise CalibratorRefused(
            f"the calibrator was fitted under something else ({words})",
            place=str(path),
            effect="nothing was changed",
            remedy="fit one on gold for these reads; --force applies it all the same",
        )
    return words


def _missing(calibrator: Calibrator, table: pa.Table, place: str) -> list[str]:
    """What the calibrator reads and some rows lack, for a note; refused if all lack it."""
    columns = calibrator.curve.columns
    lacking = [name for name in columns if optional_column(table, name) is None]
    if lacking:
        raise CalibratorRefused(
            f"the calibrator ({calibrator.method}) needs {' and '.join(sorted(lacking))},"
            " which these reads lack",
            place=place,
            effect="nothing was changed",
            remedy="fit one with a method that needs less, such as platt; --map ROLE=COLUMN names"
            " a table's columns",
        )
    missing = describe_missing(table, columns)
    return [f"pairs lack {missing}: they get no calibrated_preference"] if missing else []


def _drift_note(drift: Drift) -> str:
    return (
        f"the pairs have drifted from those that the calibrator was fitted on: stability index"
        f" {drift.psi:.2f} (0.2 is much), Kolmogorov-Smirnov {drift.ks:.2f}"
        f" (p = {drift.p_value:.2g}); judge some of these pairs by people and fit again"
    )
