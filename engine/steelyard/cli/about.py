"""The commands about the program itself: demo, doctor, version."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from steelyard.cli.common import (
    emit,
    json_option,
    quiet_option,
    run_option,
    stop_on_signal,
)
from steelyard.core.version import __version__
from steelyard.errors import EXIT_ENVIRONMENT, EXIT_INTERRUPTED


@click.command()
@run_option(
    "Run directory; a second demo in it reuses the first one's reads.", default=Path("runs/demo")
)
@quiet_option
@json_option
def demo(run: Path, quiet: bool) -> int:
    """Judge the built-in demonstration pairs and show the results.

    The judge is a small model that was installed with Steelyard; no download is needed.
    """
    from steelyard.cli.demo import demo_content, format_demo, score_demo, write_report
    from steelyard.core.progress import Reporter

    reporter = Reporter(quiet=quiet)
    with stop_on_signal() as stop:
        code = score_demo(run, "demo", reporter, stop)
    if code != EXIT_INTERRUPTED:
        report = write_report(run, reporter)
        emit(run, lambda run: format_demo(run, report), lambda run: demo_content(run, report))
    return code


@click.command()
@click.option(
    "--fix", is_flag=True, help="First remove packages that break vLLM, and add the demo's judge."
)
@json_option
def doctor(fix: bool) -> int:
    """Check this machine, with a remedy for each problem.

    Looks at Python and packages, vLLM, GPUs, disk and memory.
    """
    from steelyard.cli.doctor import any_bad, examine, format_findings, repair

    if fix:
        repair(lambda command: click.echo(command, err=True))
    findings = examine()
    emit(findings, format_findings)
    return EXIT_ENVIRONMENT if any_bad(findings) else 0


@click.command()
@json_option
def version() -> None:
    """Print the version."""
    versions = {"steelyard": __version__, "python": sys.version.split()[0]}
    emit(versions, "steelyard {steelyard}".format_map)
