"""Millions of verdicts with their texts as a dataset: how long does it take, and how much memory?

Verdicts with texts are imported, so that nothing is judged; then each format is written by the
command line in a process of its own. Memory may grow with the length of rows, hardly with their
number: the last column is the bytes of the texts that went in.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from calibration import measured
from common import parser, report

SHARD_ROWS = 100_000
PER_INSTRUCTION = 8
FORMATS = (
    ("preference", ()),
    ("preference", ("--select", "best-worst", "--balance-length", "--test", "0.01")),
    ("kto", ()),
    ("reward", ("--near-duplicates", "0.8")),
)


def make_shards(folder: Path, pairs: int, words: int) -> int:
    """Verdicts on distinct pairs, eight to an instruction; returns the bytes of the texts."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    vocabulary = np.array([f"w{i}" for i in range(5000)])
    total = 0
    for start in range(0, pairs, SHARD_ROWS):
        rows = range(start, min(start + SHARD_ROWS, pairs))
        texts = [" ".join(vocabulary[draw.integers(0, 5000, words)]) for _ in range(500)]
        pick = draw.integers(0, 500, (len(rows), 2)).tolist()
        columns = {
            "pair_id": [f"p{i}" for i in rows],
            "instruction": [
                f"{i // PER_INSTRUCTION} {texts[i // PER_INSTRUCTION % 500]}" for i in rows
            ],
            "response_a": [f"a{i} {texts[a]}" for i, (a, _) in zip(rows, pick, strict=True)],
            "response_b": [f"b{i} {texts[b]}" for i, (_, b) in zip(rows, pick, strict=True)],
            "model_a": [f"m{i % 7}" for i in rows],
            "model_b": [f"n{i % 11}" for i in rows],
            "preference": draw.random(len(rows)),
        }
        table = pa.table(columns)
        total += table.nbytes
        pq.write_table(table, folder / f"{start:09}.parquet", row_group_size=20_000)
    return total


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=5_000_000)
    options.add_argument("--words", type=int, default=60, help="of a text")
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.pairs = 4000
    lines = []
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as name:
        folder = Path(name)
        size = make_shards(folder / "in", chosen.pairs, chosen.words)
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
