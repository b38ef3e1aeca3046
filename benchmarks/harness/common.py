"""What the benchmarks share: a table on stdout, and JSON with commit, machine and input."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def parser(text: str | None) -> argparse.ArgumentParser:
    """Make a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--smoke", action="store_true", help="run the small size of CI")
    made.add_argument("--json", type=Path, help="folder of the result [benchmarks/results/]")
    return made


def report(name: str, rows: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> None:
    """Print rows as a table and write them as JSON; smoke sizes are written only on request."""
    columns = list(rows[0])
    headings = [re.sub(r"(?<![^_])a_", "per_", column) for column in columns]
    cells = [headings, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    target = options.json or (None if options.smoke else RESULTS / f"{name}.json")
    if target:
        content = {"benchmark": name, "options": _plain(options), **machine(), "rows": list(rows)}
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Describe commit and hardware."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    names = Path("/proc/cpuinfo").read_text("utf-8").split("model name")[1:2]
    return {
        "commit": commit.stdout.strip() or "unknown",
        "processor": names[0].split("\n")[0].strip("\t: ") if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def _plain(options: argparse.Namespace) -> dict[str, Any]:
    hidden = {"json", "smoke", "input"}
    return {key: value for key, value in vars(options).items() if key not in hidden}


def _cell(value: object) -> str:
    if isinstance(value, float) and 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
