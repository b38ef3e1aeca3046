"""The commands that plan and test: power, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from steelyard.cli.common import PATH, comparison_map_option, emit, json_option
from steelyard.cli.ranking import gold_source, label_options


@click.command()
@click.argument("source", type=PATH, metavar="[RUN|FILE]", required=False)
@comparison_map_option
@click.option(
    "--baseline", metavar="MODEL", help="Competitor to compare all others with.  [default: all]"
)
@click.option("--difference", default=0.05, help="Difference of win rates to find.")
@click.option("--width", default=0.1, help="Width of a win rate's interval, from bound to bound.")
@click.option("--agreement", default=0.9, help="Agreement to promise of trusted verdicts.")
@click.option("--power", default=0.8, help="Probability of finding a difference that is there.")
@click.option("--confidence", default=0.95, help="Confidence of tests, intervals and promises.")
@label_options
@click.option("--sd", type=float, help="Without RUN: of a preference.  [default: 0.5, the most]")
@click.option("--per-instruction", type=int, help="Without RUN: pairs.  [default: 1]")
@click.option(
    "--correlation", type=float, help="Without RUN: of an instruction's pairs.  [default: 0]"
)
@json_option
def power(
    source: Path | None,
    column_map: dict[str, str],
    gold: Path | None,
    gold_map: dict[str, str],
    **options: Any,
) -> None:
    """Say how many pairs and labels a question needs.

    With a run, or a file as for `rank`: the smallest difference that it detects, its
    design effect, and how many more pairs a difference or an interval needs; with --gold also how
    many labels. Without one: the same from assumptions, before anything is judged.
    """
    from steelyard.cli.power_text import format_planned, format_power
    from steelyard.ranking.power import PowerOptions, planned
    from steelyard.ranking.power import power as power_of

    asked = PowerOptions(**options)
    if source is None:
        if gold or column_map:
            raise click.UsageError("--gold and --map need a run or a file")
        emit(planned(asked), format_planned)
        return
    content = power_of(source, column_map, asked, gold_source(gold, gold_map))
    emit(content, format_power)


@click.command()
@click.argument("source", type=PATH, metavar="RUN|FILE")
@click.argument("other", type=PATH, metavar="[RUN|FILE]", required=False)
@click.option(
    "--competitors", nargs=2, metavar="X Y", help="Compare two competitors of a single source."
)
@comparison_map_option
@label_options
@json_option
def compare(
    source: Path,
    other: Path | None,
    competitors: tuple[str, str] | None,
    column_map: dict[str, str],
    **labels: Any,
) -> None:
    """Compare two judges or competitors on the same pairs.

    With two runs or files, of two judges, protocols or prompts: what they say of the pairs that
    both have judged, and with --gold which of them agrees with people. With one and --competitors:
    which of the two is better. Tests are paired, and clustered by instruction.
    """
    from steelyard.cli.power_text import format_competitors, format_judges
    from steelyard.ranking.compare_competitors import compare_competitors
    from steelyard.ranking.compare_judges import compare_judges

    if (other is None) == (competitors is None):
        raise click.UsageError("give a second run or file, or --competitors X Y")
    chosen = gold_source(**labels)
    if other is not None:
        emit(compare_judges(source, other, column_map, chosen), format_judges)
    elif competitors is not None:
        if chosen is not None:
            raise click.UsageError("--gold compares two judges: give a second run or file")
        emit(compare_competitors(source, column_map, *competitors), format_competitors)
