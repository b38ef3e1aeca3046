"""The command line: parse, call, print."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from steelyard._version import __version__
from steelyard.cli.common import (
    CONTEXT,
    Steelyard,
    as_json,
    engine_options,
    engine_settings,
    make_config,
    print_json,
    print_status,
    rows_of,
    run_argument,
    run_options,
    stopping,
)
from steelyard.cli.evaluation import calibrate, evaluate
from steelyard.cli.export import export
from steelyard.cli.protocols import protocol as protocol_commands
from steelyard.cli.ranking import bias, rank, winrate
from steelyard.core.config import parse_pairs


@click.group(cls=Steelyard, context_settings=CONTEXT)
def main() -> None:
    """Weigh pairs of responses with a local LLM judge, in bulk.

    Parquet shards of (instruction, response_a, response_b) go in; preference probabilities, read
    in both orders, come out as a DuckDB database.
    """


@main.command()
@click.argument("inputs", nargs=-1)
@click.option(
    "--run",
    "run_dir",
    required=True,
    type=click.Path(path_type=Path),
    help="The run directory; an interrupted run in it is continued.",
)
@click.option(
    "--reuse",
    multiple=True,
    metavar="RUN",
    help="Take equal prompts' reads of an earlier run; repeatable.",
)
@run_options
@as_json
def score(
    inputs: tuple[str, ...], run_dir: Path, json_out: bool, quiet: bool, **options: Any
) -> int:
    """Score shards: files, folders, globs or URLs of Parquet."""
    from steelyard.core.progress import Reporter
    from steelyard.scoring.run import score as score_run

    config = make_config(inputs, options)
    with stopping() as stop:
        code = score_run(config, run_dir, Reporter(quiet=quiet), stop)
    print_status(run_dir, json_out)
    return code


@main.command(name="import")
@click.argument("tables", nargs=-1, required=True, metavar="TABLE...")
@click.option(
    "--run",
    "run_dir",
    required=True,
    type=click.Path(path_type=Path),
    help="The run directory to make.",
)
@click.option(
    "--map",
    "column_map",
    multiple=True,
    metavar="ROLE=COLUMN",
    help="Read a role from this column; ROLE==NAME: one competitor for all rows; repeatable.",
)
@click.option(
    "--scale",
    metavar="B..A",
    help="The preference that says model_b wins, and the one that says model_a wins."
    "  [default: 0..1]",
)
@click.option("--judge", default="imported", show_default=True, help="Who made the verdicts.")
@as_json
def import_(
    tables: tuple[str, ...],
    run_dir: Path,
    column_map: tuple[str, ...],
    json_out: bool,
    **options: str,
) -> int:
    """Make a run of verdicts that stand in tables, such as stored AlpacaEval preferences."""
    from steelyard.comparisons.importing import import_tables

    columns = parse_pairs("--map", column_map, empty=True)
    code = import_tables(tables, run_dir, column_map=columns, **options)
    print_status(run_dir, json_out)
    return code


@main.command()
@run_argument
@engine_options
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@as_json
def resume(
    run: Path, engine: tuple[str, ...], replicas: int | None, json_out: bool, quiet: bool
) -> int:
    """Go on with an interrupted run, with other engine settings if need be."""
    from steelyard.core.progress import Reporter
    from steelyard.scoring.run import resume as resume_run

    with stopping() as stop:
        code = resume_run(
            run, Reporter(quiet=quiet), stop, engine=engine_settings(engine), replicas=replicas
        )
    print_status(run, json_out)
    return code


@main.command()
@run_argument
@click.option("--watch", is_flag=True, help="Print again every 2 seconds until the run ends.")
@as_json
def status(run: Path, watch: bool, json_out: bool) -> None:
    """Show how a run stands; works while it is being written."""
    import time

    from steelyard.scoring.status import run_status

    while True:
        content = run_status(run)
        if watch and not json_out and sys.stdout.isatty():
            click.clear()
        print_status(run, json_out, content)
        if not watch or content["state"] in {"complete", "stopped"}:
            return
        time.sleep(2)


@main.command()
@run_argument
@click.argument("query")
@click.option("--max-rows", default=40, show_default=True, help="Rows drawn without --json.")
@as_json
def sql(run: Path, query: str, max_rows: int, json_out: bool) -> None:
    """Query a run with SQL: tables verdicts, answers, reads, rejects, work and run.

    Works on finished runs and while one is being written. The query sees the run and nothing
    else: no files, no extensions.
    """
    from steelyard.store.rundir import RunDir
    from steelyard.store.verdicts import database

    if not query.strip(" \n\t;"):
        raise click.UsageError("the query is empty")
    if json_out:
        print_json(rows_of(database.query(RunDir(run), query)))
    else:
        click.echo(database.show(RunDir(run), query, max_rows))


@main.command()
@run_argument
@click.option("--out", type=click.Path(path_type=Path), help="[default: RUN/verdicts.duckdb]")
@as_json
def compact(run: Path, out: Path | None, json_out: bool) -> None:
    """Write the DuckDB file of a run, audited; `score` does it at the end by itself."""
    from steelyard.store.run_record import read_record
    from steelyard.store.rundir import RunDir
    from steelyard.store.verdicts import handoff

    place = RunDir(run)
    read_record(place)
    with nullcontext() if out else place.lock():  # the run's own file belongs to its one writer
        counts = handoff.compact(place, out)
    if json_out:
        print_json({"database": str(out or RunDir(run).database), **counts})
    else:
        click.echo(
            f"{out or RunDir(run).database}: {counts['verdicts']:,} verdicts of"
            f" {counts['pairs']:,} pairs, {counts['reads']:,} reads of"
            f" {counts['prompts']:,} prompts"
        )


for command in (rank, winrate, bias, calibrate, evaluate, export):
    main.add_command(command)


@main.command()
@click.argument("inputs", nargs=-1)
@run_options
@as_json
def plan(inputs: tuple[str, ...], json_out: bool, quiet: bool, **options: Any) -> None:
    """Say what scoring would take: rows, rejects, prompts, tokens, time. Writes nothing."""
    from steelyard.core.progress import Reporter
    from steelyard.scoring.estimate import dry_run, format_plan

    content = dry_run(make_config(inputs, options), Reporter(quiet=quiet))
    if json_out:
        print_json(content)
    else:
        click.echo(format_plan(content))


@main.group()
def judge() -> None:
    """Look at judges."""


@judge.command()
@click.argument("name")
@click.option("--revision", help="Commit, tag or branch on the hub.")
@click.option("--protocol", default="pairwise", show_default=True, help="Labels and template.")
@as_json
def inspect(name: str, revision: str | None, protocol: str, json_out: bool) -> None:
    """Show a judge's identity, label tokens and rendered template."""
    from steelyard.cli.inspect_judge import format_judge, inspect_judge

    content = inspect_judge(name, revision, protocol)
    if json_out:
        print_json(content)
    else:
        click.echo(format_judge(content))


main.add_command(protocol_commands)


@main.command()
@as_json
def doctor(json_out: bool) -> int:
    """Check Python, vLLM, torch, GPUs, NVML and the disk; every finding has a remedy."""
    from steelyard.cli.doctor import examine, format_findings

    findings = examine()
    if json_out:
        print_json(findings)
    else:
        click.echo(format_findings(findings))
    return 5 if any(finding["state"] == "bad" for finding in findings) else 0


@main.command()
@click.option(
    "--run",
    "run_dir",
    default=Path("runs/demo"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="The run directory; a second demo reuses its reads.",
)
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@as_json
def demo(run_dir: Path, quiet: bool, json_out: bool) -> int:
    """Judge the pairs that come with the program, with the small judge that installs with it."""
    from steelyard.cli.demo import REJECTS, VERDICTS, run_demo
    from steelyard.core.progress import Reporter
    from steelyard.scoring.status import run_status
    from steelyard.store.rundir import RunDir
    from steelyard.store.verdicts import database

    show = (lambda _: None) if json_out else click.echo
    with stopping() as stop:
        code = run_demo(run_dir, Reporter(quiet=quiet), stop, show)
    if json_out:
        tables = {"verdicts": VERDICTS, "rejects": REJECTS}
        answers = {
            name: rows_of(database.query(RunDir(run_dir), query)) for name, query in tables.items()
        }
        print_json({"status": run_status(run_dir), **answers})
    return code


@main.command()
@as_json
def version(json_out: bool) -> None:
    """Print the version."""
    if json_out:
        print_json({"steelyard": __version__, "python": sys.version.split()[0]})
    else:
        click.echo(f"steelyard {__version__}")
