"""The commands on finished comparisons: rank, winrate, bias. They take a run or any Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from steelyard.cli.common import Command, as_json, print_json
from steelyard.core.config import parse_pairs


def source_options(command: Command) -> Command:
    """The source as an argument, --map and --json."""
    source = click.argument("source", type=click.Path(path_type=Path))
    mapping = click.option(
        "--map",
        "column_map",
        multiple=True,
        metavar="ROLE=COLUMN",
        help="Read a role from this column, or from an (expression) of columns; repeatable.",
    )
    return source(mapping(as_json(command)))


def plot_option(command: Command) -> Command:
    """The option --plot."""
    return click.option(
        "--plot",
        type=click.Path(path_type=Path),
        help="Folder for drawings (needs the extra `plot`).",
    )(command)


def columns(column_map: tuple[str, ...]) -> dict[str, str]:
    """What --map says."""
    return parse_pairs("--map", column_map, empty=True)


@click.command()
@source_options
@click.option(
    "--method",
    default="bradley-terry",
    show_default=True,
    help="Or davidson, rao-kupper, average, elo, newman, eigen, pagerank.",
)
@click.option(
    "--intervals",
    help="By instruction (cluster), row by row (rows), or bootstrap.  [default: cluster]",
)
@click.option("--replicates", type=int, help="Of the bootstrap.  [default: 1000]")
@click.option("--anchor", metavar="MODEL", help="Whose rating is 1000.  [default: the mean]")
@click.option(
    "--shuffles",
    type=int,
    help="Orders for elo; 0: the rows' own order.  [default: 100]",
)
@click.option("--seed", type=int, help="Of the bootstrap and the shuffles.  [default: 0]")
@plot_option
def rank(
    source: Path, column_map: tuple[str, ...], json_out: bool, plot: Path | None, **options: Any
) -> None:
    """Rank competitors, with intervals and the ranks that they leave possible.

    SOURCE is a run, its verdicts.duckdb, or Parquet with model_a, model_b and a preference, a
    winner or scores.
    """
    from steelyard.cli.ranking_text import format_rank
    from steelyard.ranking.rank import RankOptions
    from steelyard.ranking.rank import rank as rank_source

    content = rank_source(source, columns(column_map), RankOptions(**options))
    if plot:
        from steelyard.cli.plots import plot_rank

        plot_rank(content, plot)
    if json_out:
        print_json(content)
    else:
        click.echo(format_rank(content))


@click.command()
@source_options
@click.option(
    "--baseline", required=True, metavar="MODEL", help="Whom all others are compared with."
)
@click.option(
    "--difficulty",
    type=click.Path(path_type=Path),
    help="Parquet of instruction_id and difficulty, in log-odds.  [default: learned]",
)
@click.option("--style", is_flag=True, help="Hold style equal too: reads the texts.")
def winrate(source: Path, column_map: tuple[str, ...], json_out: bool, **options: Any) -> None:
    """Say how often each competitor beats a baseline, raw and at equal length or style.

    SOURCE is a run or a file, as for `rank`; lengths are length_a and length_b, and --style reads
    a run's shards, or a file's response_a and response_b.
    """
    from steelyard.cli.ranking_text import format_winrate
    from steelyard.ranking.winrate import winrate as winrate_source

    content = winrate_source(source, columns(column_map), **options)
    if json_out:
        print_json(content)
    else:
        click.echo(format_winrate(content))


@click.command()
@source_options
@click.option("--by", metavar="COLUMN", help="Again for each value of a column.")
def bias(source: Path, column_map: tuple[str, ...], by: str | None, json_out: bool) -> None:
    """Say what the judge prefers besides quality: position, length, its own family.

    SOURCE is a run or a file, as for `rank`. Gold, where there is some, shows what a preference
    for length or a family is worth.
    """
    from steelyard.cli.ranking_text import format_bias
    from steelyard.ranking.bias_report import bias as bias_source

    content = bias_source(source, columns(column_map), by)
    if json_out:
        print_json(content)
    else:
        click.echo(format_bias(content))
