"""Fitting a calibrator to gold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np

from steelyard.calibrators.abstention import (
    coverage_risk,
)
from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.cross_validation import choose, fit_drawn
from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.gold_trace import GoldTrace
from steelyard.calibrators.linear import Linear
from steelyard.calibrators.looks import Asked, Split, split_gold
from steelyard.calibrators.methods import (
    CHOICES,
    METHODS,
    Curve,
    available,
    contextual,
    direction,
)
from steelyard.calibrators.stacked import Stacked
from steelyard.calibrators.ties import fit_tie
from steelyard.core.schemas import Bool
from steelyard.errors import CalibratorRefused, GoldRefused, UsageError, escape
from steelyard.evaluation.gold_join import GoldPairs, match_gold
from steelyard.evaluation.judged_pairs import (
    ORDERS,
    Source,
    binding,
    content_free,
    describe_missing,
    member_names,
)
from steelyard.evaluation.metrics.pairs import named_by_gold
from steelyard.evaluation.promise import find_predecessor, keep_promise, promise_notes
from steelyard.statistics.clusters import MIN_FOR_INTERVAL, cluster_warning
from steelyard.statistics.drift import Reference

FEWEST_PAIRS = 10
LEAST_RANGE = 0.01  # of calibrated preferences; below it they are a constant
HEAVIEST = 0.5  # share of all votes that one pair may have without a note
Fit: TypeAlias = Callable[[Features, Gold], Curve]
COLUMNS = {
    "score_ab": "preference_ab",
    "score_ba": "preference_ba",
    "longer": "both lengths",
    "members": "several judges, variants or samples",
}
NO_BOUNDS = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What a user decides about a fit."""

    method: str = "auto"
    agreement: float | None = None  # wanted of trusted verdicts; None: no threshold is fitted
    confidence: float = 0.95
    content_free: Path | None = None  # judged pairs without content, for `contextual`
    seed: int = 0
    previous: Path | None = None  # an earlier calibrator, whose looks at this gold go on


@dataclass(frozen=True, slots=True)
class FitResult:
    """A calibrator, with what the user should know of the fit."""

    calibrator: Calibrator
    curve: list[dict[str, float]]  # coverage and risk, on the gold of the threshold
    notes: tuple[str, ...]


def fit_calibrator(
    source: Source,
    gold: Path | None,
    options: FitOptions,
    gold_columns: Mapping[str, str] | None = None,
) -> FitResult:
    """Fit a calibrator to gold.

    If an agreement is wanted, instructions are halved: the curve is fitted on one half, the
    threshold on the other, because its promise holds for a curve that has not seen its gold. Where
    a calibrator is known that was fitted to some of this gold before, its looks go on (`looks`).

    Raises:
        UsageError: an unknown method, or an option out of range.
        GoldRefused: gold cannot be used.
        CalibratorRefused: there is too little gold, or the reads lack what the method needs.
    """
    _check(options)
    matched = match_gold(source, gold, gold_columns)
    features, all_gold, notes = matched.features, matched.gold, list(matched.notes)
    _check_size(source, matched, options)
    _check_sides(all_gold, options)
    missing = describe_missing(matched.table, ORDERS)
    _check_reads(source, features, missing, options)
    if missing:
        notes.append(f"pairs with gold lack {missing}: `position` cannot be fitted")
    heaviest = float(all_gold.weights.max() / all_gold.weights.sum())
    if heaviest > HEAVIEST:
        notes.append(f"a single pair has {heaviest:.0%} of all votes and dominates the fit")
    earlier = find_predecessor(source, matched, options.previous)
    before = earlier.looks if earlier else None
    asked, split = _split(matched, options, earlier)
    reference = Reference.of(matched.table["preference"].to_numpy(), matched.groups)
    if earlier is not None and split.kept:
        made = replace(earlier, reference=reference)
    else:
        made, fit_notes = _fit_curve(source, matched, split.fit, options)
        made = replace(made, reference=reference, looks=before)
        notes += fit_notes
    if asked is None:
        shown = made.curve.preference(features)
        risks = coverage_risk(shown, named_by_gold(shown, all_gold.votes))
        return FitResult(made, risks, tuple(notes))
    threshold, looks, risks = keep_promise(
        matched, made.curve, asked, split, before=before, seed=options.seed
    )
    notes += promise_notes(threshold, looks, split, before, all_gold)
    return FitResult(replace(made, selective=threshold, looks=looks), risks, tuple(notes))


def _split(
    matched: GoldPairs, options: FitOptions, earlier: Calibrator | None
) -> tuple[Asked | None, Split]:
    """Return what is asked of thresholds, and what pairs are for: without thresholds, the curve."""
    if options.agreement is None:
        every = np.ones(len(matched.rows), dtype=np.bool_)
        return None, Split(every, ~every, 0, kept=False)
    asked = Asked(options.method, options.agreement, options.confidence)
    before = earlier.looks if earlier else None
    same = before is not None and before.asked == asked and _can_go_on(earlier, matched)
    split = split_gold(matched.gold, matched.instructions, options.seed, before, same=same)
    return asked, split


def _can_go_on(earlier: Calibrator | None, matched: GoldPairs) -> bool:
    """Return whether a curve's thresholds can be tested further.

    That of a fit without thresholds has seen the gold that they were tested on.
    """
    if earlier is None or earlier.selective is None:
        return False
    return earlier.method in {"contextual", *available(matched.features)}


def _fit_curve(
    source: Source, matched: GoldPairs, rows: Bool, options: FitOptions
) -> tuple[Calibrator, list[str]]:
    """Fit a curve and the probability of ties to these of the pairs with gold."""
    features, gold, notes = matched.features.take(rows), matched.gold.take(rows), []
    method, fit, table = _method(source, features, gold, options)
    curve = fit(features, gold)
    instructions = len(np.unique(gold.groups))
    if isinstance(curve, Linear) and instructions < MIN_FOR_INTERVAL:
        curve = msgspec.structs.replace(curve, intervals={})
    if options.agreement is not None and (warning := cluster_warning(instructions)):
        notes.append(f"the half of gold that the curve is fitted on: {warning}")
    notes += _direction_notes(curve, features, gold)
    fit_notes = _fit_notes(gold, options, table)
    if isinstance(curve, Stacked):
        fit_notes["members"] = member_names(source)
    trace = None
    if matched.pair_ids is not None and instructions > 1:
        trace = GoldTrace.of(fit, features, gold, matched.pair_ids[rows], options.seed)
    made = Calibrator(
        method,
        curve,
        fit_tie(curve.preference(features), gold.votes),
        bound=binding(source),
        notes=fit_notes,
        gold=trace,
    )
    return made, notes


def _check(options: FitOptions) -> None:
    if options.method not in CHOICES:
        raise UsageError(
            f"there is no method {escape(options.method)}",
            remedy=f"choose one of: {', '.join(CHOICES)}",
        )
    if (options.method == "contextual") != (options.content_free is not None):
        raise UsageError(
            "--method contextual and --content-free need each other",
            remedy="judge a pair of texts such as N/A, then name that run with --content-free",
        )
    if options.seed < 0:
        raise UsageError(f"--seed is {options.seed}", remedy="give 0 or more")
    for name, value in (("--agreement", options.agreement), ("--confidence", options.confidence)):
        if value is not None and not 0 < value < 1:
            raise UsageError(f"{name} is {value}", remedy="give a share between 0 and 1")


def _check_sides(gold: Gold, options: FitOptions) -> None:
    """Refuse gold that names one side only, as where all first responses are the chosen ones."""
    sides = np.sign(gold.preference - 0.5)
    decided = np.count_nonzero(sides)
    one_sided = decided >= FEWEST_PAIRS and abs(sides.sum()) == decided
    if one_sided and options.method not in {"temperature", "none"}:
        side = "a" if sides.sum() > 0 else "b"
        raise GoldRefused(
            f"gold names response_{side} in all {decided:,} pairs that are decided",
            effect="nothing was fitted: a curve would learn the side, and not who is better",
            remedy="use --method temperature, which cannot lean to a side; or score a table in"
            " which both sides win",
        )


def _check_size(source: Source, matched: GoldPairs, options: FitOptions) -> None:
    pairs, groups = len(matched.rows), len(np.unique(matched.groups))
    remedy = "give more gold"
    if pairs < FEWEST_PAIRS:
        cause = f"{pairs} pairs with gold are too few: a fit needs at least {FEWEST_PAIRS}"
    elif groups < 2 and (options.method == "auto" or options.agreement is not None):
        cause = "all gold is on a single instruction: nothing can be held out"
    elif matched.raw.hard:
        cause = "the judge gives decisions without probabilities: there is nothing to calibrate"
        remedy = "judge with a protocol that reads probabilities, such as pairwise"
    else:
        return
    raise CalibratorRefused(cause, place=str(source.path), remedy=remedy)


def _check_reads(source: Source, features: Features, missing: str, options: FitOptions) -> None:
    known = available(features)
    if options.method in {"auto", "contextual", *known}:
        return
    needs = " and ".join(COLUMNS[need] for need in METHODS[options.method].needs)
    raise CalibratorRefused(
        f"{options.method} needs {needs} for every pair with gold, which these reads lack"
        + (f" ({missing})" if missing else ""),
        place=str(source.path),
        remedy=f"choose one of: auto, {', '.join(known)}",
    )


def _method(
    source: Source, features: Features, gold: Gold, options: FitOptions
) -> tuple[str, Fit, list[dict[str, Any]]]:
    if options.content_free is not None:
        curve = contextual(content_free(source, options.content_free))
        return "contextual", lambda _features, _gold: curve, []
    if options.method != "auto":
        return options.method, METHODS[options.method].fit, []
    candidates = choose(features, gold, options.seed)
    method = next(candidate.method for candidate in candidates if candidate.chosen)
    return method, partial(fit_drawn, method), [asdict(candidate) for candidate in candidates]


def _direction_notes(curve: Curve, features: Features, gold: Gold) -> list[str]:
    """Tell of a judge that is reversed or knows nothing, and of a curve that is a constant."""
    line = direction(features, gold)
    slope, (_, high) = line.coefficients["logit"], line.intervals.get("logit", NO_BOUNDS)
    notes = []
    if slope < 0:
        sure = len(np.unique(gold.groups)) >= MIN_FOR_INTERVAL and high < 0
        notes.append(
            "the judge is the wrong way round: the more it prefers a response, the fewer people do;"
            " see whether A and B are swapped in gold or in the judge's labels"
            if sure
            else "the judge's preferences do not predict gold, or predict its opposite"
        )
    made = curve.preference(features)
    if np.ptp(made) < LEAST_RANGE:
        notes.append(
            f"the calibrator is a constant: it makes {made.mean():.2f} of every preference, since"
            " what the judge says does not rise with what people say"
        )
    return notes


def _fit_notes(gold: Gold, options: FitOptions, table: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "pairs": len(gold),
        "votes": float(gold.weights.sum()),
        "tie_votes": float(gold.votes[:, 2].sum()),
        "instructions": len(np.unique(gold.groups)),
        "seed": options.seed,
        "candidates": table,
    }
