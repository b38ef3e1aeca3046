"""The commands that look into a run directory, and what the ones that fill it print at the end."""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from steelyard.cli.common import (
    PATH,
    emit,
    json_option,
    json_text,
    print_notes,
    run_argument,
    wants_json,
)
from steelyard.cli.tolerance import Tolerance, settle_code
from steelyard.errors import SteelyardError

WATCH_SECONDS = 2
ENDED = {"complete", "stopped", "damaged"}  # states in which nobody writes


def print_results(
    run: Path, code: int, tolerated: Tolerance | None = None, *, verbose: bool = False
) -> int:
    """Print what came out of a run, and with `verbose` also what it took.

    Returns:
        The exit code: `code`, or 0 if no more rows than `tolerated` lack a verdict.
    """
    from steelyard.cli.scoring_text import format_results, format_status
    from steelyard.report.summary import summarise_run

    def draw(content: dict[str, Any]) -> str:
        parts = [format_results(content)]
        if verbose and content["results"] is not None:
            parts.append(format_status(content))
        return "\n\n".join(parts)

    try:
        content = summarise_run(run)
    except SteelyardError as error:  # the run itself is well
        print_notes((f"results are not shown: {error.cause}",))
        print_status(run)
        return code
    emit(content, draw)
    return settle_code(code, content, tolerated)


@click.command()
@run_argument
@click.option(
    "--watch", is_flag=True, help=f"Print again every {WATCH_SECONDS} seconds until the run ends."
)
@json_option
def status(run: Path, watch: bool) -> None:
    """Show a run's progress and cost.

    This works while the run is active, too.
    """
    import time

    clear = watch and not wants_json() and sys.stdout.isatty()
    while print_status(run, clear=clear, watch=watch) not in ENDED and watch:
        time.sleep(WATCH_SECONDS)


def print_status(run: Path, *, clear: bool = False, watch: bool = False) -> str:
    """Print how far a run is, on a cleared screen if asked to, and return its state.

    With --json it is one line each time while it is watched.
    """
    from steelyard.cli.scoring_text import format_status
    from steelyard.scoring.status import run_status

    content = run_status(run)
    if clear:
        click.clear()
    if watch and wants_json():
        click.echo(re.sub(r"\n *", " ", json_text(content)))
    else:
        emit(content, format_status)
    return str(content["state"])


@click.command()
@run_argument
@click.option("--out", type=PATH, help="File to write.  [default: RUN/verdicts.duckdb]")
@json_option
def compact(run: Path, out: Path | None) -> None:
    """Write a run's verdicts as one checked DuckDB file.

    `score` and `resume` do this when they end; the file replaces the run's earlier one.
    """
    from steelyard.store.run_record import read_record
    from steelyard.store.rundir import RunDir
    from steelyard.store.snapshot import RunSnapshot
    from steelyard.store.verdicts import handoff

    directory = RunDir(run)
    read_record(directory)
    with nullcontext() if out else directory.lock():  # the run's own file has one writer
        # A writer may be at work while another file is written.
        counts = handoff.compact(RunSnapshot.take(run, at_rest=out is None), out)
    emit(
        {"database": str(out or directory.database), **counts},
        "{database}: {verdicts:,} verdicts of {pairs:,} pairs, from {reads:,} reads of"
        " {prompts:,} prompts".format_map,
    )
