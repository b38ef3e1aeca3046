"""Millions of verdicts: how long do `calibrate apply` and `evaluate` take, and how much memory?

A small run is scored, then copied many times inside its own files under new keys, so that the
program sees a run of that size. The table holds the same verdicts, as from another tool.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import steelyard
from harness.common import parser, report
from steelyard.core.sealed import seal, unseal
from steelyard.core.work import BatchProgress
from steelyard.store.reads import journal
from steelyard.store.reads.parts import commit_part
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import handoff

# A command, then on the last line of stderr its peak memory in GiB, seconds and processor seconds.
CHILD = """
import sys, time
from pathlib import Path
began = time.perf_counter()
from steelyard.cli import main
try:
    main(sys.argv[1:])
finally:
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    print(peak / 2**20, time.perf_counter() - began, time.process_time(), file=sys.stderr)
"""
SEED_PAIRS = 10_000
COPIES_PER_PART = 5  # of the small run


def small_run(folder: Path, pairs: int) -> RunDir:
    """Score a run with votes; eight pairs per instruction."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 40, (2, pairs)).tolist()
    table = {
        "pair_id": [f"p{i}" for i in range(pairs)],
        "instruction": [f"question {i // 8}" for i in range(pairs)],
        "response_a": [f"a{i} " + "x" * n for i, n in enumerate(lengths[0])],
        "response_b": [f"b{i} " + "x" * n for i, n in enumerate(lengths[1])],
        "subset": [f"s{i % 4}" for i in range(pairs)],
        "votes_a": draw.integers(0, 4, pairs),
        "votes_b": draw.integers(0, 4, pairs),
        "votes_tie": draw.integers(1, 3, pairs),
    }
    pq.write_table(pa.table(table), folder / "pairs.parquet")
    steelyard.score(folder / "pairs.parquet", run=folder / "run", judge="scripted")
    return RunDir(folder / "run")


def inflate(run: RunDir, copies: int) -> None:
    """Make the run look as if its input had been that many times as long."""
    (part,) = journal.read_journal(run.root)
    reads, pairs = (
        pq.read_table(run.root / part.name),
        pq.read_table(run.plan / "pairs-00000.parquet"),
    )
    journal.rewrite(run, [])
    files = {}
    for number, start in enumerate(range(0, copies, COPIES_PER_PART)):
        tables = []
        for copy in range(start, min(start + COPIES_PER_PART, copies)):
            tables.append(copied(pairs, copy))
            more = copied(reads, copy)  # in a separate bucket, as in a run of this size
            commit_part(run, more, copy + 1, BatchProgress(len(pairs), 0, {}))
        name = f"plan/pairs-{number:05}.parquet"
        run.files.write_table(name, pa.concat_tables(tables))
        files[name] = run.files.digest(name)
    manifest, _ = unseal(run.files.read("plan/plan.json"))
    manifest["pairs"] *= copies
    manifest["asked"] *= copies
    (unique,) = manifest["unique"]
    manifest["unique"] = [unique] * copies
    manifest["files"] = {**manifest["files"], **files}
    run.files.write("plan/plan.json", seal(manifest))
    journal.mark_complete(run, journal.load(run), manifest["run"])
    run.database.unlink()


def copied(table: pa.Table, copy: int) -> pa.Table:
    """Copy rows under other keys, pair_ids and instructions."""
    for name in ("keys", "prompt_key"):
        if name in table.column_names:
            column = pa.concat_arrays(table[name].chunks)
            keys = column.flatten() if name == "keys" else column
            words = np.frombuffer(keys.buffers()[1], np.uint64).copy()
            words[::2] ^= np.uint64(copy * 0x9E3779B97F4A7C15 % 2**64)
            flat = pa.Array.from_buffers(keys.type, len(keys), [None, pa.py_buffer(words)])
            if name == "keys":
                flat = pa.ListArray.from_arrays(column.offsets, flat, type=column.type)
            table = changed(table, name, flat)
    for name, step in (("pair", len(table)), ("bucket", 1)):
        if name in table.column_names:
            numbers = table[name].to_numpy() + copy * step
            table = changed(table, name, pa.array(numbers, table[name].type))
    if "instruction_id" in table.column_names:
        numbers = table["instruction_id"].to_numpy() ^ np.uint64(copy)
        table = changed(table, "instruction_id", pa.array(numbers, pa.uint64()))
    if "pair_id" in table.column_names:
        names = [f"{copy}/{name}" for name in table["pair_id"].to_pylist()]
        table = changed(table, "pair_id", pa.array(names))
    return table


def changed(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    at = table.column_names.index(name)
    return table.set_column(at, table.schema.field(name), values)


def table_of(run: RunDir, folder: Path) -> tuple[Path, Path]:
    """Write the verdicts as a table of another tool, and gold as a file, in another order."""
    found = steelyard.open_run(run.root).sql(
        "SELECT pair_id, raw_preference, preference_ab, preference_ba, length_a, length_b,"
        " gold.a AS votes_a, gold.b AS votes_b, gold.tie AS votes_tie, metadata.subset AS subset,"
        " instruction_id FROM verdicts"
    )
    gold = ["pair_id", "votes_a", "votes_b", "votes_tie"]
    pq.write_table(
        found.select(gold).take(pa.array(np.arange(len(found))[::-1])), folder / "gold.parquet"
    )
    pq.write_table(found.drop_columns(gold[1:]), folder / "verdicts.parquet")
    return folder / "verdicts.parquet", folder / "gold.parquet"


def measured(what: str, rows: int, *arguments: object) -> dict[str, Any]:
    """Run one command in a separate process."""
    line = [sys.executable, "-c", CHILD, *map(str, arguments), "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what}: exit {done.returncode}: {done.stderr}")
    peak, seconds, cpu = map(float, done.stderr.splitlines()[-1].split())
    measures = {"seconds": seconds, "cpu_seconds": cpu, "peak_gib": peak}
    return {"what": what, "rows": rows, **measures}


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=5_000_000)
    options.add_argument("--bootstraps", type=int, default=200)
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.pairs, chosen.bootstraps = 4000, 20
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as name:
        folder = Path(name)
        seed = min(SEED_PAIRS, chosen.pairs // 4)
        run = small_run(folder, seed)
        calibrator = folder / "c.json"
        measured("fit", seed, "calibrate", "fit", run.root, "--out", calibrator, "--agreement", 0.5)
        inflate(run, chosen.pairs // seed)
        rows = chosen.pairs // seed * seed
        handoff.compact(RunSnapshot.take(run.root))
        table, gold = table_of(run, folder)
        times = ("--bootstraps", chosen.bootstraps)
        by = ("--by", "subset")
        lines = [
            measured("calibrate apply RUN", rows, "calibrate", "apply", run.root, calibrator),
            measured("evaluate RUN, raw and calibrated", rows, "evaluate", run.root, *times),
            measured("evaluate RUN --by subset", rows, "evaluate", run.root, *times, *by),
            measured("calibrate apply --from TABLE", rows, "calibrate", "apply", "--from", table,
                     calibrator, "--force", "--out", folder / "out.parquet"),
            measured("evaluate TABLE --gold FILE", rows, "evaluate", table, "--gold", gold, *times),
        ]  # fmt: skip
    report("calibration", lines, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
