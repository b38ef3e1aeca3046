"""The commands that show what judges are asked: judge inspect; protocol list, show and check."""

from __future__ import annotations

from pathlib import Path

import click

from steelyard.cli.common import PATH, emit, json_option, revision_option
from steelyard.errors import EXIT_USAGE

judge_option = click.option(
    "--judge", default="demo", metavar="JUDGE", help="Judge whose tokens and template are used."
)


@click.group()
def protocol() -> None:
    """List, show, check and make judging protocols."""


@protocol.command(name="list")
@json_option
def list_() -> None:
    """List the built-in protocols."""
    from steelyard.cli.inspection import format_protocols, list_protocols

    emit(list_protocols(), format_protocols)


@protocol.command()
@click.argument("name", metavar="NAME|FILE")
@judge_option
@json_option
def show(name: str, judge: str) -> None:
    """Show a protocol: an example prompt, and its segments with their token counts."""
    from steelyard.cli.inspection import format_protocol, show_protocol

    emit(show_protocol(name, judge), format_protocol)


@protocol.command()
@click.argument("file", metavar="FILE")
@judge_option
@json_option
def check(file: str, judge: str) -> int:
    """Check a protocol file: its slots, its labels as tokens, and how much prompts share."""
    from steelyard.cli.doctor import any_bad, format_findings
    from steelyard.cli.inspection import check_protocol

    findings = check_protocol(file, judge)
    emit(findings, format_findings)
    return EXIT_USAGE if any_bad(findings) else 0


@protocol.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--template",
    type=PATH,
    required=True,
    metavar="FILE",
    help="Prompt with {instruction}, {response_a} and {response_b}, or {response}: a text, a text"
    " with <|im_start|> markers, or FastChat's judge_prompts.jsonl.",
)
@click.option("--prompt", metavar="PROMPT", help="Which prompt of a file that has several.")
@json_option
def new(name: str, template: Path, prompt: str | None) -> None:
    """Make a protocol of a prompt in ordinary words, and say what was changed.

    It is written to NAME.toml.
    """  # fmt: skip
    from steelyard.cli.inspection import format_new_protocol, new_protocol

    emit(new_protocol(name, template, prompt), format_new_protocol)


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
    from steelyard.cli.inspection import format_judge, inspect_judge

    emit(inspect_judge(name, revision, protocol), format_judge)
