"""Commands about trust: fit, apply and show calibrators; evaluate a judge against gold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from steelyard.cli.common import Command, as_json, print_json
from steelyard.core.config import parse_pairs

PATH = click.Path(path_type=Path)


def source_options(command: Command) -> Command:
    """How a table of another tool is read; a run needs none of these."""
    options: list[Callable[[Command], Command]] = [
        click.option("--logit", metavar="COLUMN", help="Logits, such as score differences."),
        click.option("--preference", metavar="COLUMN", help="P(a is better), from 0 to 1."),
        click.option(
            "--map",
            "column_map",
            multiple=True,
            metavar="ROLE=COLUMN",
            help="Read another role of a table from this column; repeatable.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def gold_options(command: Command) -> Command:
    """Where gold is."""
    file = click.option(
        "--gold",
        type=PATH,
        help="Parquet with pair_id and gold.  [default: the gold of the shards]",
    )
    mapped = click.option(
        "--gold-map",
        multiple=True,
        metavar="ROLE=COLUMN",
        help="Column of the gold file for pair_id, gold, votes_a, annotator, ...; repeatable.",
    )
    return file(mapped(command))


def make_source(path: Path, options: dict[str, Any]) -> Any:
    """The source that an argument and the options name."""
    from steelyard.evaluation.judged_pairs import Source

    columns = parse_pairs("--map", options.pop("column_map"), empty=True)
    logit, preference = options.pop("logit"), options.pop("preference")
    if logit and preference:
        raise click.UsageError("give --logit or --preference, not both")
    if logit:
        columns |= {"logit": logit, "score": logit}
    if preference:
        columns["preference"] = preference
    return Source(path, columns)


def print_notes(notes: tuple[str, ...]) -> None:
    """Notes on stderr."""
    for note in notes:
        click.echo(f"note: {note}", err=True)


@click.group()
def calibrate() -> None:
    """Turn raw preferences into probabilities that can be trusted."""


@calibrate.command()
@click.argument("run", required=False, type=PATH)
@click.option("--from", "table", type=PATH, help="Verdicts or scores of any tool, Parquet.")
@source_options
@gold_options
@click.option("--out", type=PATH, default=Path("calibrator.json"), show_default=True, help="Where.")
@click.option(
    "--method", default="auto", show_default=True, help="auto, or one of docs/calibration.md."
)
@click.option(
    "--agreement", type=float, help="Trust verdicts that agree with gold this often, such as 0.9."
)
@click.option("--confidence", default=0.95, show_default=True, help="Of --agreement.")
@click.option("--content-free", type=PATH, help="Judged pairs without content, for `contextual`.")
@click.option("--seed", default=0, show_default=True, help="Of folds and halves.")
@as_json
def fit(
    run: Path | None, table: Path | None, gold: Path | None, gold_map: tuple[str, ...],
    json_out: bool, **options: Any,
) -> None:  # fmt: skip
    """Fit a calibrator to gold: of RUN, or of a table with --from."""
    import json

    from steelyard.cli.evaluation_text import format_fit
    from steelyard.evaluation.fit import FitOptions, fit_calibrator
    from steelyard.store.verdicts.calibration import check_out, save_calibrator

    source, out = make_source(_one(run, table), options), options.pop("out")
    check_out(out, b"{", read=(table, gold, options["content_free"]))
    columns = parse_pairs("--gold-map", gold_map, empty=True)
    fitted = fit_calibrator(source, gold, FitOptions(**options), columns)
    save_calibrator(out, fitted.calibrator)
    print_notes(fitted.notes)
    if json_out:
        content = json.loads(fitted.calibrator.to_json())
        print_json({"out": str(out), "calibrator": content, "coverage_risk": fitted.curve})
    else:
        click.echo(format_fit(fitted, out))


@calibrate.command()
@click.argument("places", nargs=-1, type=PATH, metavar="[RUN] CALIBRATOR")
@click.option("--from", "table", type=PATH, help="Verdicts or scores of any tool, Parquet.")
@source_options
@click.option("--out", type=PATH, help="Where the table with the calibrated columns goes.")
@click.option("--force", is_flag=True, help="Even if it was fitted under another judge.")
@as_json
def apply(
    places: tuple[Path, ...], table: Path | None, force: bool, json_out: bool, **options: Any
) -> None:  # fmt: skip
    """Recompute the verdicts of RUN with a calibrator; no judge is needed, raw values stay."""
    from steelyard.evaluation.fit import apply_calibrator
    from steelyard.store.verdicts.calibration import check_out

    out: Path | None = options.pop("out")
    if len(places) != (1 if table else 2):
        raise click.UsageError("name RUN and CALIBRATOR, or --from FILE and CALIBRATOR")
    if out and not table:
        raise click.UsageError("--out is for tables; a run keeps its calibrated verdicts itself")
    if out:
        check_out(out, b"PAR1", read=(table, places[-1]))
    source = make_source(table or places[0], options)
    applied = apply_calibrator(source, places[-1], out, force=force)
    print_notes(applied.notes)
    if json_out:
        print_json(applied.to_json())
    else:
        click.echo(f"{applied.place}: {applied.rows:,} pairs have calibrated columns")


@calibrate.command()
@click.argument("calibrator", type=PATH)
@as_json
def show(calibrator: Path, json_out: bool) -> None:
    """Show what a calibrator does and what it was fitted on; RUN shows that of a run."""
    import json

    from steelyard.cli.evaluation_text import format_calibrator
    from steelyard.store.verdicts.calibration import shown_calibrator

    loaded = shown_calibrator(calibrator)
    if json_out:
        print_json(json.loads(loaded.to_json()))
    else:
        click.echo(format_calibrator(loaded))


@click.command()
@click.argument("source", type=PATH, metavar="RUN|FILE")
@gold_options
@source_options
@click.option("--by", metavar="COLUMN", help="Also apart for each value of this column.")
@click.option(
    "--tie-band", default=0.0, show_default=True, help="Preferences this near to 0.5 are ties."
)
@click.option(
    "--bootstraps", default=1000, show_default=True, help="Replicates; below 2: no intervals."
)
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@click.option("--diagram", type=PATH, help="Write a reliability diagram: .svg or .png.")
@as_json
def evaluate(
    source: Path, gold: Path | None, gold_map: tuple[str, ...], diagram: Path | None,
    json_out: bool, **options: Any,
) -> None:  # fmt: skip
    """Measure a judge against gold: agreement, calibration, position and length bias."""
    from steelyard.cli.evaluation_text import format_report
    from steelyard.cli.plots import check_place, plot_reliability
    from steelyard.evaluation.evaluate import EvaluateOptions, evaluate_source

    read = make_source(source, options)
    if diagram:
        check_place(diagram)
    columns = parse_pairs("--gold-map", gold_map, empty=True)
    report = evaluate_source(read, gold, EvaluateOptions(**options), columns)
    print_notes(report.notes)
    if json_out:
        print_json(report.to_json())
    else:
        click.echo(format_report(report))
    if diagram:  # last: a disk that fills up does not cost the report
        curves = {"raw": report.whole.raw.bins}
        if report.whole.calibrated:
            curves["calibrated"] = report.whole.calibrated.bins
        plot_reliability(diagram, curves)


def _one(run: Path | None, table: Path | None) -> Path:
    place = run or table
    if place is None or (run and table):
        raise click.UsageError("name a RUN, or a table with --from FILE")
    return place
