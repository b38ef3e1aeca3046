"""Tables, lists of fields and quotations as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from steelyard.errors import escape


def format_table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    """Align cells in columns: the first column to the left, all others to the right."""
    lines = [list(head), *[[format_cell(value) for value in row] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = []
    for first, *others in lines:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        aligned.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(aligned)


def format_cell(value: object) -> str:
    """Return a value as it is shown in a table: three decimals for a float, nothing for None."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else escape(value)


def format_fields(fields: Sequence[tuple[str, str]]) -> str:
    """Return one line per field, `name: text`, with all texts beginning in one column.

    A field without a name continues the one before.
    """
    width = max(len(name) for name, _ in fields) + 2
    return "\n".join(f"{name + ':' if name else '':<{width}}{text}" for name, text in fields)


def format_quote(text: str) -> str:
    """Mark every line of a text as quoted."""
    return "\n".join(f"  | {line}" for line in text.split("\n"))
