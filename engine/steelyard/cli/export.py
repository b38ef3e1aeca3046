"""The command `export`: verdicts as a dataset to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from steelyard.cli.common import (
    PATH,
    emit,
    json_option,
    map_option,
    quiet_option,
    remote_option,
    run_argument,
)
from steelyard.errors import EXIT_DONE, EXIT_ENVIRONMENT
from steelyard.export.options import FORMATS, FORMS, NGRAM, SELECT, TARGETS


def split_names(_ctx: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> Any:
    """Return the names in lists that commas separate."""
    return tuple(name.strip() for text in given for name in text.split(",") if name.strip())


@click.command()
@run_argument
@click.option("--format", required=True, type=click.Choice(FORMATS), help="TRL dataset format.")
@click.option("--out", type=PATH, help="Folder to create for the dataset.")
@click.option(
    "--dry-run", is_flag=True, help="Print how many verdicts each filter removes; write nothing."
)
@click.option(
    "--form", default=FORMS[0], type=click.Choice(FORMS), help="Format of the text columns."
)
@click.option(
    "--where", metavar="SQL", help="Keep verdicts for which this condition on their columns holds."
)
@click.option(
    "--min-probability",
    type=float,
    help="Keep pairs whose chosen response is better with at least this probability, such as 0.8.",
)
@click.option(
    "--margin",
    metavar="LOW..HIGH",
    help="Keep pairs whose chosen response is better by log-odds in this range, such as 0.5..4.",
)
@click.option(
    "--consistent", is_flag=True, help="Keep verdicts with the same winner in both orders."
)
@click.option(
    "--min-label-mass",
    type=float,
    help="Keep verdicts where the judge gave the labels at least this probability in both orders.",
)
@click.option("--trusted", is_flag=True, help="Keep verdicts that the calibrator trusts.")
@click.option("--correct", is_flag=True, help="Keep verdicts that name gold's side in both orders.")
@click.option(
    "--chosen-model",
    multiple=True,
    callback=split_names,
    metavar="M,...",
    help="Keep pairs whose chosen response is by one of these models.",
)
@click.option(
    "--rejected-model",
    multiple=True,
    callback=split_names,
    metavar="M,...",
    help="Keep pairs whose rejected response is by one of these models.",
)
@click.option(
    "--select",
    type=click.Choice(SELECT),
    help="Pairs to take per instruction.  [default: all; for sft: best-worst]",
)
@click.option("--per-instruction", type=int, help="Keep at most this many pairs per instruction.")
@click.option(
    "--balance-length",
    is_flag=True,
    help="Drop pairs until longer responses are chosen as often as shorter ones.",
)
@click.option(
    "--near-duplicates",
    type=float,
    help="Drop instructions whose Jaccard similarity to an earlier one is at least this.",
)
@click.option(
    "--decontaminate",
    multiple=True,
    metavar="FILE",
    help="Drop instructions that also occur in this Parquet file of evaluation data. Repeatable.",
)
@click.option("--decontaminate-column", metavar="COLUMN", help="Instruction column of these files.")
@click.option(
    "--ngram", type=int, help=f"Consecutive words that count as contamination.  [default: {NGRAM}]"
)
@click.option(
    "--test", default=0.0, help="Share of the instructions to put into a split `test`, such as 0.1."
)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    help="Probability that autorater and grpo teach.  [default: gold if the run has any]",
)
@click.option(
    "--responses",
    multiple=True,
    metavar="FILE",
    help="Parquet with the texts of imported verdicts, one response per row. Repeatable.",
)
@map_option(
    "Column of the --responses files to read a role from: instruction_id, instruction, model or"
    " response. Repeatable."
)
@click.option(
    "--push-to-hub",
    "repository",
    metavar="NAME",
    help="Also send the dataset to this private repository on the Hugging Face Hub; with --dry-run,"
    " show what would be sent.",
)
@remote_option
@click.option("--seed", default=0, help="Seed of splits and random choices.")
@click.option("--rows-per-file", default=100_000, help="Maximum number of rows per Parquet file.")
@quiet_option
@json_option
def export(
    run: Path,
    out: Path | None,
    *,
    dry_run: bool,
    repository: str | None,
    remote: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Write a run's verdicts as a training dataset."""
    from steelyard.core.progress import Reporter
    from steelyard.export import hub
    from steelyard.export.exporter import Responses, export_dataset
    from steelyard.export.options import ExportOptions, read_margin

    if out is None and not dry_run:
        raise click.UsageError("give --out FOLDER, or --dry-run")
    columns, responses = options.pop("column_map"), options.pop("responses")
    if repository is not None:
        hub.check_name(repository, dry_run=dry_run)
    options["margin"] = read_margin(options["margin"])
    if columns and not responses:
        raise click.UsageError("--map is for --responses: give its files, too")
    texts = Responses(responses, columns) if responses else None
    folder, reporter = None if dry_run else out, Reporter(quiet=quiet)
    content = export_dataset(run, folder, ExportOptions(**options), texts, reporter, remote=remote)
    code = EXIT_DONE
    if repository is not None:
        plan = hub.plan_push(repository, content, folder)
        if folder is not None:
            reporter.log(f"sending {folder} to {repository} ...")
            plan = hub.push(plan, folder)
            code = EXIT_DONE if plan.pushed else EXIT_ENVIRONMENT
        content["hub"] = plan.to_json()
    emit(content, format_export)
    return code


def format_export(content: dict[str, Any]) -> str:
    """Return what was read, what became of the verdicts, and how many rows each split has."""
    from steelyard.export.card import count_verdicts, describe_accuracy

    lines = [f"preferences: {content['preference']}"]
    lines += [f"{name}: {text}" for name, text in describe_accuracy(content)]
    lines += [f"{count:>12}  {what}" for what, count in count_verdicts(content)]
    for split, rows in content["rows"].items():
        instructions = content["instructions"][split]
        lines.append(f"{rows:>12,}  rows of {instructions:,} instructions in the split {split}")
    if "hub" in content:
        lines += ["", *_format_push(content["hub"])]
    return "\n".join(lines)


def _format_push(plan: dict[str, Any]) -> list[str]:
    from steelyard.core.progress import amount

    about = "about " if plan["estimated"] else ""
    sizes = {name: "" if size is None else about + amount(size)
             for name, size in plan["files"].items()}  # fmt: skip
    if plan["pushed"]:
        head = f"sent to the private dataset {plan['repository']}: {plan['pushed']}"
    else:
        reason = plan["reason"]
        head = f"not sent ({reason}); for the private dataset {plan['repository']}:"
    width = max(12, *map(len, sizes.values()))
    return [head, *(f"{size:>{width}}  {name}" for name, size in sizes.items())]
