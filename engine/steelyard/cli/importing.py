"""The command `import`: verdicts that were made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from steelyard.cli.common import columns_of, json_option, map_option, run_option
from steelyard.cli.scoring import print_status


@click.command(name="import")
@click.argument("tables", nargs=-1, required=True, metavar="TABLE...")
@run_option("Run directory to create.")
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
@click.option(
    "--judge", default="imported", show_default=True, metavar="NAME", help="Who judged the pairs."
)
@json_option
def import_(
    tables: tuple[str, ...],
    run: Path,
    column_map: tuple[str, ...],
    scale: str | None,
    judge: str,
) -> int:
    """Make a run from verdicts that were made elsewhere.

    TABLE is a Parquet file, a folder or a glob of rows with model_a, model_b, and a preference or
    a winner, such as AlpacaEval's stored preferences.
    """
    from steelyard.comparisons.importing import import_tables

    code = import_tables(tables, run, column_map=columns_of(column_map), scale=scale, judge=judge)
    print_status(run)
    return code
