"""How long do commands take that need no engine? Whole processes, medians."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import steelyard
from harness.common import parser, report


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=100_000, help="pairs of the run to inspect")
    options.add_argument("--repeats", type=int, default=7)
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.pairs, chosen.repeats = 500, 1
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as folder:
        shard, run = Path(folder) / "p.parquet", Path(folder) / "run"
        rows = range(chosen.pairs)
        columns = {
            name: [f"{name} {i}" for i in rows]
            for name in ("instruction", "response_a", "response_b")
        }
        pq.write_table(pa.table(columns), shard)
        steelyard.score(shard, run=run, judge="scripted")
        commands = {
            "--help": ["--help"],
            "version": ["version"],
            "status RUN": ["status", str(run)],
            "sql RUN (count)": ["sql", str(run), "SELECT count(*) FROM verdicts"],
        }
        result = []
        for name, arguments in commands.items():
            times = [seconds(arguments) for _ in range(chosen.repeats + 1)][1:]
            result.append(
                {"command": name, "median_s": statistics.median(times), "max_s": max(times)}
            )
    report("startup", result, chosen)
    return 0


def seconds(arguments: list[str]) -> float:
    """Time one whole process."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "steelyard", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
