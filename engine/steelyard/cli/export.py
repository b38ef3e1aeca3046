"""The command `export`: verdicts as training data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from steelyard.cli.common import as_json, print_json, run_argument
from steelyard.core.config import parse_pairs
from steelyard.export.options import FORMATS, FORMS, NGRAM, SELECT, TARGETS


@click.command()
@run_argument
@click.option("--format", required=True, type=click.Choice(FORMATS), help="TRL's dataset format.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to make.")
@click.option("--dry-run", is_flag=True, help="Print what each filter removes; write nothing.")
@click.option(
    "--form", default=FORMS[0], show_default=True, type=click.Choice(FORMS), help="Of the texts."
)
@click.option("--where", metavar="SQL", help="Only verdicts for which this holds.")
@click.option("--min-probability", type=float, help="Of the chosen response, such as 0.8.")
@click.option("--margin", metavar="LOW..HIGH", help="Log-odds of the chosen response.")
@click.option("--consistent", is_flag=True, help="Only verdicts that both orders agree on.")
@click.option("--min-label-mass", type=float, help="Least probability on the labels.")
@click.option("--trusted", is_flag=True, help="Only what the calibrator trusts.")
@click.option(
    "--select",
    type=click.Choice(SELECT),
    help="Pairs of an instruction.  [default: all; sft: best-worst]",
)
@click.option("--per-instruction", type=int, metavar="N", help="At most so many pairs each.")
@click.option(
    "--balance-length",
    is_flag=True,
    help="Chosen responses longer as often as shorter, by as much.",
)
@click.option(
    "--near-duplicates", type=float, metavar="SIMILARITY", help="Drop instructions so like others."
)
@click.option(
    "--decontaminate",
    multiple=True,
    metavar="FILE",
    help="Drop instructions of this evaluation (Parquet); repeatable.",
)
@click.option("--decontaminate-column", metavar="COLUMN", help="Of its instructions.")
@click.option("--ngram", type=int, help=f"Words in common that count.  [default: {NGRAM}]")
@click.option("--test", default=0.0, help="Share of instructions for a split `test`.")
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    help="Of autorater and grpo.  [default: gold, where the run has any]",
)
@click.option(
    "--responses",
    multiple=True,
    metavar="FILE",
    help="Texts that are not in the run's shards, a row a response; repeatable.",
)
@click.option(
    "--map",
    "column_map",
    multiple=True,
    metavar="ROLE=COLUMN",
    help="Column of --responses for instruction_id, instruction, model, response; repeatable.",
)
@click.option("--seed", default=0, show_default=True, help="Of splits and draws.")
@click.option("--rows-per-file", default=100_000, show_default=True, help="Of a Parquet file.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@as_json
def export(
    run: Path, out: Path | None, dry_run: bool, json_out: bool, quiet: bool, **options: Any
) -> None:
    """Write a run's verdicts as a dataset to train on."""
    from steelyard.core.progress import Reporter
    from steelyard.export.card import format_books
    from steelyard.export.exporter import Responses, export_dataset
    from steelyard.export.options import ExportOptions, read_margin

    if out is None and not dry_run:
        raise click.UsageError("give --out DIR, or --dry-run")
    columns = parse_pairs("--map", options.pop("column_map"), empty=True)
    files = options.pop("responses")
    if columns and not files:
        raise click.UsageError("--map is about --responses: name their file as well")
    texts = Responses(files, columns) if files else None
    wanted = ExportOptions(**{**options, "margin": read_margin(options["margin"])})
    content = export_dataset(run, None if dry_run else out, wanted, texts, Reporter(quiet=quiet))
    if json_out:
        print_json(content)
    else:
        click.echo(format_books(content))
