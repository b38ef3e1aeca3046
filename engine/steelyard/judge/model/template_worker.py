"""Renders chat templates in a process with limits: a script, started by `template_process`.

It imports Jinja and nothing of Steelyard, so that it starts in a tenth of a second. A line of JSON
on stdin is a request, a line on stdout its answer: `text`; or `error`, what the template raised; or
`limit`, what it took too much of. A template that takes too long ends the process.

Jinja is set up as transformers does it, because judges are trained with that.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from typing_extensions import override

MEMORY_BYTES = 512 << 20  # of addresses, those of Python itself included
SECONDS = 2  # of a processor, per rendering, at most: the system counts whole ones
OUTPUT_BYTES = 256 << 10  # as in protocols.sandbox


class Generation(Extension):
    """`{% generation %}` marks what a judge would write; here it changes nothing."""

    def __init__(self, environment: Any) -> None:
        self.tags = {"generation"}
        super().__init__(environment)

    @override
    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("same"), [], [], body).set_lineno(line)

    @staticmethod
    def same(caller: Callable[[], str]) -> str:
        """Return the text of the block."""
        return caller()


@lru_cache(1)
def compile_template(source: str) -> Template:
    """Compile a chat template."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = partial(_to_json)
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(source)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def answer(request: dict[str, Any]) -> dict[str, str]:
    """Render a template with values, and with `day` for today."""
    values = {**request["values"], "strftime_now": datetime.fromisoformat(request["day"]).strftime}
    try:
        text = compile_template(request["template"]).render(values)
    except MemoryError:
        return {"limit": f"more than {MEMORY_BYTES >> 20} MiB of memory"}
    except Exception as error:
        return {"error": str(error)[:1000]}
    if len(text) > OUTPUT_BYTES:
        return {"limit": f"more than {OUTPUT_BYTES >> 10} KiB of text"}
    return {"text": text}


def _limit(kind: int, most: int) -> None:
    """Lower a limit of this process, unless it is lower already."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> None:
    """Answer requests until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's affair
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    for line in sys.stdin.buffer:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + SECONDS)
        sys.stdout.buffer.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
