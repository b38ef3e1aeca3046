"""The commands that fill a run directory: plan estimates; score, resume and import make runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from steelyard.cli.common import (
    PATH,
    emit,
    grouped,
    json_option,
    map_option,
    quiet_option,
    remote_option,
    revision_option,
    run_argument,
    run_option,
    stop_on_signal,
)
from steelyard.cli.inside_run import print_results
from steelyard.cli.tolerance import Tolerance, tolerate_option
from steelyard.core.config import RunConfig, load_toml, parse_pairs, scalar

verbose_option = click.option(
    "--verbose", is_flag=True, help="Print tokens, time and disk space, too, as `status` does."
)
# May change between the sessions of a run.
engine_options = grouped(
    click.option(
        "--engine",
        multiple=True,
        metavar="KEY=VALUE",
        callback=lambda _, option, values: {
            key: scalar(text) for key, text in parse_pairs(option.opts[0], values).items()
        },
        help="Engine setting under its vLLM name, such as gpu_memory_utilization=0.8. Repeatable.",
    ),
    click.option("--replicas", type=int, help="Copies of the engine, one per GPU.  [default: 1]"),
)
# Describe a run.
run_options = grouped(
    click.option(
        "--judge",
        multiple=True,
        metavar="JUDGE",
        help="A Hugging Face model name, a model folder, `demo`, or `scripted[:seed=0,...]`."
        " Repeat it for an ensemble. Required.",
    ),
    revision_option,
    click.option(
        "--protocol",
        multiple=True,
        metavar="NAME|FILE",
        help="How pairs are judged: a built-in protocol or a TOML file. Repeat it for several"
        " variants of the prompt.  [default: pairwise]",
    ),
    click.option(
        "--criteria",
        metavar="FILE",
        help="Criteria of the rubric: TOML, JSON or YAML.  [default: the column `criteria`]",
    ),
    click.option(
        "--examples", metavar="FILE", help="Worked examples for the judge: TOML, JSON or YAML."
    ),
    click.option(
        "--samples",
        type=int,
        help="Answers per prompt from a judge that writes.  [default: the protocol's]",
    ),
    click.option(
        "--tie-band",
        type=float,
        help="Largest difference that is still a tie, for protocols without a tie label: in"
        " points for written scores, otherwise as the distance of the preference from 0.5."
        "  [default: the protocol's]",
    ),
    map_option(
        "Column to read a role from, such as instruction=question; `ROLE=` ignores the role's"
        " column. Repeatable."
    ),
    click.option(
        "--pairs",
        metavar="all|baseline=MODEL|random=N|adjacent|none",
        help="Make pairs of rows of one response each: which responses to an instruction are"
        " compared; `none` scores each by itself.",
    ),
    click.option(
        "--limit", type=click.IntRange(1), metavar="N", help="Take only the first N rows."
    ),
    click.option(
        "--sample",
        type=click.IntRange(1),
        metavar="N",
        help="Take only N rows, drawn at random: the same rows in every run.",
    ),
    click.option(
        "--overlong",
        metavar="reject|truncate",
        help="What to do with prompts that exceed the judge's context.  [default: reject]",
    ),
    click.option(
        "--on-bad-row",
        metavar="reject|fail",
        help="What to do with rows that cannot be judged.  [default: reject]",
    ),
    click.option(
        "--max-row-bytes", type=int, help="Maximum bytes of a row's texts.  [default: 1048576]"
    ),
    engine_options,
    click.option(
        "--config",
        "config_file",
        type=PATH,
        help="TOML file with the same names as these options, which take precedence.",
    ),
    quiet_option,
)


def make_config(inputs: tuple[str, ...], options: dict[str, Any]) -> RunConfig:
    """Make a configuration: options take precedence over the TOML file, it over the defaults."""
    file = options.pop("config_file")
    values = load_toml(file) if file else {}
    mapping, engine = options.pop("column_map"), options.pop("engine")
    values |= {key: value for key, value in options.items() if value not in (None, ())}
    for name, given in (("map", mapping), ("engine", engine)):
        if given:
            values[name] = {**values.get(name, {}), **given}
    if inputs:
        values["inputs"] = list(inputs)
    config = RunConfig.from_mapping(values, str(file or "command line"))
    if not config.inputs:
        raise click.UsageError("name an input: a file with rows, a folder, a glob or a URL")
    return config


@click.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@run_options
@json_option
def plan(inputs: tuple[str, ...], quiet: bool, **options: Any) -> None:
    """Estimate what scoring would take; write nothing.

    Prints rows, rejected rows, prompts, tokens and time. INPUT is a Parquet file, a folder, a glob
    or a URL.
    """
    from steelyard.cli.scoring_text import format_plan
    from steelyard.core.progress import Reporter
    from steelyard.scoring.estimate import dry_run

    emit(dry_run(make_config(inputs, options), Reporter(quiet=quiet)), format_plan)


@click.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@run_option("Run directory to create, or to continue if it holds this run.", required=True)
@click.option(
    "--reuse",
    multiple=True,
    metavar="RUN",
    help="Earlier run whose reads of identical prompts are copied. Repeatable.",
)
@run_options
@tolerate_option
@verbose_option
@json_option
def score(
    inputs: tuple[str, ...],
    run: Path,
    quiet: bool,
    verbose: bool,
    tolerated: Tolerance | None,
    **options: Any,
) -> int:
    """Judge every pair of the input.

    INPUT is a Parquet file, a folder, a glob or a URL (s3://, gs://, hf://) of rows with
    instruction, response_a and response_b. An interrupted run continues when the same command is
    given again.
    """
    from steelyard.core.progress import Reporter
    from steelyard.scoring.run import score as score_run

    config = make_config(inputs, options)
    with stop_on_signal() as stop:
        code = score_run(config, run, Reporter(quiet=quiet), stop)
    return print_results(run, code, tolerated, verbose=verbose)


@click.command()
@run_argument
@engine_options
@remote_option
@quiet_option
@tolerate_option
@verbose_option
@json_option
def resume(
    run: Path, quiet: bool, verbose: bool, tolerated: Tolerance | None, **options: Any
) -> int:
    """Continue an interrupted run."""
    from steelyard.core.progress import Reporter
    from steelyard.scoring.run import resume as resume_run

    with stop_on_signal() as stop:
        code = resume_run(run, Reporter(quiet=quiet), stop, **options)
    return print_results(run, code, tolerated, verbose=verbose)


@click.command(name="import")
@click.argument("tables", nargs=-1, required=True, metavar="TABLE...")
@run_option("Run directory to create.", required=True)
@map_option(
    "Column to read a role from, such as model_a=model; `ROLE==NAME` names one competitor for all"
    " rows. Repeatable."
)
@click.option(
    "--scale",
    metavar="B..A",
    help="Preference that means model_b wins, then the one that means model_a wins."
    "  [default: 0..1]",
)
@click.option("--judge", default="imported", metavar="NAME", help="Who judged the pairs.")
@tolerate_option
@json_option
def import_(
    tables: tuple[str, ...],
    run: Path,
    *,
    column_map: dict[str, str],
    scale: str | None,
    judge: str,
    tolerated: Tolerance | None,
) -> int:
    """Make a run from verdicts that were made elsewhere.

    TABLE is a Parquet file, a folder or a glob of rows with model_a, model_b, and a preference or
    a winner, such as AlpacaEval's stored preferences.
    """
    from steelyard.comparisons.importing import import_tables

    code = import_tables(tables, run, column_map=column_map, scale=scale, judge=judge)
    return print_results(run, code, tolerated)
