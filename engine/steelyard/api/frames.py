"""Tables for notebooks: as HTML that only shows its data, as pandas, as polars."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from html import escape
from typing import Any

import pyarrow as pa

from steelyard.errors import EnvironmentFault, printable

MOST_ROWS = 60  # of a table that is shown


def html_table(
    rows: Sequence[dict[str, Any]], caption: str, notes: Sequence[str] = (), head: bool = True
) -> str:
    """Return a table with a caption and notes; nothing in its data passes for HTML.

    Args:
        rows: with the same keys, which are the heads of the columns; only MOST_ROWS are shown.
        caption: above the table.
        notes: below it.
        head: whether the keys are shown.
    """
    names = list(rows[0]) if rows else []
    lines = ["<table>", f"<caption>{html_text(caption)}</caption>"]
    if head:
        lines.append("<tr>" + "".join(f"<th>{html_text(name)}</th>" for name in names) + "</tr>")
    for row in rows[:MOST_ROWS]:
        cells = (f"<td>{html_text(_cell(value))}</td>" for value in row.values())
        lines.append("<tr>" + "".join(cells) + "</tr>")
    lines.append("</table>")
    if len(rows) > MOST_ROWS:
        notes = [f"{len(rows) - MOST_ROWS:,} more rows", *notes]
    return "\n".join([*lines, *(f"<p>{html_text(note)}</p>" for note in notes)])


def html_text(value: object) -> str:
    """Return a value as text in which HTML has no effect."""
    return escape(printable(str(value)))


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,.3f}" if isinstance(value, float) else str(value)


def to_pandas(table: pa.Table) -> Any:  # noqa: ANN401 - a DataFrame of a library that may be missing
    """Return a table as a pandas DataFrame.

    Raises:
        EnvironmentFault: pandas is not installed.
    """
    _require("pandas")
    return table.to_pandas()


def to_polars(table: pa.Table) -> Any:  # noqa: ANN401 - a DataFrame of a library that may be missing
    """Return a table as a polars DataFrame.

    Raises:
        EnvironmentFault: polars is not installed.
    """
    return _require("polars").from_arrow(table)


def _require(name: str) -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module(name)
    except ImportError:
        raise EnvironmentFault(
            f"{name} is not installed", remedy=f"pip install 'steelyard[frames]', or {name}"
        ) from None
