"""Prompt templates: Jinja, rendered with slot marks in place of data, which it never sees.

A template comes from the project or the user. All the same, it can use only the values that it is
given, calls nothing, and ends soon: `grammar` accepts a small part of Jinja, and that part runs in
Jinja's immutable sandbox. Blocks leave no empty line (`trim_blocks`, `lstrip_blocks`), the final
line break is dropped, and nothing is escaped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace

from steelyard.errors import UsageError

SOURCE_BYTES = 64 << 10
OUTPUT_BYTES = 256 << 10
SECONDS = 2.0

Value = str | tuple[Mapping[str, str], ...]


def render(
    source: str,
    values: Mapping[str, Value],
    *,
    place: str,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Render a template.

    Args:
        source: Jinja, at most 64 KiB of UTF-8.
        values: from each name to its mark, which comes out unchanged, and from `examples` to the
            fields of each worked example. Other names are false in `{% if name %}`.
        place: the template's file or name, for errors.
        clock: seconds, for the time limit.

    Raises:
        UsageError: the template holds what is not allowed, prints a name without a value, renders
            to more than 256 KiB, or takes more than 2 s.
    """
    from steelyard.protocols.grammar import AbsentError, Grammar, environment

    end = clock() + SECONDS
    _check_size(source, place)
    grammar = Grammar(place)
    template = environment().from_string(grammar.parse(source))
    given = {
        name: value if isinstance(value, str) else [SimpleNamespace(**item) for item in value]
        for name, value in values.items()
    }
    try:
        return _collect(template.generate(given), place, lambda: clock() > end)
    except AbsentError as absent:
        name = str(absent)
        raise UsageError(
            f"line {grammar.printed[name]}: {name} is printed but has no value here",
            place=place,
            remedy=f"put it inside {{% if {name} %}} ... {{% endif %}}, or check its spelling;"
            f" names with a value: {', '.join(sorted(values)) or 'none'}",
        ) from None


def names(source: str, *, place: str) -> frozenset[str]:
    """Return the variables that a template uses; a loop uses `examples`.

    Raises:
        UsageError: the template holds what is not allowed.
    """
    from steelyard.protocols.grammar import Grammar

    _check_size(source, place)
    grammar = Grammar(place)
    grammar.parse(source)
    return frozenset(grammar.names)


def _check_size(source: str, place: str) -> None:
    size = len(source.encode("utf-8", "surrogatepass"))
    if size > SOURCE_BYTES:
        raise UsageError(
            f"the template has {size:,} bytes; {SOURCE_BYTES:,} are allowed",
            place=place,
            remedy="shorten it; texts of pairs and examples do not belong in it",
        )


def _collect(chunks: Iterable[str], place: str, late: Callable[[], bool]) -> str:
    kept: list[str] = []
    size = 0
    for chunk in chunks:
        kept.append(chunk)
        size += len(chunk.encode("utf-8", "surrogatepass"))
        if size > OUTPUT_BYTES or late():
            limit = f"{OUTPUT_BYTES:,} bytes" if size > OUTPUT_BYTES else f"{SECONDS:g} seconds"
            raise UsageError(
                f"rendering the template exceeds its limit of {limit}",
                place=place,
                remedy="shorten it, or give it fewer examples",
            )
    return "".join(kept)
