"""`protocol list`, `show` and `check`."""

from __future__ import annotations

import click

from steelyard.cli.common import as_json, print_json

_judge = click.option("--judge", default="demo", show_default=True, help="Whose tokens are shown.")


@click.group()
def protocol() -> None:
    """Look at judging protocols, and check one's own."""


@protocol.command(name="list")
@as_json
def list_(json_out: bool) -> None:
    """List the built-in protocols."""
    from steelyard.cli.inspect_protocol import format_protocols, list_protocols

    found = list_protocols()
    if json_out:
        print_json(found)
    else:
        click.echo(format_protocols(found))


@protocol.command()
@click.argument("name")
@_judge
@as_json
def show(name: str, judge: str, json_out: bool) -> None:
    """Show a protocol: a rendered example, and its segments with their tokens."""
    from steelyard.cli.inspect_protocol import format_protocol, show_protocol

    content = show_protocol(name, judge)
    if json_out:
        print_json(content)
    else:
        click.echo(format_protocol(content))


@protocol.command()
@click.argument("file")
@_judge
@as_json
def check(file: str, judge: str, json_out: bool) -> int:
    """Check a protocol file: slots, labels as single tokens, how much prompts share."""
    from steelyard.cli.doctor import format_findings
    from steelyard.cli.inspect_protocol import check_protocol

    findings = check_protocol(file, judge)
    if json_out:
        print_json(findings)
    else:
        click.echo(format_findings(findings))
    return 2 if any(finding["state"] == "bad" for finding in findings) else 0
