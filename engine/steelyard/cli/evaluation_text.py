"""Calibrators and evaluations as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steelyard.calibrators.abstention import TrustThreshold
from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.looks import Looks
from steelyard.calibrators.piecewise import Histogram, PiecewiseLinear
from steelyard.calibrators.stacked import Stacked
from steelyard.cli.tables import format_fields, format_table
from steelyard.errors import escape
from steelyard.evaluation.apply import ApplyResult
from steelyard.evaluation.evaluate import Assessment, Report
from steelyard.evaluation.fit import FitResult
from steelyard.evaluation.metrics.bootstrap import MIN_REPLICATES, Bin, Estimate, Evaluation
from steelyard.statistics.clusters import MIN_FOR_INTERVAL

MOST_ANNOTATORS = 12
WIDTH = 41  # of the diagram's axis from 0 to 1, an odd number of characters


def format_fit(fitted: FitResult, out: Path) -> str:
    """Return a fitted calibrator, the methods it was chosen from, and its coverage curve."""
    blocks = []
    candidates = fitted.calibrator.notes.get("candidates", [])
    if candidates:
        rows = [
            [("* " if chosen else "  ") + method, *(f"{number:.4f}" for number in numbers)]
            for method, *numbers, chosen in map(dict.values, candidates)
        ]
        table = format_table(rows, ["method", "log loss", "above best", "std. error"])
        blocks.append(f"held-out log loss, simplest method first; * is chosen\n{table}")
    blocks.append(format_calibrator(fitted.calibrator))
    if fitted.calibrator.selective:
        keys = ("coverage", "threshold", "risk")
        points = [[f"{point[key]:.3f}" for key in keys] for point in fitted.curve]
        blocks.append(format_table(points, ["coverage", "threshold", "disagreement"]))
    return "\n\n".join([*blocks, f"written to {out}"])


def format_calibrator(calibrator: Calibrator) -> str:
    """Return what a calibrator does and what it was fitted on."""
    notes = calibrator.notes
    fields = [("method", calibrator.method)]
    if {"pairs", "votes", "instructions"} <= notes.keys():
        sizes = "{pairs:,} pairs, {votes:,g} votes, {instructions:,} instructions"
        fields.append(("fitted on", sizes.format_map(notes)))
    fields += calibrator.bound.items()
    if "forced" in notes:
        words = f"applied to other reads than it was fitted on: {notes['forced']}"
        fields.append(("forced", words))
    fields += _curve_fields(calibrator)
    if calibrator.tie is not None:
        fields.append(("tie", f"{calibrator.tie:.4f} (Davidson)"))
    if calibrator.selective is not None:
        fields.append(("trusted", _trusted(calibrator.selective)))
    if calibrator.looks is not None:
        fields.append(("looks", _looks(calibrator.looks)))
    return format_fields(fields)


def _trusted(selective: TrustThreshold) -> str:
    if selective.threshold is None or selective.observed is None:
        result = "no verdict can be trusted"
    else:
        result = (
            f"verdicts with a confidence of at least {selective.threshold:.4f}:"
            f" {selective.coverage:.1%} of {selective.pairs:,} pairs, of which"
            f" {selective.observed:.1%} agree with gold"
        )
    return (
        f"agreement of {selective.agreement:.0%}, guaranteed with {selective.confidence:.0%}"
        f" confidence: {result}"
    )


def _looks(looks: Looks) -> str:
    new = " + ".join(f"{count:,}" for count in looks.instructions)
    seeds = ", ".join(map(str, looks.seeds))
    return (
        f"{len(looks.seeds)} (seeds {seeds}), at {new} instructions; curve and thresholds no."
        f" {looks.rule + 1}"
    )


def _curve_fields(calibrator: Calibrator) -> list[tuple[str, str]]:
    curve = calibrator.curve
    if isinstance(curve, Histogram):
        return [("bins", str(len(curve.levels)))]
    if isinstance(curve, PiecewiseLinear):
        return [("knots", str(len(curve.x)))]
    if isinstance(curve, Stacked):
        return _stacked_fields(curve, calibrator.notes.get("members", ()))
    fields = []
    for name, value in {**curve.coefficients, **curve.constants}.items():
        low, high = curve.intervals.get(name, (None, None))
        interval = "" if low is None else f"  [{low:.4f}, {high:.4f}]"
        fields.append((name, f"{value:.4f}{interval}"))
    if calibrator.method == "temperature":
        fields.append(("temperature", f"{1 / curve.coefficients['logit']:.4f}"))
    return fields


def _stacked_fields(curve: Stacked, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the slopes of all reads together and of each member."""
    fields = [("intercept", f"{curve.intercept:.4f}"), ("all reads", f"{curve.logit:.4f}")]
    for weight in curve.weights:
        name = f"  ({escape(names[weight.member - 1])})" if weight.member <= len(names) else ""
        fields.append((f"member {weight.member} {weight.value}", f"{weight.slope:.4f}{name}"))
    return fields


def format_applied(applied: ApplyResult) -> str:
    """Return where calibrated columns are, and what the drift test could have noticed."""
    lines = [f"{applied.path}: {applied.pairs:,} pairs have calibrated columns"]
    if applied.drift is not None and not applied.drift.drifted:
        lines.append(
            "no drift of raw preferences is noticed; in 4 of 5 cases one would be from a"
            f" Kolmogorov-Smirnov distance of {applied.drift.smallest:.2f} on. This does not show"
            " that the calibrator still holds: only labels of these pairs would"
        )
    return "\n".join(lines)


def format_report(report: Report) -> str:
    """Return all metrics, reliability diagrams, and results by part and by annotator."""
    whole = report.whole
    blocks = [
        *([report.fit_gold.words] if report.fit_gold and report.fit_gold.words else []),
        f"{whole.raw.pairs:,} pairs of {whole.raw.instructions:,} instructions; tie band"
        f" {report.options.tie_band:g}; {_intervals(report)}",
        *_headline(whole),
        _metrics(whole),
    ]
    for name, evaluation in _evaluations(whole):
        if any(entry.pairs for entry in evaluation.bins):
            blocks.append(format_reliability(evaluation.bins, f"reliability, {name}"))
    if report.parts:
        blocks.append(_parts(report))
    if report.annotators:
        blocks.append(_annotators(report))
    return "\n\n".join(blocks)


def _headline(whole: Assessment) -> list[str]:
    """Return what calibration has changed, by the two scores whose changes have intervals."""
    words = {"log_loss": "log loss", "brier": "Brier score"}
    parts = [
        f"{words[name]} {_estimate(change)}"
        for name in words
        if (change := whole.change.get(name)) is not None
    ]
    return [f"calibration changes {' and '.join(parts)}; less is better"] if parts else []


def _intervals(report: Report) -> str:
    replicates = report.options.replicates
    if report.whole.raw.instructions < MIN_FOR_INTERVAL:
        return f"no intervals: fewer than {MIN_FOR_INTERVAL} instructions"
    drawn = f"from {replicates:,} bootstrap replicates"
    return (
        "95% intervals over instructions; those of calibration errors, of parts of the Brier score"
        f" and of changes {drawn if replicates >= MIN_REPLICATES else 'are left out'}"
    )


def format_reliability(bins: Sequence[Bin], title: str) -> str:
    """Draw a reliability diagram.

    `|` is the judge's mean preference, `o` the share that gold gives to a, with its interval; `@`
    is both.
    """
    lines = [
        f"{title} (| judge, o gold, - its interval, @ both)",
        f"{'preference':>12} {'pairs':>9} judge  gold  0{' ' * (WIDTH - 2)}1",
    ]
    for entry in bins:
        head = f"({entry.left:.1f}, {entry.right:.1f}]".rjust(12) + f" {entry.pairs:>9,}"
        if entry.said is None or entry.seen is None:
            lines.append(head)
            continue
        axis = [" "] * WIDTH
        if entry.low is not None and entry.high is not None:
            low, high = _column(entry.low), _column(entry.high)
            axis[low : high + 1] = "-" * (high + 1 - low)
        said, seen = _column(entry.said), _column(entry.seen)
        axis[said] = "|"
        axis[seen] = "@" if said == seen else "o"
        lines.append(f"{head}  {entry.said:.2f}  {entry.seen:.2f}  {''.join(axis).rstrip()}")
    return "\n".join(lines)


def _column(share: float) -> int:
    return round(min(max(share, 0.0), 1.0) * (WIDTH - 1))


def _evaluations(part: Assessment) -> list[tuple[str, Evaluation]]:
    raw = [("raw", part.raw)]
    return [*raw, ("calibrated", part.calibrated)] if part.calibrated else raw


def _metrics(part: Assessment) -> str:
    columns = {name: evaluation.estimates for name, evaluation in _evaluations(part)}
    if part.change:
        columns["change"] = part.change
    rows = [
        [name, *(_estimate(column.get(name)) for column in columns.values())]
        for name in part.raw.estimates
    ]
    return format_table(rows, ["metric", *columns])


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def _parts(report: Report) -> str:
    names = ("agreement", "macro_f1", "mse", "log_loss", "brier", "ece_debiased", "consistency")
    rows = []
    for part in report.parts:
        for kind, evaluation in _evaluations(part):
            values = [_estimate(evaluation.estimates.get(name)) for name in names]
            rows.append([str(part.value), kind, f"{evaluation.pairs:,}", *values])
    return format_table(rows, [str(report.options.by), "", "pairs", *names])


def _annotators(report: Report) -> str:
    rows = [
        [person.name, f"{person.votes:,}", person.with_others, person.with_judge]
        for person in report.annotators[:MOST_ANNOTATORS]
    ]
    lines = [format_table(rows, ["annotator", "votes", "with others", "with judge"])]
    hidden = len(report.annotators) - MOST_ANNOTATORS
    if hidden > 0:
        lines.append(f"and {hidden:,} more; --json has all of them")
    if report.annotator_kappa is not None:
        lines.append(f"mean pairwise kappa {report.annotator_kappa:.4f}")
    return "\n".join(lines)
