"""What the reports share: their source, estimates as JSON, lists of names."""

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
    """Return where the comparisons came from, and what was left out."""
    return {
        "source": str(path),
        "preference": read.preference,
        "rows": len(read.table),
        "left_out": read.left_out,
        "clusters_by": read.columns.get("instruction", "row").replace('"', ""),
    }


def estimate_json(value: Mean | None) -> dict[str, Any] | None:
    """Return an estimate as JSON."""
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
    """Return a standard error if there are enough clusters for it to mean anything."""
    return standard_error if clusters >= MIN_FOR_INTERVAL else None


def format_names(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if names[SHOWN:] else ""
    return ", ".join(map(escape, names[:SHOWN])) + more
