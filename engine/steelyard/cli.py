"""The command line: parse, call, print, and turn errors into exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from steelyard import __version__
from steelyard.config import RunConfig, load_toml, parse_pairs, scalar
from steelyard.errors import EXIT_INTERRUPTED, EXIT_USAGE, SteelyardError, escape

Command = TypeVar("Command", bound=Callable[..., Any])

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Steelyard(click.Group):
    """Commands in the order in which people need them; errors without tracebacks."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """As declared below."""
        return list(self.commands)

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - click's own signature
        """Run; every error ends as a message and an exit code."""
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except SteelyardError as error:
            click.echo(str(error), err=True)
            code = error.exit_code
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            code = 0
        except click.ClickException as error:
            hint = (
                error.ctx.command_path
                if isinstance(error, click.UsageError) and error.ctx
                else "steelyard"
            )
            click.echo(f"error[usage]: {escape(error.format_message(), 300)}", err=True)
            click.echo(f"  next: {hint} --help", err=True)
            code = EXIT_USAGE
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted", err=True)
            code = EXIT_INTERRUPTED
        except BrokenPipeError:
            sys.stderr.close()
            code = 0
        except Exception as error:
            if os.environ.get("STEELYARD_TRACEBACK"):
                raise
            click.echo(f"error[internal]: {type(error).__name__}: {escape(error, 300)}", err=True)
            click.echo("  effect: committed parts are valid; `steelyard resume` goes on", err=True)
            click.echo(
                "  next: run again with STEELYARD_TRACEBACK=1 and report what it prints", err=True
            )
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=Steelyard, context_settings=CONTEXT)
def main() -> None:
    """Weigh pairs of responses with a local LLM judge, in bulk.

    Parquet shards of (instruction, response_a, response_b) go in; preference probabilities, read
    in both orders, come out as a DuckDB database.
    """


def run_options(command: Command) -> Command:
    """The options that describe a run, shared by `score` and `plan`."""
    options = [
        click.option("--judge", help="demo, scripted[:seed=0,...], a hub name or a folder."),
        click.option("--revision", help="Commit, tag or branch of the judge on the hub."),
        click.option("--protocol", help="How a pair is judged.  [default: pairwise]"),
        click.option(
            "--map",
            "column_map",
            multiple=True,
            metavar="ROLE=COLUMN",
            help="Read a role from this column (ROLE= : from none); repeatable.",
        ),
        click.option(
            "--engine",
            multiple=True,
            metavar="KEY=VALUE",
            help="An engine setting under vLLM's own name; repeatable.",
        ),
        click.option("--overlong", help="Prompts beyond the judge's context: reject or truncate."),
        click.option("--on-bad-row", help="Rows that cannot be scored: reject or fail."),
        click.option(
            "--max-row-bytes", type=int, help="Texts of a row together.  [default: 1 MiB]"
        ),
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            help="TOML file with the same names; options win over it.",
        ),
        click.option("--quiet", is_flag=True, help="No progress on stderr."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def as_json(command: Command) -> Command:
    """The option --json."""
    return click.option("--json", "json_out", is_flag=True, help="Print JSON on stdout.")(command)


def run_argument(command: Command) -> Command:
    """The run directory as an argument."""
    return click.argument("run", type=click.Path(path_type=Path))(command)


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
@click.option("--replicas", type=int, help="Engines side by side, one GPU each.  [default: 1]")
@run_options
@as_json
def score(
    inputs: tuple[str, ...], run_dir: Path, json_out: bool, quiet: bool, **options: Any
) -> int:
    """Score shards: files, folders, globs or URLs of Parquet."""
    from steelyard.progress import Reporter
    from steelyard.run import score as score_run

    config = make_config(inputs, options)
    with stopping() as stop:
        code = score_run(config, run_dir, Reporter(quiet=quiet), stop)
    print_status(run_dir, json_out)
    return code


@main.command()
@run_argument
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@as_json
def resume(run: Path, json_out: bool, quiet: bool) -> int:
    """Go on with an interrupted run."""
    from steelyard.progress import Reporter
    from steelyard.run import resume as resume_run

    with stopping() as stop:
        code = resume_run(run, Reporter(quiet=quiet), stop)
    print_status(run, json_out)
    return code


@main.command()
@run_argument
@click.option("--watch", is_flag=True, help="Print again every 2 seconds until the run ends.")
@as_json
def status(run: Path, watch: bool, json_out: bool) -> None:
    """Show how a run stands; works while it is being written."""
    import time

    from steelyard.status import run_status

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
    """Query a run with SQL: tables verdicts, reads, rejects and run.

    Works on finished runs and while one is being written. The query sees the run and nothing
    else: no files, no extensions.
    """
    from steelyard.store import database
    from steelyard.store.rundir import RunDir

    if json_out:
        print_json(plain(database.query(RunDir(run), query).to_pylist()))
    else:
        click.echo(database.show(RunDir(run), query, max_rows))


@main.command()
@run_argument
@click.option("--out", type=click.Path(path_type=Path), help="[default: RUN/verdicts.duckdb]")
@as_json
def compact(run: Path, out: Path | None, json_out: bool) -> None:
    """Write the DuckDB file of a run, audited; `score` does it at the end by itself."""
    from steelyard.store import database
    from steelyard.store.rundir import RunDir

    counts = database.compact(RunDir(run), out)
    if json_out:
        print_json({"database": str(out or RunDir(run).database), **counts})
    else:
        click.echo(
            f"{out or RunDir(run).database}: {counts['verdicts']:,} verdicts of"
            f" {counts['pairs']:,} pairs, {counts['reads']:,} reads of {counts['prompts']:,} prompts"
        )


@main.command()
@click.argument("inputs", nargs=-1)
@run_options
@as_json
def plan(inputs: tuple[str, ...], json_out: bool, quiet: bool, **options: Any) -> None:
    """Say what scoring would take: rows, rejects, prompts, tokens, time. Writes nothing."""
    from steelyard.dryrun import draw_plan, dry_run
    from steelyard.progress import Reporter

    content = dry_run(make_config(inputs, options), Reporter(quiet=quiet))
    if json_out:
        print_json(content)
    else:
        click.echo(draw_plan(content))


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
    from steelyard.inspection import draw_judge, inspect_judge

    content = inspect_judge(name, revision, protocol)
    if json_out:
        print_json(content)
    else:
        click.echo(draw_judge(content))


@main.command()
@as_json
def doctor(json_out: bool) -> int:
    """Check Python, vLLM, torch, GPUs, NVML and the disk; every finding has a remedy."""
    from steelyard.doctor import draw_findings, examine

    findings = examine()
    if json_out:
        print_json(findings)
    else:
        click.echo(draw_findings(findings))
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
def demo(run_dir: Path, quiet: bool) -> int:
    """Judge the pairs that come with the program, with the small judge that installs with it."""
    from steelyard.demo import run_demo
    from steelyard.progress import Reporter

    with stopping() as stop:
        return run_demo(run_dir, Reporter(quiet=quiet), stop, click.echo)


@main.command()
@as_json
def version(json_out: bool) -> None:
    """Print the version."""
    if json_out:
        print_json({"steelyard": __version__, "python": sys.version.split()[0]})
    else:
        click.echo(f"steelyard {__version__}")


def make_config(inputs: tuple[str, ...], options: dict[str, Any]) -> RunConfig:
    """Options over the TOML file over the defaults."""
    file = options.pop("config_file")
    values = load_toml(file) if file else {}
    mapping = parse_pairs("--map", options.pop("column_map"), empty=True)
    engine = {
        key: scalar(text) for key, text in parse_pairs("--engine", options.pop("engine")).items()
    }
    given = {key: value for key, value in options.items() if value not in (None, ())}
    values |= given
    if mapping:
        values["map"] = {**values.get("map", {}), **mapping}
    if engine:
        values["engine"] = {**values.get("engine", {}), **engine}
    if inputs:
        values["inputs"] = list(inputs)
    config = RunConfig.from_mapping(values, str(file or "command line"))
    if not config.inputs:
        raise click.UsageError("name at least one input: a Parquet file, a folder, a glob or a URL")
    return config


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second Ctrl-C ends at once."""
    stop = threading.Event()

    def handle(_signal: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        click.echo("\nfinishing the part in work; press Ctrl-C again to end at once", err=True)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def print_status(run: Path, json_out: bool, content: dict[str, Any] | None = None) -> None:
    """The state of a run on stdout."""
    from steelyard.status import draw_status, run_status

    content = run_status(run) if content is None else content
    if json_out:
        print_json(content)
    else:
        click.echo(draw_status(content))


def print_json(content: Any) -> None:  # noqa: ANN401 - any JSON value
    """One JSON document on stdout."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def plain(value: Any) -> Any:  # noqa: ANN401 - any value of a query
    """Query results as JSON values: bytes as hex, times as ISO 8601, NaN as null."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value
