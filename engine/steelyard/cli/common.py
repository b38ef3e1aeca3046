"""What the commands share: options, configuration, Ctrl-C, output, errors as exit codes."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click
from typing_extensions import override

from steelyard.core.config import parse_pairs
from steelyard.errors import (
    EXIT_INTERRUPTED,
    EnvironmentFault,
    SteelyardError,
    UsageError,
    escape,
    machine_fault,
    printable,
)

Command = TypeVar("Command", bound=Callable[..., Any])

# Options by their former names, which are still accepted.
FORMER_NAMES = {"bootstraps": "replicates"}
CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "show_default": True,
    "token_normalize_func": lambda name: FORMER_NAMES.get(name, name),
}
PATH = click.Path(path_type=Path)
_NOT_ASCII = re.compile(r"[^\n\x20-\x7e]")
JSON = "steelyard.json"  # where the context holds whether --json was given


class Program(click.Group):
    """Commands in the order in which people need them; errors without tracebacks."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were added."""
        return list(self.commands)

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse an option that is given by both of its names: one of them would be lost."""
        given = {argument.partition("=")[0] for argument in args}
        for former, name in FORMER_NAMES.items():
            if {f"--{former}", f"--{name}"} <= given:
                raise click.UsageError(f"--{former} is the former name of --{name}: give one", ctx)
        return super().parse_args(ctx, args)

    @override
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; turn every error into a message and an exit code."""
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            code = 0
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted", err=True)
            code = EXIT_INTERRUPTED
        except Exception as error:
            fault = _explained(error)
            click.echo(str(fault), err=True)
            code = fault.exit_code
        sys.exit(code if isinstance(code, int) else 0)


def _explained(error: Exception) -> SteelyardError:
    """Return the error that a user is shown for an exception; raise it again if asked to."""
    if isinstance(error, SteelyardError):
        return error
    if os.environ.get("STEELYARD_TRACEBACK") and not isinstance(error, click.ClickException):
        raise error
    if isinstance(error, OSError | MemoryError):
        return machine_fault(error)
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        command = context.command_path if context else "steelyard"
        return UsageError(
            escape(" ".join(error.format_message().split()), 300), remedy=f"{command} --help"
        )
    return SteelyardError(
        f"{type(error).__name__}: {escape(error, 300)}",
        effect="everything committed before is intact",
        remedy="run it again with STEELYARD_TRACEBACK=1 and report the traceback",
    )


def grouped(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that gives a command options, which its help lists in this order."""
    return lambda command: reduce(lambda made, option: option(made), reversed(options), command)


def remember_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """Keep --json where `wants_json` looks it up, so that no command has to pass it on."""
    context.meta[JSON] = value


json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=remember_json,
    help="Print JSON instead of text.",
)  # fmt: skip
quiet_option = click.option("--quiet", is_flag=True, help="Print no progress, only warnings.")
revision_option = click.option(
    "--revision",
    metavar="REVISION",
    help="Commit, tag or branch of the judge on the Hugging Face Hub.",
)
remote_option = click.option(
    "--remote",
    is_flag=True,
    help="Fetch what the run directory names on the network. For runs that you trust.",
)
run_argument = click.argument("run", type=PATH)


def run_option(text: str, **attributes: Any) -> Callable[[Command], Command]:
    """Make the option --run, for commands that create the run directory."""
    return click.option("--run", type=PATH, metavar="RUN", help=text, **attributes)


def map_option(text: str, *names: str) -> Callable[[Command], Command]:
    """Make the option --map, or one like it, for role -> column; `text` says what a column is."""
    return click.option(
        *(names or ("--map", "column_map")),
        multiple=True,
        metavar="ROLE=COLUMN",
        callback=lambda _, option, values: parse_pairs(option.opts[0], values, empty=True),
        help=text,
    )


comparison_map_option = map_option(
    "Column to read a role from, such as instruction=task; or an expression over columns, in SQL"
    " and in parentheses: 'preference=(score - 1)'. Repeatable."
)


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


def echo(text: str, *, escapes: Callable[[str], str] = printable) -> None:
    """Print a text on stdout, where data in it does nothing but show: the one way to print.

    Raises:
        EnvironmentFault: stdout takes no more.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    shown = escapes(text).encode(encoding, "backslashreplace").decode(encoding)
    try:
        click.echo(shown)
    except BrokenPipeError:  # whoever read the output has seen enough
        _discard_output()
        raise click.exceptions.Exit(0) from None
    except OSError as error:
        _discard_output()
        raise EnvironmentFault(
            f"the result cannot be printed: {error.strerror or error}",
            place="stdout",
            remedy="free some space where the output goes, or send it elsewhere, and run it again",
        ) from None


def _discard_output() -> None:
    """Let go of what stdout did not take: Python would try again when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def json_text(values: Any) -> str:
    """Return JSON whose strings hold nothing that a terminal or an encoding could stumble over."""
    text = json.dumps(plain(values), indent=2, ensure_ascii=False, default=str)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return _NOT_ASCII.sub(lambda match: _json_character(match[0], encoding), text)


def _json_character(character: str, encoding: str) -> str:
    with suppress(UnicodeEncodeError):
        character.encode(encoding)
        if printable(character) == character:
            return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def emit(
    result: Any, draw: Callable[[Any], str], content: Callable[[Any], Any] | None = None
) -> None:
    """Print a result on stdout: as JSON with --json, as the text that `draw` makes otherwise.

    `content` makes JSON values of a result that does not consist of them already. An iterator of
    values is printed as a list, one after the other.
    """
    if wants_json():
        values = content(result) if content else result
        if isinstance(values, Iterator):
            emit_list(values)
        else:
            echo(json_text(values), escapes=str)
    else:
        echo(draw(result))


def emit_list(values: Iterator[Any]) -> None:
    """Print values as a JSON list, each as soon as it is there."""
    last = next(values, None)
    if last is None:
        echo("[]")
        return
    echo("[")
    for value in values:
        echo(_indented(last) + ",", escapes=str)
        last = value
    echo(_indented(last) + "\n]", escapes=str)


def _indented(value: Any) -> str:
    return textwrap.indent(json_text(value), "  ")


def wants_json() -> bool:
    """Return whether the command was called with --json."""
    return bool(click.get_current_context().meta.get(JSON))


def print_notes(notes: tuple[str, ...]) -> None:
    """Print notes on stderr."""
    for note in notes:
        click.echo(f"note: {printable(note)}", err=True)


def plain(value: Any) -> Any:
    """Return JSON values: bytes as hex, numbers that are not finite as null."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
