"""What the commands share: options, configuration, Ctrl-C, output, errors as exit codes."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import click
from typing_extensions import override

from steelyard.core.config import RunConfig, Scalar, load_toml, parse_pairs, scalar
from steelyard.errors import EXIT_INTERRUPTED, EXIT_USAGE, SteelyardError, escape

Command = TypeVar("Command", bound=Callable[..., Any])

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Steelyard(click.Group):
    """Commands in the order in which people need them; errors without tracebacks."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    @override
    def main(self, *args: Any, **kwargs: Any) -> Any:
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
            click.echo("  effect: what was committed before stays valid", err=True)
            click.echo(
                "  next: run again with STEELYARD_TRACEBACK=1 and report what it prints", err=True
            )
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


def run_options(command: Command) -> Command:
    """The options that describe a run, shared by `score` and `plan`."""
    options = [
        click.option(
            "--judge",
            multiple=True,
            help="demo, scripted[:seed=0,...], a hub name or a folder; repeated: an ensemble.",
        ),
        click.option("--revision", help="Commit, tag or branch of the judge on the hub."),
        click.option(
            "--protocol",
            multiple=True,
            help="How a pair is judged: a name or a file; repeated: variants of the prompt."
            "  [default: pairwise]",
        ),
        click.option("--criteria", help="File of a rubric's criteria (TOML, JSON, YAML)."),
        click.option("--examples", help="File of worked examples (TOML, JSON, YAML)."),
        click.option("--samples", type=int, help="How often a judge that writes is asked."),
        click.option(
            "--tie-band",
            type=float,
            help="Up to which difference, from 0 on, two sides tie where the judge has no label for"
            " a tie.  [default: the protocol's]",
        ),
        click.option(
            "--map",
            "column_map",
            multiple=True,
            metavar="ROLE=COLUMN",
            help="Read a role from this column (ROLE= : from none); repeatable.",
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
    return engine_options(command)


def engine_options(command: Command) -> Command:
    """The options for how the judge is run, which may change between sessions."""
    engine = click.option(
        "--engine",
        multiple=True,
        metavar="KEY=VALUE",
        help="An engine setting under vLLM's own name; repeatable.",
    )
    replicas = click.option(
        "--replicas", type=int, help="Engines side by side, one GPU each.  [default: 1]"
    )
    return engine(replicas(command))


def engine_settings(values: tuple[str, ...]) -> dict[str, Scalar]:
    """What --engine says."""
    return {key: scalar(text) for key, text in parse_pairs("--engine", values).items()}


def as_json(command: Command) -> Command:
    """The option --json."""
    return click.option("--json", "json_out", is_flag=True, help="Print JSON on stdout.")(command)


def run_argument(command: Command) -> Command:
    """The run directory as an argument."""
    return click.argument("run", type=click.Path(path_type=Path))(command)


def make_config(inputs: tuple[str, ...], options: dict[str, Any]) -> RunConfig:
    """Options over the TOML file over the defaults."""
    file = options.pop("config_file")
    values = load_toml(file) if file else {}
    mapping = parse_pairs("--map", options.pop("column_map"), empty=True)
    engine = engine_settings(options.pop("engine"))
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
    """An event that the first Ctrl-C, SIGTERM or SIGHUP sets; the second one ends at once."""
    stop = threading.Event()

    def handle(_signal: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        with suppress(OSError):  # the terminal may be gone
            click.echo("\nending after the work in hand; Ctrl-C again ends at once", err=True)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # a lost terminal, unless under nohup
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def print_status(run: Path, json_out: bool, content: dict[str, Any] | None = None) -> None:
    """The state of a run on stdout."""
    from steelyard.scoring.status import format_status, run_status

    content = run_status(run) if content is None else content
    if json_out:
        print_json(content)
    else:
        click.echo(format_status(content))


def print_json(content: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def rows_of(table: Any) -> list[dict[str, Any]]:
    """A query's rows as JSON values; a column name that comes twice gets a number."""
    seen: dict[str, int] = {}
    names = []
    for name in table.column_names:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    rows: list[dict[str, Any]] = plain(table.rename_columns(names).to_pylist())
    return rows


def plain(value: Any) -> Any:
    """JSON values: bytes as hex, times as ISO 8601, numbers that are not finite as null."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value
