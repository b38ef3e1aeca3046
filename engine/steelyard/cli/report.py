"""The commands `report` and `serve`: a run as a page, in a file or in a browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

import click

from steelyard.cli.common import (
    PATH,
    echo,
    emit,
    json_option,
    remote_option,
    run_argument,
    wants_json,
)
from steelyard.cli.evaluation import gold_options


@click.command()
@run_argument
@click.option("--out", type=PATH, default=Path("report.html"), help="File to write the page to.")
@gold_options
@click.option("--samples", default=20, help="Pairs to show of each kind.")
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
@remote_option
@json_option
def report(run: Path, out: Path, gold: Path | None, show: bool, **options: Any) -> None:
    """Write an HTML page about a run.

    It shows results with their uncertainty, biases, and pairs to read, and is one file that can be
    sent to others. With --json, its content is printed, and no page is written.
    """
    from steelyard.report.content import ReportOptions, gather
    from steelyard.report.page import write_page

    columns = options.pop("gold_map")
    asked = ReportOptions(gold=gold, gold_columns=columns, **options)
    if wants_json():
        emit(gather(run, asked), str)
        return
    write_page(run, out, asked)
    echo(f"wrote {out}")
    if show:
        webbrowser.open(out.resolve().as_uri())


@click.command()
@run_argument
@click.option("--port", default=0, help="Port to listen on.  [default: one that is free]")
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
@remote_option
def serve(run: Path, port: int, show: bool, remote: bool) -> None:
    """Show a run in a browser, on this machine.

    The page has progress, also of a run that is being written, filters over all pairs, their texts,
    and SQL. It changes nothing. Only the printed address opens it, and only from this machine.
    Ctrl-C ends it.
    """
    from steelyard.report import server
    from steelyard.report.page import require_drawing
    from steelyard.store.run_record import read_record
    from steelyard.store.rundir import RunDir

    server.require_server()
    require_drawing()
    read_record(RunDir(run))
    listener, token = server.listen(port), server.new_token()
    address = f"http://{server.HOST}:{listener.getsockname()[1]}/?token={token}"
    click.echo(address)
    click.echo("Ctrl-C ends it", err=True)
    if show:
        webbrowser.open(address)
    server.serve(run, listener, token, remote=remote)
