"""How much longer does planning take where rows are not Parquet?

The same pairs in each format, planned in a child process each: `open` finds, converts and checks
the input, `plan` writes the plan. `share` is Parquet's time over that of the format, both steps
together, by the clock and by the processor's time (all threads); the fastest of `--rounds` counts.
Peak memory is of the process, in MiB.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq

from harness.common import parser, report
from harness.generated import make_shards

CHILD = """
import json, sys, tempfile, time
from pathlib import Path
import steelyard.store.sql
from steelyard.core.config import RunConfig
from steelyard.input import open_shards
from steelyard.input.convert import Staging
from steelyard.plan.spec import KeySpec
from steelyard.protocols.axes import PromptAxes
from steelyard.scoring.planner import write_plan
from steelyard.store.rundir import RunDir
shown = {"conversation", "first", "instruction", "reference", "second", "system"}
key_spec = KeySpec(PromptAxes(), ((bytes(16),),), (), frozenset(shown))
with tempfile.TemporaryDirectory(dir=sys.argv[2]) as folder:
    run = RunDir(Path(folder))
    run.create()
    began, used = time.perf_counter(), time.process_time()
    shards = open_shards([sys.argv[1]], staging=Staging(run.inputs))
    opened = time.perf_counter() - began
    plan = write_plan(run, shards, RunConfig(), key_spec, lambda accepted, refused: None)
    seconds, used = time.perf_counter() - began, time.process_time() - used
    kept = sum(path.stat().st_size for path in run.inputs.glob("*")) / 2**20
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(json.dumps({"pairs": plan.pairs, "open": opened, "plan": seconds - opened,
                  "cpu": used, "kept": kept, "peak": peak / 2**10}))
"""


def lines(table: pa.Table, path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()), "utf-8")


def packed(table: pa.Table, path: Path) -> None:
    lines(table, path)
    path.write_bytes(gzip.compress(path.read_bytes(), 6))


def database(table: pa.Table, path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.register("pairs_as_arrow", table)
        connection.sql("CREATE TABLE pairs AS SELECT * FROM pairs_as_arrow")


def array(table: pa.Table, path: Path) -> None:
    path.write_text(json.dumps(table.to_pylist()), "utf-8")


FORMATS: dict[str, tuple[str, Callable[[pa.Table, Path], Any]]] = {
    "Parquet": ("pairs.parquet", pq.write_table),
    "JSON Lines": ("pairs.jsonl", lines),
    "JSON Lines, gzip": ("pairs.jsonl.gz", packed),
    "JSON array": ("pairs.json", array),
    "CSV": ("pairs.csv", pa.csv.write_csv),
    "Arrow": ("pairs.feather", pa.feather.write_feather),
    "DuckDB": ("pairs.duckdb", database),
}


def planned(path: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", CHILD, path, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=45_000, help="pairs")
    made.add_argument("--rounds", type=int, default=3, help="times that each is planned")
    chosen = made.parse_args()
    if chosen.smoke:
        chosen.rows, chosen.rounds = 500, 1
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_shards(folder / "made", chosen.rows, 2300, distinct=False, shuffled=False)
        table = pq.read_table(folder / "made").slice(0, chosen.rows)
        for name, (file, write) in FORMATS.items():
            write(table, folder / file)
            size = (folder / file).stat().st_size / 2**20
            place = f"{folder / file}{'::pairs' if name == 'DuckDB' else ''}"
            rounds = [planned(place, folder) for _ in range(chosen.rounds)]
            best = min(rounds, key=lambda line: line["open"] + line["plan"])
            results.append({"format": name, "size": size, **best})
    base = results[0]
    for row in results:
        row["share"] = (base["open"] + base["plan"]) / (row["open"] + row["plan"])
        row["cpu_share"] = base["cpu"] / row["cpu"]
    report("inputs", results, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
