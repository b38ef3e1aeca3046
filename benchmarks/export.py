"""Millions of verdicts with their texts as a dataset: how long does it take, and how much memory?

Verdicts with texts are imported, so that nothing is judged; then each format is written by the
command line in a separate process. Memory may grow with the length of rows, hardly with their
number: the last column is the size of the input's texts, in bytes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from calibration import measured
from harness.common import parser, report
from memory import make_shards

FORMATS = (
    ("preference", ()),
    ("preference", ("--select", "best-worst", "--balance-length", "--test", "0.01")),
    ("kto", ()),
    ("reward", ("--near-duplicates", "0.8")),
)


def verdicts(rows: range) -> dict[str, list[Any]]:
    """Return the columns other than texts."""
    return {
        "pair_id": [f"p{row}" for row in rows],
        "preference": np.random.default_rng(rows.start).random(len(rows)).tolist(),
    }


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=5_000_000)
    options.add_argument("--words", type=int, default=60, help="bytes per text")
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.pairs = 4000
    lines = []
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as name:
        folder = Path(name)
        size = make_shards(folder / "in", chosen.pairs, chosen.words, verdicts)
        run = folder / "run"
        lines.append(measured("import", chosen.pairs, "import", folder / "in", "--run", run))
        for number, (kind, more) in enumerate(FORMATS):
            out = folder / f"out-{number}"
            what = " ".join(["export", kind, *more])
            line = measured(
                what, chosen.pairs, "export", run, "--format", kind, *more, "--out", out, "--quiet"
            )
            line["rows"] = sum(
                pq.ParquetFile(file).metadata.num_rows for file in sorted(out.rglob("*.parquet"))
            )
            lines.append(line)
    report("export", [{**line, "input_gib": size / 2**30} for line in lines], chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
