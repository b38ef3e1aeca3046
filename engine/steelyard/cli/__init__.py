"""The command line: every command parses, calls one function of one package, and prints."""

from __future__ import annotations

import click

from steelyard.cli.about import demo, doctor, version
from steelyard.cli.common import CONTEXT, Program
from steelyard.cli.evaluation import calibrate, evaluate
from steelyard.cli.examples import add_examples
from steelyard.cli.export import export
from steelyard.cli.inside_run import compact, status
from steelyard.cli.judging import judge, protocol
from steelyard.cli.power import compare, power
from steelyard.cli.ranking import bias, rank, winrate
from steelyard.cli.report import report, serve
from steelyard.cli.runs import import_, plan, resume, score
from steelyard.cli.show import show
from steelyard.cli.sql import sql
from steelyard.core.version import __version__


@click.group(cls=Program, context_settings=CONTEXT)
@click.version_option(__version__, message="steelyard %(version)s", help="Print the version.")
def main() -> None:
    """Compare pairs of responses with a local LLM judge, in bulk.

    Input: Parquet, JSON Lines, CSV and other tables with an instruction and two responses per row,
    or one. Output: a DuckDB database with the probability that response A is better, read in both
    orders of presentation.

    To see it work, run `steelyard demo`.
    """


COMMANDS = (
    demo, doctor, plan, score, resume, status, import_, sql, show, compact,
    rank, winrate, bias, compare, power, calibrate, evaluate, report, serve, export,
    protocol, judge, version,
)  # fmt: skip
for command in COMMANDS:
    main.add_command(command)
add_examples(main)
