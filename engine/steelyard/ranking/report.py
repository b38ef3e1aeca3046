"""What the reports share: tables as text, estimates as JSON, what was read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steelyard.comparisons.read import Comparisons
from steelyard.errors import escape
from steelyard.statistics.clusters import MIN_FOR_INTERVAL
from steelyard.statistics.means import Mean

LEVEL = 0.95
SHOWN = 5  # competitors that a warning names


def source(path: Path, read: Comparisons) -> dict[str, Any]:
    """Where the comparisons came from, and what was not taken."""
    return {
        "source": str(path),
        "rows": len(read.table),
        "left_out": read.left_out,
        "clusters_by": read.columns.get("instruction", "row").replace('"', ""),
    }


def estimate_json(value: Mean | None) -> dict[str, Any] | None:
    """An estimate as JSON."""
    if value is None:
        return None
    lower, upper = value.interval(LEVEL)
    return {
        "value": value.value,
        "standard_error": standard_error_or_none(value.standard_error, value.clusters),
        "lower": lower,
        "upper": upper,
        "rows": value.rows,
        "clusters": value.clusters,
    }


def standard_error_or_none(standard_error: float | None, clusters: int) -> float | None:
    """A standard error, where there are clusters enough for it to mean anything."""
    return standard_error if clusters >= MIN_FOR_INTERVAL else None


def format_names(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if names[SHOWN:] else ""
    return ", ".join(map(escape, names[:SHOWN])) + more


def format_table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    """A table as text: the first column to the left, numbers to the right."""
    cells = [list(head), *[[format_cell(value) for value in row] for row in rows]]
    widths = [max(len(line[at]) for line in cells) for at in range(len(head))]
    lines = []
    for line in cells:
        padded = [line[0].ljust(widths[0])]
        padded += [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def format_cell(value: object) -> str:
    """A value in a table; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else escape(value)


def percent(value: float | None) -> str:
    """A share as per cent, with two digits."""
    return "" if value is None else f"{100 * value:.2f}"


def format_interval(one: dict[str, Any] | None, digits: int = 3) -> str:
    """An estimate with its interval."""
    if one is None:
        return ""
    if one["lower"] is None:
        return f"{one['value']:.{digits}f}"
    return f"{one['value']:.{digits}f} [{one['lower']:.{digits}f}, {one['upper']:.{digits}f}]"


def format_source(content: dict[str, Any]) -> str:
    """The lines under a report: what it rests on, and warnings."""
    lines = [f"{content['rows']:,} comparisons, intervals over {content['clusters_by']}"]
    lines += [f"left out: {count:,} rows: {why}" for why, count in content["left_out"].items()]
    lines += [f"warning: {text}" for text in content.get("warnings", ())]
    return "\n".join(lines)
