"""The option --tolerate-rejects: how many rows without a verdict still are a success."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

import click

from steelyard.cli.common import print_notes
from steelyard.errors import EXIT_DONE, EXIT_ROW_ERRORS, UsageError, escape

_FAILED = "FROM reads WHERE status <> 'ok'"
_NOT_READ = "SELECT pair_id, status, error FROM verdicts WHERE status <> 'ok'"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many rows may lack a verdict: a count, or a share of all rows in [0, 1]."""

    text: str
    rows: int = 0
    share: float = 0.0

    def allows(self, lacking: int, total: int) -> bool:
        """Return whether `lacking` of `total` rows are no more than that."""
        return lacking <= max(self.rows, self.share * total)


def parse_tolerance(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> Tolerance | None:
    """Parse the option's value.

    Raises:
        UsageError: it is neither a count nor a share.
    """
    if text is None:
        return None
    try:
        if text.endswith("%"):
            made = Tolerance(text, share=float(text[:-1]) / 100)
        else:
            made = Tolerance(text, rows=int(text))
    except ValueError:
        made = Tolerance(text, rows=-1)
    if made.rows < 0 or not 0 <= made.share <= 1:
        raise UsageError(
            f"--tolerate-rejects is {escape(text)!r}",
            remedy="give a number of rows, such as 10, or a share of them, such as 1%",
        )
    return made


tolerate_option = click.option(
    "--tolerate-rejects",
    "tolerated",
    callback=parse_tolerance,
    metavar="ROWS|SHARE%",
    help="End with exit code 0 if no more rows than that lack a verdict, such as 10 or 1%."
    "  [default: 0]",
)


def settle_code(code: int, content: dict[str, Any], tolerated: Tolerance | None) -> int:
    """Return the exit code of a complete run, and say which rows lack a verdict.

    Args:
        code: what scoring or importing returned.
        content: what `summarise_run` returned.
        tolerated: the value of --tolerate-rejects.
    """
    results = content["results"]
    if code != EXIT_ROW_ERRORS or results is None:
        return code
    refused, unread = sum(content["rejects"].values()), results["pairs"] - results["ok"]
    lacking, total = refused + unread, refused + results["pairs"]
    if not lacking:
        failed = content["prompts"]["error"] + content["prompts"]["unparsable"]
        query = shlex.join(["steelyard", "sql", content["run"], _FAILED])
        words = f"every row has a verdict, but {failed:,} prompts could not be read"
        print_notes((f"{words} (exit code {code}); they are listed by {query}",))
        return code
    if tolerated is not None and tolerated.allows(lacking, total):
        code, verdict = EXIT_DONE, f"no more than --tolerate-rejects {tolerated.text}"
    else:
        verdict = f"exit code {code}"
    queries = ["FROM rejects"] * bool(refused) + [_NOT_READ] * bool(unread)
    commands = [shlex.join(["steelyard", "sql", content["run"], query]) for query in queries]
    print_notes(
        (
            f"{lacking:,} of {total:,} rows have no verdict ({verdict}):"
            f" {refused:,} refused, {unread:,} not read; they are listed by"
            f" {' and '.join(commands)}",
        )
    )
    return code
