"""The commands about trust: fit, apply and show calibrators; evaluate a judge against gold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from steelyard.cli.common import (
    PATH,
    comparison_map_option,
    emit,
    grouped,
    json_option,
    map_option,
    print_notes,
    remote_option,
)

table_option = click.option(
    "--from",
    "table",
    type=PATH,
    help="Another tool's verdicts or scores in Parquet, in place of RUN.",
)


# How to read another tool's table; a run needs none of these.
source_options = grouped(
    click.option("--logit", metavar="COLUMN", help="Column of logits, such as score differences."),
    click.option("--preference", metavar="COLUMN", help="Column of P(a is better), from 0 to 1."),
    comparison_map_option,
)


gold_options = grouped(
    click.option(
        "--gold",
        type=PATH,
        help="Parquet with pair_id and gold.  [default: the gold in the run's shards]",
    ),
    map_option(
        "Column of the gold file to read a role from: pair_id, gold, votes_a, annotator, ..."
        " Repeatable.",
        "--gold-map",
    ),
)


def make_source(path: Path, options: dict[str, Any]) -> Any:
    """Return the source that an argument names; take its options out of `options`."""
    from steelyard.evaluation.judged_pairs import Source

    columns = options.pop("column_map")
    logit, preference = options.pop("logit"), options.pop("preference")
    if logit and preference:
        raise click.UsageError("give --logit or --preference, not both")
    if logit:
        columns |= {"logit": logit, "score": logit}
    if preference:
        columns["preference"] = preference
    return Source(path, columns)


@click.group()
def calibrate() -> None:
    """Turn raw preferences into calibrated probabilities."""


@calibrate.command()
@click.argument("run", required=False, type=PATH)
@table_option
@source_options
@gold_options
@click.option(
    "--out",
    type=PATH,
    default=Path("calibrator.json"),
    help="File to write the calibrator to. The looks at gold of one that is there go on.",
)
@click.option(
    "--method",
    default="auto",
    metavar="METHOD",
    help="Method of docs/calibration.md, or `auto` to choose one by cross-validation.",
)
@click.option(
    "--agreement",
    type=float,
    help="Also find which verdicts agree with gold at least this often, such as 0.9; they are"
    " marked as trusted.",
)
@click.option("--confidence", default=0.95, help="Confidence level of the --agreement guarantee.")
@click.option(
    "--content-free",
    type=PATH,
    metavar="RUN|FILE",
    help="Judged pairs without content, for the method `contextual`.",
)
@click.option("--seed", default=0, help="Seed of folds and splits.")
@json_option
def fit(run: Path | None, table: Path | None, gold: Path | None, **options: Any) -> None:
    """Fit a calibrator to the gold labels of RUN, or of a table given by --from."""
    from steelyard.cli.evaluation_text import format_fit
    from steelyard.evaluation.fit import FitOptions, fit_calibrator
    from steelyard.store.calibration import save_calibrator
    from steelyard.store.durable import check_out

    path = run or table
    if path is None or (run and table):
        raise click.UsageError("give either RUN or --from FILE")
    source, out, columns = make_source(path, options), options.pop("out"), options.pop("gold_map")
    check_out(out, b"{", read=(table, gold, options["content_free"]))
    fitted = fit_calibrator(source, gold, FitOptions(**options, previous=out), columns)
    save_calibrator(out, fitted.calibrator)
    print_notes(fitted.notes)
    content = {
        "out": str(out),
        "calibrator": fitted.calibrator.to_builtins(),
        "coverage_risk": fitted.curve,
    }
    emit(content, lambda _: format_fit(fitted, out))


@calibrate.command()
@click.argument("paths", nargs=-1, type=PATH, metavar="[RUN] CALIBRATOR")
@table_option
@source_options
@click.option("--out", type=PATH, help="File to write the calibrated table to, with --from.")
@click.option(
    "--force", is_flag=True, help="Apply it even if it was fitted to another judge's verdicts."
)
@json_option
def apply(
    paths: tuple[Path, ...], table: Path | None, out: Path | None, force: bool, **options: Any
) -> None:
    """Apply a calibrator to the verdicts of RUN, or of a table given by --from.

    The judge is not needed, and raw preferences stay as they are.
    """
    from steelyard.cli.evaluation_text import format_applied
    from steelyard.evaluation.apply import apply_calibrator
    from steelyard.store.durable import check_out

    if len(paths) != (1 if table else 2):
        raise click.UsageError("give RUN and CALIBRATOR, or --from FILE and CALIBRATOR")
    if out and not table:
        raise click.UsageError("--out is for tables: a run keeps its calibrated verdicts itself")
    if out:
        check_out(out, b"PAR1", read=(table, paths[-1]))
    source = make_source(table or paths[0], options)
    applied = apply_calibrator(source, paths[-1], out, force=force)
    print_notes(applied.notes)
    emit(applied, format_applied, lambda _: applied.to_json())


@calibrate.command()
@click.argument("calibrator", type=PATH, metavar="CALIBRATOR|RUN")
@json_option
def show(calibrator: Path) -> None:
    """Show what a calibrator does and what it was fitted on.

    For a run, this is the calibrator that was applied to it.
    """
    from steelyard.cli.evaluation_text import format_calibrator
    from steelyard.store.calibration import shown_calibrator

    shown = shown_calibrator(calibrator)
    emit(shown, format_calibrator, lambda _: shown.to_builtins())


@click.command()
@click.argument("source", type=PATH, metavar="RUN|FILE")
@gold_options
@source_options
@click.option("--by", metavar="COLUMN", help="Repeat the report for each value of this column.")
@click.option("--tie-band", default=0.0, help="Largest distance from 0.5 that counts as a tie.")
@click.option(
    "--replicates",
    default=1000,
    help="Bootstrap replicates for intervals of calibration errors and changes; 0 for none.",
)
@click.option("--seed", default=0, help="Seed of the bootstrap.")
@click.option(
    "--diagram", type=PATH, help="Reliability diagram to write: .svg or .png (extra `plot`)."
)
@click.option(
    "--inspect-log",
    "log",
    type=PATH,
    metavar="FILE",
    help="Also write it as a log that Inspect reads: .json, with the pairs and their texts.",
)
@remote_option
@json_option
def evaluate(
    source: Path,
    gold: Path | None,
    diagram: Path | None,
    log: Path | None,
    *,
    remote: bool,
    **options: Any,
) -> None:
    """Measure a judge against gold labels.

    Prints agreement, calibration, and position and length bias, with 95% intervals.

    The source is a run, or Parquet with the verdicts or scores of another tool.
    """
    from steelyard.cli.evaluation_text import format_report
    from steelyard.cli.plots import check_diagram, plot_reliability
    from steelyard.evaluation.evaluate import EvaluateOptions, evaluate_source
    from steelyard.evaluation.inspect_log import check_log, write_log

    read, columns = make_source(source, options), options.pop("gold_map")
    if diagram:
        check_diagram(diagram)
    if log:
        check_log(log, read=(gold, source))
    report = evaluate_source(read, gold, EvaluateOptions(**options), columns)
    print_notes(report.notes)
    emit(report, format_report, lambda _: report.to_json())
    if log:
        print_notes(write_log(log, read, gold, report, columns, remote=remote))
    if diagram:  # last: a disk that fills up does not cost the report
        plot_reliability(diagram, report.whole)
