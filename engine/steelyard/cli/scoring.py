"""The commands that judge: plan, score, resume, status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from steelyard.cli.common import (
    emit,
    engine_options,
    engine_settings,
    json_option,
    make_config,
    quiet_option,
    run_argument,
    run_option,
    run_options,
    stop_on_signal,
    wants_json,
)

WATCH_SECONDS = 2


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
@run_option("Run directory to create; if it holds this run already, the run continues.")
@click.option(
    "--reuse",
    multiple=True,
    metavar="RUN",
    help="Earlier run whose reads of identical prompts are copied. Repeatable.",
)
@run_options
@json_option
def score(inputs: tuple[str, ...], run: Path, quiet: bool, **options: Any) -> int:
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
    print_status(run)
    return code


@click.command()
@run_argument
@engine_options
@quiet_option
@json_option
def resume(run: Path, engine: tuple[str, ...], replicas: int | None, quiet: bool) -> int:
    """Continue an interrupted run."""
    from steelyard.core.progress import Reporter
    from steelyard.scoring.run import resume as resume_run

    settings = engine_settings(engine)
    with stop_on_signal() as stop:
        code = resume_run(run, Reporter(quiet=quiet), stop, engine=settings, replicas=replicas)
    print_status(run)
    return code


@click.command()
@run_argument
@click.option(
    "--watch", is_flag=True, help=f"Print again every {WATCH_SECONDS} seconds until the run ends."
)
@json_option
def status(run: Path, watch: bool) -> None:
    """Show how far a run is and what it took.

    This works while the run is active, too.
    """
    import time

    clear = watch and not wants_json() and sys.stdout.isatty()
    while print_status(run, clear=clear) not in {"complete", "stopped"} and watch:
        time.sleep(WATCH_SECONDS)


def print_status(run: Path, *, clear: bool = False) -> str:
    """Print how far a run is, on a cleared screen if asked to, and return its state."""
    from steelyard.cli.scoring_text import format_status
    from steelyard.scoring.status import run_status

    content = run_status(run)
    if clear:
        click.clear()
    emit(content, format_status)
    return str(content["state"])
