"""Planning `--pairs all` of responses, next to the same pairs written out as Parquet.

Each plan is made in a separate process, of files that are grouped by instruction and of shuffled
ones. `write_s` is how long DuckDB takes to write the pairs, `of_written` the CPU seconds as a share
of those for the written pairs in the same order.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.common import parser, report

WORDS = np.array([f"{a}{b}{c}" for a in "bdklmnrst" for b in "aeiou" for c in "lnrst"])
PLAN = """
import json, sys, tempfile, time
from pathlib import Path
from steelyard.core.config import RunConfig
from steelyard.plan.spec import JudgingSpec, KeySpec
from steelyard.prompts.judging import resolve_spec
from steelyard.protocols.axes import PromptAxes
from steelyard.scoring.planner import write_plan
from steelyard.store.rundir import RunDir
from steelyard.store.run_input import open_input
config = RunConfig(inputs=(sys.argv[1],), judge=("scripted",), pairs=sys.argv[3] or None)
spec, _ = resolve_spec(config)
shards = open_input(config, spec)
shown = {"conversation", "first", "instruction", "reference", "second", "system"}
key_spec = KeySpec(PromptAxes(), ((bytes(16),),), (), frozenset(shown))
with tempfile.TemporaryDirectory(dir=sys.argv[2]) as folder:
    run = RunDir(Path(folder))
    run.create()
    began, used = time.perf_counter(), time.process_time()
    plan = write_plan(run, shards, config, key_spec, lambda accepted, refused: None)
    seconds, used = time.perf_counter() - began, time.process_time() - used
    size = sum(path.stat().st_size for path in run.plan.iterdir())
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(json.dumps({
    "pairs": plan.pairs, "prompts": plan.prompts,
    "texts": "in shards" if plan.in_shards else "copied", "seconds": seconds,
    "cpu_s": used, "peak_mib": peak / 1024, "plan_mb": size / 1e6,
}))
"""
PAIRS = """
COPY (
  SELECT a.instruction, a.response AS response_a, a.model AS model_a, b.response AS response_b,
    b.model AS model_b
  FROM '{source}' a JOIN '{source}' b ON a.instruction = b.instruction AND a.model < b.model
  ORDER BY {order}
) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"""
ORDERS = {"grouped": "a.instruction, a.model, b.model", "shuffled": "hash(a.response, b.response)"}


def write_responses(folder: Path, instructions: int, each: int, words: int) -> None:
    """Write responses by `each` models, grouped by instruction and shuffled."""
    draw = np.random.default_rng(7)

    def texts(count: int, length: int) -> list[str]:
        return [" ".join(row) for row in WORDS[draw.integers(0, len(WORDS), (count, length))]]

    questions = texts(instructions, 12)
    table = pa.table({
        "instruction": [f"{i} {text}" for i, text in enumerate(questions) for _ in range(each)],
        "model": [f"m{k}" for k in range(each)] * instructions,
        "response": texts(instructions * each, words),
    })  # fmt: skip
    pq.write_table(table, folder / "grouped.parquet", compression="zstd", row_group_size=20_000)
    order = pa.array(draw.permutation(len(table)))
    shuffled = table.take(order)
    pq.write_table(shuffled, folder / "shuffled.parquet", compression="zstd", row_group_size=20_000)


def plan(what: str, source: Path, folder: Path, pairs: str) -> dict[str, Any]:
    """Plan a file in a separate process."""
    line = [sys.executable, "-c", PLAN, str(source), str(folder), pairs]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what}: exit {done.returncode}: {done.stderr}")
    return {"what": what, "input_mb": source.stat().st_size / 1e6, **json.loads(done.stdout)}


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--instructions", type=int, default=25_000)
    options.add_argument("--each", type=int, default=8, help="responses per instruction")
    options.add_argument("--words", type=int, default=80, help="words per response")
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.instructions, chosen.each, chosen.words = 200, 4, 20
    lines = []
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as name:
        folder = Path(name)
        write_responses(folder, chosen.instructions, chosen.each, chosen.words)
        for order, by in ORDERS.items():
            source, target = folder / f"{order}.parquet", folder / f"{order}-pairs.parquet"
            began = time.perf_counter()
            with duckdb.connect() as connection:
                connection.execute(f"SET temp_directory = '{folder}/spill'")
                connection.execute(PAIRS.format(source=source, target=target, order=by))
            wrote = time.perf_counter() - began
            written = plan(f"pairs written out, {order}", target, folder, "")
            made = plan(f"responses, {order}, --pairs all", source, folder, "all")
            for key in ("pairs", "prompts"):
                if written[key] != made[key]:
                    raise SystemExit(f"{order}: {made[key]} {key}, written {written[key]}")
            share = made["cpu_s"] / written["cpu_s"]
            lines.append({**written, "write_s": wrote, "of_written": 1.0})
            lines.append({**made, "write_s": "", "of_written": share})
            target.unlink()
    report("pairs", lines, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
