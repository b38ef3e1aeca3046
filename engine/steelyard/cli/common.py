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

# Options by their former names, which are still accepted.
FORMER_NAMES = {"bootstraps": "replicates"}
CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "token_normalize_func": lambda name: FORMER_NAMES.get(name, name),
}
PATH = click.Path(path_type=Path)
JSON = "steelyard.json"  # where the context holds whether --json was given


class Program(click.Group):
    """Commands in the order in which people need them; errors without tracebacks."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were added."""
        return list(self.commands)

    @override
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; turn every error into a message and an exit code."""
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
            context = error.ctx if isinstance(error, click.UsageError) else None
            hint = context.command_path if context else "steelyard"
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
            click.echo("  effect: everything committed before is intact", err=True)
            click.echo(
                "  next: run it again with STEELYARD_TRACEBACK=1 and report the traceback", err=True
            )
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


def add_options(command: Command, *options: Callable[[Command], Command]) -> Command:
    """Give a command options, which its help lists in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def json_option(command: Command) -> Command:
    """Give a command the option --json, which `emit` looks up."""

    def remember(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
        ctx.meta[JSON] = value

    option = click.option(
        "--json", is_flag=True, expose_value=False, callback=remember,
        help="Print JSON instead of text.",
    )  # fmt: skip
    return option(command)


def quiet_option(command: Command) -> Command:
    """Give a command the option --quiet."""
    return click.option("--quiet", is_flag=True, help="Print no progress, only warnings.")(command)


def map_option(text: str) -> Callable[[Command], Command]:
    """Make the option --map; `text` says which roles it is about and what a column may be."""
    return click.option("--map", "column_map", multiple=True, metavar="ROLE=COLUMN", help=text)


def comparison_map_option(command: Command) -> Command:
    """Give a command that reads comparisons the option --map."""
    return map_option(
        "Column to read a role from, such as instruction=task; or an expression over columns, in"
        " SQL and in parentheses: 'preference=(score - 1)'. Repeatable."
    )(command)


def run_argument(command: Command) -> Command:
    """Give a command the run directory as its argument."""
    return click.argument("run", type=PATH)(command)


def run_option(text: str, default: Path | None = None) -> Callable[[Command], Command]:
    """Make the option --run, for commands that create the run directory."""
    return click.option(
        "--run", type=PATH, metavar="RUN", required=default is None, default=default,
        show_default=True, help=text,
    )  # fmt: skip


def run_options(command: Command) -> Command:
    """Give `score` and `plan` the options that describe a run."""
    return add_options(
        command,
        click.option(
            "--judge",
            multiple=True,
            metavar="JUDGE",
            help="A Hugging Face model name, a model folder, `demo`, or `scripted[:seed=0,...]`."
            " Repeat it for an ensemble.  [default: demo]",
        ),
        click.option(
            "--revision",
            metavar="REVISION",
            help="Commit, tag or branch of the judge on the Hugging Face Hub.",
        ),
        click.option(
            "--protocol",
            multiple=True,
            metavar="NAME|FILE",
            help="How pairs are judged: a built-in protocol or a TOML file. Repeat it for several"
            " variants of the prompt.  [default: pairwise]",
        ),
        click.option(
            "--criteria",
            metavar="FILE",
            help="Criteria of the rubric: TOML, JSON or YAML.  [default: the column `criteria`]",
        ),
        click.option(
            "--examples", metavar="FILE", help="Worked examples for the judge: TOML, JSON or YAML."
        ),
        click.option(
            "--samples",
            type=int,
            metavar="N",
            help="Answers per prompt from a judge that writes.  [default: the protocol's]",
        ),
        click.option(
            "--tie-band",
            type=float,
            metavar="WIDTH",
            help="Largest difference that is still a tie, for protocols without a tie label: in"
            " points for written scores, otherwise as the distance of the preference from 0.5."
            "  [default: the protocol's]",
        ),
        map_option(
            "Column to read a role from, such as instruction=question; `ROLE=` ignores the role's"
            " column. Repeatable."
        ),
        click.option(
            "--overlong",
            metavar="reject|truncate",
            help="What to do with prompts that exceed the judge's context.  [default: reject]",
        ),
        click.option(
            "--on-bad-row",
            metavar="reject|fail",
            help="What to do with rows that cannot be judged.  [default: reject]",
        ),
        click.option(
            "--max-row-bytes",
            type=int,
            metavar="BYTES",
            help="Largest size of all texts of a row together.  [default: 1048576]",
        ),
        engine_options,
        click.option(
            "--config",
            "config_file",
            type=PATH,
            metavar="FILE",
            help="TOML file with the same names as these options, which take precedence.",
        ),
        quiet_option,
    )


def engine_options(command: Command) -> Command:
    """Give a command the options that may change between the sessions of a run."""
    return add_options(
        command,
        click.option(
            "--engine",
            multiple=True,
            metavar="KEY=VALUE",
            help="Engine setting under its vLLM name, such as gpu_memory_utilization=0.8."
            " Repeatable.",
        ),
        click.option(
            "--replicas",
            type=int,
            metavar="N",
            help="Copies of the engine to run in parallel, one per GPU.  [default: 1]",
        ),
    )


def engine_settings(values: tuple[str, ...]) -> dict[str, Scalar]:
    """Parse the values of --engine."""
    return {key: scalar(text) for key, text in parse_pairs("--engine", values).items()}


def columns_of(column_map: tuple[str, ...], option: str = "--map") -> dict[str, str]:
    """Parse the values of --map: role -> column."""
    return parse_pairs(option, column_map, empty=True)


def make_config(inputs: tuple[str, ...], options: dict[str, Any]) -> RunConfig:
    """Make a configuration: options take precedence over the TOML file, it over the defaults."""
    file = options.pop("config_file")
    values = load_toml(file) if file else {}
    mapping = columns_of(options.pop("column_map"))
    engine = engine_settings(options.pop("engine"))
    values |= {key: value for key, value in options.items() if value not in (None, ())}
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
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C, SIGTERM or SIGHUP sets; the second ends at once."""
    stop = threading.Event()

    def handle(_signal: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        with suppress(OSError):  # the terminal may be gone
            click.echo(
                "\nstopping after the prompts in progress; press Ctrl-C again to stop at once",
                err=True,
            )

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # a lost terminal, unless under nohup
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def emit(
    result: Any, draw: Callable[[Any], str], content: Callable[[Any], Any] | None = None
) -> None:
    """Print a result on stdout: as JSON with --json, as text otherwise.

    Args:
        result: what a command computed.
        draw: makes text for a terminal of it.
        content: makes JSON values of it; not needed where it consists of them already.
    """
    if wants_json():
        print_json(content(result) if content else result)
    else:
        click.echo(draw(result))


def wants_json() -> bool:
    """Return whether the command was called with --json."""
    return bool(click.get_current_context().meta.get(JSON))


def print_json(content: Any) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def print_notes(notes: tuple[str, ...]) -> None:
    """Print notes on stderr."""
    for note in notes:
        click.echo(f"note: {note}", err=True)


def rows_of(table: Any) -> list[dict[str, Any]]:
    """Return a table's rows as JSON values; a repeated column name gets a number."""
    seen: dict[str, int] = {}
    names = []
    for name in table.column_names:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    rows: list[dict[str, Any]] = plain(table.rename_columns(names).to_pylist())
    return rows


def plain(value: Any) -> Any:
    """Return JSON values: bytes as hex, times as ISO 8601, numbers that are not finite as null."""
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
