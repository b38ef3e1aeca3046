"""Calibrators and evaluations as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.linear import Linear
from steelyard.calibrators.piecewise import Histogram
from steelyard.cli.tables import format_table
from steelyard.evaluation.evaluate import Assessment, Report
from steelyard.evaluation.fit import FitResult
from steelyard.evaluation.metrics.bootstrap import FEWEST_BOOTSTRAPS, Bin, Estimate, Evaluation
from steelyard.statistics.clusters import MIN_FOR_INTERVAL

MOST_ANNOTATORS = 12
WIDTH = 41  # of the diagram's axis from 0 to 1, an odd number of characters


def format_fit(fitted: FitResult, out: Path) -> str:
    """What was fitted, and what it was chosen from."""
    blocks = [format_calibrator(fitted.calibrator), f"written to {out}"]
    candidates = fitted.calibrator.notes.get("candidates", [])
    if candidates:
        rows = [
            [
                ("* " if one["chosen"] else "  ") + one["method"],
                f"{one['log_loss']:.4f}",
                f"{one['behind']:.4f}",
                f"{one['standard_error']:.4f}",
            ]
            for one in candidates
        ]
        table = format_table(rows, ["method", "log loss", "behind", "std. error"])
        blocks.insert(0, f"held-out log loss, from the simplest method on; * is chosen\n{table}")
    if fitted.calibrator.selective:
        rows = [
            [f"{one[key]:.3f}" for key in ("coverage", "threshold", "risk")] for one in fitted.curve
        ]
        blocks.insert(-1, format_table(rows, ["coverage", "threshold", "disagreement"]))
    return "\n\n".join(blocks)


def format_calibrator(calibrator: Calibrator) -> str:
    """What a calibrator is and what it was fitted on."""
    notes = calibrator.notes
    lines = [f"method        {calibrator.method}"]
    if notes:
        lines.append(
            f"fitted on     {notes['pairs']:,} pairs, {notes['votes']:,g} votes,"
            f" {notes['instructions']:,} instructions"
        )
    lines += [f"{key:<13} {value}" for key, value in calibrator.bound.items()]
    if "forced" in notes:
        lines.append(f"forced        it was fitted on other reads: {notes['forced']}")
    lines += _curve_lines(calibrator)
    if calibrator.tie is not None:
        lines.append(f"tie           {calibrator.tie:.4f} (Davidson)")
    chosen = calibrator.selective
    if chosen is not None:
        asked = f"agreement {chosen.agreement:.0%} with confidence {chosen.confidence:.0%}"
        found = "nothing is trusted"
        if chosen.threshold is not None and chosen.observed is not None:
            found = (
                f"from a confidence of {chosen.threshold:.4f} on; {chosen.coverage:.1%} of"
                f" {chosen.pairs:,} pairs, of which {chosen.observed:.1%} agree"
            )
        lines.append(f"trusted       {asked}: {found}")
    return "\n".join(lines)


def _curve_lines(calibrator: Calibrator) -> list[str]:
    curve = calibrator.curve
    if isinstance(curve, Histogram):
        return [f"bins          {len(curve.levels)}"]
    if not isinstance(curve, Linear):
        return [f"knots         {len(curve.x)}"]
    values = {**curve.coefficients, **curve.constants}
    lines = []
    for name, value in values.items():
        low, high = curve.intervals.get(name, (None, None))
        around = "" if low is None else f"  [{low:.4f}, {high:.4f}]"
        lines.append(f"{name:<13} {value:.4f}{around}")
    if calibrator.method == "temperature":
        lines.append(f"{'temperature':<13} {1 / curve.coefficients['logit']:.4f}")
    return lines


def format_report(report: Report) -> str:
    """All metrics, the reliability diagram, and the parts and annotators where there are any."""
    whole = report.whole
    first = whole.raw
    blocks = [
        f"{first.pairs:,} pairs of {first.instructions:,} instructions; tie band"
        f" {report.options.tie_band:g}; {_intervals(report)}",
        _metrics(whole),
    ]
    for name, evaluation in _evaluations(whole):
        if any(one.pairs for one in evaluation.bins):
            blocks.append(format_reliability(evaluation.bins, f"reliability, {name}"))
    if report.parts:
        blocks.append(_parts(report))
    if report.annotators:
        blocks.append(_annotators(report))
    return "\n\n".join(blocks)


def _intervals(report: Report) -> str:
    if report.options.bootstraps < FEWEST_BOOTSTRAPS:
        return f"no intervals (--bootstraps {report.options.bootstraps})"
    if report.whole.raw.instructions < MIN_FOR_INTERVAL:
        return f"no intervals: fewer than {MIN_FOR_INTERVAL} instructions"
    return f"95% intervals from {report.options.bootstraps:,} bootstraps over instructions"


def format_reliability(bins: Sequence[Bin], title: str) -> str:
    """A reliability diagram: `o` what gold says (with its interval), `|` what was said.

    On the diagonal both fall together (`@`).
    """
    lines = [f"{title} (| said, o seen, - its interval, @ both)"]
    lines.append(f"{'preference':>12} {'pairs':>9}  said  seen  0{' ' * (WIDTH - 2)}1")
    for one in bins:
        head = f"({one.left:.1f}, {one.right:.1f}]".rjust(12) + f" {one.pairs:>9,}"
        if one.said is None or one.seen is None:
            lines.append(head)
            continue
        row = [" "] * WIDTH
        if one.low is not None and one.high is not None:
            for at in range(_place(one.low), _place(one.high) + 1):
                row[at] = "-"
        row[_place(one.said)] = "|"
        row[_place(one.seen)] = "@" if _place(one.said) == _place(one.seen) else "o"
        lines.append(f"{head}  {one.said:.2f}  {one.seen:.2f}  {''.join(row).rstrip()}")
    return "\n".join(lines)


def _place(share: float) -> int:
    return round(min(max(share, 0.0), 1.0) * (WIDTH - 1))


def _evaluations(part: Assessment) -> list[tuple[str, Evaluation]]:
    found = [("raw", part.raw)]
    return [*found, ("calibrated", part.calibrated)] if part.calibrated else found


def _metrics(part: Assessment) -> str:
    columns = [evaluation.estimates for _, evaluation in _evaluations(part)]
    header = ["metric", *(name for name, _ in _evaluations(part))]
    if part.change:
        columns, header = [*columns, part.change], [*header, "change"]
    rows = [[name, *(_shown(one.get(name)) for one in columns)] for name in columns[0]]
    return format_table(rows, header)


def _shown(estimate: Estimate | None) -> str:
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
            values = [_shown(evaluation.estimates.get(name)) for name in names]
            rows.append([str(part.value), kind, f"{evaluation.pairs:,}", *values])
    return format_table(rows, [str(report.options.by), "", "pairs", *names])


def _annotators(report: Report) -> str:
    rows = [
        [one.name, f"{one.votes:,}", _share(one.with_others), _share(one.with_judge)]
        for one in report.annotators[:MOST_ANNOTATORS]
    ]
    table = format_table(rows, ["annotator", "votes", "with others", "with judge"])
    hidden = len(report.annotators) - MOST_ANNOTATORS
    table += f"\nand {hidden:,} more (--json has all)" if hidden > 0 else ""
    kappa = report.annotator_kappa
    return table + (f"\nmean pairwise kappa {kappa:.4f}" if kappa is not None else "")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
