"""The command `judge inspect`."""

from __future__ import annotations

import click

from steelyard.cli.common import emit, json_option, revision_option


@click.group()
def judge() -> None:
    """Inspect judges."""


@judge.command()
@click.argument("name", metavar="JUDGE")
@revision_option
@click.option(
    "--protocol",
    default="pairwise",
    metavar="NAME|FILE",
    help="Protocol whose labels and prompt template are shown.",
)
@json_option
def inspect(name: str, revision: str | None, protocol: str) -> None:
    """Show a judge's identity, label tokens and prompt template.

    JUDGE is a Hugging Face model name, a model folder, `demo`, or `scripted`.
    """
    from steelyard.cli.inspect_judge import format_judge, inspect_judge

    emit(inspect_judge(name, revision, protocol), format_judge)
