"""Write demo.parquet, the pairs that `steelyard demo` judges, from demo.toml next to it."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "demo.toml"
TARGET = FOLDER / "demo.parquet"

COLUMNS = (
    "instruction", "response_a", "response_b", "model_a", "model_b", "source", "difficulty", "gold"
)  # fmt: skip
SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])
SWAPPED_GOLD = {"A": "B", "B": "A", "tie": "tie"}

Row = dict[str, str | None]


def demo_table() -> pa.Table:
    """Return all rows of demo.toml, shuffled, so that a planner has something to put in order."""
    source = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    rows = [row for task in source["task"] for row in _task_rows(task)]
    rows += [{name: bad.get(name) for name in COLUMNS} for bad in source["bad"]]
    rows = [row for _, row in sorted(enumerate(rows), key=_shuffle_key)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _task_rows(task: dict[str, Any]) -> Iterator[Row]:
    for pair in task["pairs"]:
        row: Row = {
            "instruction": task["instruction"].strip(),
            "response_a": task["response"][pair["a"]].strip(),
            "response_b": task["response"][pair["b"]].strip(),
            "model_a": pair["a"],
            "model_b": pair["b"],
            "source": task["source"],
            "difficulty": pair["difficulty"],
            "gold": pair["gold"],
        }
        yield row
        for copy in pair.get("also", ()):
            yield {"exact": row, "swapped": _swapped(row)}[copy]


def _swapped(row: Row) -> Row:
    sides = {
        "response_a": row["response_b"],
        "response_b": row["response_a"],
        "model_a": row["model_b"],
        "model_b": row["model_a"],
    }
    return {**row, **sides, "gold": SWAPPED_GOLD[str(row["gold"])]}


def _shuffle_key(numbered: tuple[int, Row]) -> bytes:
    number, row = numbered
    return hashlib.sha256(f"{number} {row['instruction']}".encode()).digest()


if __name__ == "__main__":
    pq.write_table(demo_table(), TARGET, compression="zstd")
