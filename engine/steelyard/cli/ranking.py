"""The commands about competitors: rank, winrate, bias. They take a run or any Parquet."""

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
    remote_option,
)

source_argument = click.argument("source", type=PATH, metavar="RUN|FILE")
OWN = Path("-")  # gold of the source itself
label_options = grouped(
    click.option(
        "--gold",
        type=PATH,
        is_flag=False,
        flag_value=str(OWN),
        metavar="[FILE]",
        help="Count the judge's error, by gold for a random sample of the pairs: Parquet with"
        " pair_id and gold, or the source's own gold if no file follows.",
    ),
    map_option(
        "Column of the gold file to read a role from: pair_id, gold, votes_a, annotator, ..."
        " Repeatable.",
        "--gold-map",
        "gold_map",
    ),
)


def gold_source(gold: Path | None, gold_map: dict[str, str]) -> Any:
    """Return the GoldSource that --gold and --gold-map name; None if gold is not asked for."""
    from steelyard.evaluation.judged_pairs import GoldSource

    if gold is None and gold_map:
        raise click.UsageError("--gold-map names columns of a gold file: give it with --gold FILE")
    return None if gold is None else GoldSource(None if gold == OWN else gold, gold_map)


@click.command()
@source_argument
@comparison_map_option
@click.option(
    "--method",
    default="bradley-terry",
    metavar="METHOD",
    help="Rating model: bradley-terry, davidson, rao-kupper, average, elo, newman, eigen or"
    " pagerank.",
)
@click.option(
    "--intervals",
    metavar="cluster|rows|bootstrap",
    help="How 95% intervals are computed: clustered by instruction, from independent rows, or by"
    " a bootstrap over instructions.  [default: cluster]",
)
@click.option("--replicates", type=int, help="Bootstrap replicates.  [default: 1000]")
@click.option(
    "--anchor", metavar="MODEL", help="Competitor that is rated 1000.  [default: the mean is 1000]"
)
@click.option(
    "--shuffles",
    type=int,
    help="Random orders of the rows that Elo ratings are averaged over; 0 keeps the order of the"
    " rows.  [default: 100]",
)
@click.option("--seed", type=int, help="Seed of bootstrap and shuffles.  [default: 0]")
@label_options
@click.option(
    "--plot", type=PATH, help="Folder for plots of ratings and win rates (needs the extra `plot`)."
)
@json_option
def rank(
    source: Path,
    column_map: dict[str, str],
    plot: Path | None,
    gold: Path | None,
    gold_map: dict[str, str],
    **options: Any,
) -> None:
    """Rank competitors, with intervals and possible ranks.

    The source is a run, its verdicts.duckdb, or Parquet with model_a, model_b, and a preference,
    a winner or scores.
    """
    from steelyard.cli.plots import check_folder, plot_rank
    from steelyard.cli.ranking_text import format_rank
    from steelyard.ranking.gold_rank import add_gold
    from steelyard.ranking.rank import RankOptions
    from steelyard.ranking.rank import rank as rank_source

    labels = gold_source(gold, gold_map)
    if plot:
        check_folder(plot)
    content = rank_source(source, column_map, RankOptions(**options))
    if labels is not None:
        add_gold(content, column_map, labels)
    if plot:
        plot_rank(content, plot)
    emit(content, format_rank)


@click.command()
@source_argument
@comparison_map_option
@click.option(
    "--baseline", required=True, metavar="MODEL", help="Competitor to compare all others with."
)
@click.option(
    "--difficulty",
    type=PATH,
    help="Parquet with instruction_id and difficulty in log-odds.  [default: learned]",
)
@click.option(
    "--style", is_flag=True, help="Add win rates at equal style; reads the response texts."
)
@label_options
@remote_option
@json_option
def winrate(
    source: Path,
    column_map: dict[str, str],
    gold: Path | None,
    gold_map: dict[str, str],
    **options: Any,
) -> None:
    """Compute win rates against a baseline.

    Win rates are raw, at equal length, with --style also at equal style, and with --gold also
    corrected for the judge's error.

    The source is a run or a file, as for `rank`. Equal length needs length_a and length_b. --style
    reads the shards of a run, or response_a and response_b of a file.
    """
    from steelyard.cli.ranking_text import format_winrate
    from steelyard.ranking.gold_win_rates import add_gold
    from steelyard.ranking.winrate import winrate as winrate_source

    labels = gold_source(gold, gold_map)
    content = winrate_source(source, column_map, **options)
    if labels is not None:
        add_gold(content, column_map, labels)
    emit(content, format_winrate)


@click.command()
@source_argument
@comparison_map_option
@click.option("--by", metavar="COLUMN", help="Repeat the report for each value of this column.")
@json_option
def bias(source: Path, column_map: dict[str, str], by: str | None) -> None:
    """Measure what sways a judge besides quality.

    Reports position bias, length bias, self-preference by model family, and label mass.

    The source is a run or a file, as for `rank`. If it has gold, the report also shows how far
    people share the judge's preference for length or a family.
    """
    from steelyard.cli.ranking_text import format_bias
    from steelyard.ranking.bias_report import bias as bias_source

    emit(bias_source(source, column_map, by), format_bias)
