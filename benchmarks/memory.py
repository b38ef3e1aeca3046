"""Peak resident memory of a whole run (plan, score, compact) with the scripted judge.

It may grow with the length of rows, and must not grow with their number.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.common import parser, report

CHILD = """
import resource, sys, time
from pathlib import Path
from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.scoring.run import score
began = time.perf_counter()
config = RunConfig(inputs=(sys.argv[1],), judge=("scripted",))
score(config, Path(sys.argv[2]), Reporter(quiet=True))
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(peak / 2**20, time.perf_counter() - began)
"""
SHARD_ROWS = 100_000


def make_shards(
    folder: Path,
    pairs: int,
    words: int,
    more: Callable[[range], dict[str, list[Any]]] = lambda _: {},
) -> int:
    """Write shards of distinct pairs, eight per instruction, and more columns; return the bytes."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    vocabulary = np.array([f"w{i}" for i in range(5000)])
    total = 0
    for start in range(0, pairs, SHARD_ROWS):
        rows = range(start, min(start + SHARD_ROWS, pairs))
        texts = [" ".join(vocabulary[draw.integers(0, 5000, words)]) for _ in range(500)]
        pick = draw.integers(0, 500, (len(rows), 2)).tolist()
        columns = {
            "instruction": [f"{i // 8} {texts[i // 8 % 500]}" for i in rows],
            "response_a": [f"a{i} {texts[a]}" for i, (a, _) in zip(rows, pick, strict=True)],
            "response_b": [f"b{i} {texts[b]}" for i, (_, b) in zip(rows, pick, strict=True)],
            "model_a": [f"m{i % 7}" for i in rows],
            "model_b": [f"m{i % 11}" for i in rows],
            **more(rows),
        }
        table = pa.table(columns)
        total += table.nbytes
        pq.write_table(table, folder / f"{start:09}.parquet", row_group_size=20_000)
    return total


def measure(pairs: int, words: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as folder:
        size = make_shards(Path(folder) / "in", pairs, words)
        command = [sys.executable, "-c", CHILD, f"{folder}/in", f"{folder}/run"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peak, seconds = map(float, done.stdout.split())
        status = subprocess.run(
            [sys.executable, "-m", "steelyard", "status", f"{folder}/run", "--json"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        verdicts = json.loads(status.stdout)["pairs"]["done"]
    if verdicts != pairs:
        raise SystemExit(f"memory: {verdicts} verdicts of {pairs} pairs")
    return {
        "pairs": pairs,
        "bytes_a_row": round(size / pairs),
        "peak_gib": peak,
        "seconds": seconds,
        "pairs_a_second": pairs / seconds,
    }


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=2_000_000)
    options.add_argument("--words", type=int, default=40, help="bytes per text")
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.pairs, chosen.words = 8000, 20
    sizes = [(chosen.pairs // 8, chosen.words), (chosen.pairs, chosen.words)]
    sizes.append((chosen.pairs // 8, 8 * chosen.words))
    report("memory", [measure(*size) for size in sizes], chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
