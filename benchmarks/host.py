"""What the machine does without a model: planning, preparing prompts, and writing reads.

Planning reads, validates, hashes and deduplicates rows and writes the plan; each line is a child
process, so memory is that of planning. Rows come from all pairs of eight responses to an
instruction ("tournament") or all have different responses ("distinct"), in instruction order or
shuffled.
Preparing loads a bucket of a shuffled tournament, tokenises its texts with the embedded judge's
tokenizer, orders its prompts and simulates the cache. Writing takes reads as a judge hands them
over, 500 at a time, and commits parts of 20,000.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from harness.common import parser, report
from harness.generated import make_shards

CHILD = """
import json, sys, tempfile, time
from pathlib import Path
from steelyard.plan.spec import KeySpec
from steelyard.scoring.planner import write_plan
from steelyard.protocols.axes import PromptAxes
from steelyard.core.config import RunConfig
from steelyard.input import open_shards
from steelyard.store.rundir import RunDir
shards, config = open_shards([sys.argv[1]]), RunConfig()
shown = {"conversation", "first", "instruction", "reference", "second", "system"}
key_spec = KeySpec(PromptAxes(), ((bytes(16),),), (), frozenset(shown))
with tempfile.TemporaryDirectory(dir=sys.argv[2]) as folder:
    run = RunDir(Path(folder))
    run.create()
    began, used = time.perf_counter(), time.process_time()
    plan = write_plan(
        run, shards, config, key_spec, lambda accepted, refused: None
    )
    seconds, used = time.perf_counter() - began, time.process_time() - used
    size = sum(path.stat().st_size for path in run.plan.iterdir())
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(json.dumps({
    "texts": "in shards" if plan.in_shards else "copied", "buckets": sum(map(bool, plan.unique)),
    "unique": plan.prompts, "text": plan.text_bytes, "seconds": seconds, "cpu": used,
    "disk": size, "peak": peak / 2**20,
}))
"""
PREPARE = """
import json, sys, tempfile, time
from contextlib import ExitStack, closing
from pathlib import Path
from steelyard.core.config import RunConfig
from steelyard.scoring.feed import feed
from steelyard.plan.spec import KeySpec
from steelyard.prompts.judging import resolve_spec
from steelyard.prompts.prepared import open_judges
from steelyard.scoring.planner import write_plan
from steelyard.store.run_input import open_input, row_limits
from steelyard.store.rundir import RunDir
from steelyard.scoring.tally import BlockOracle, Tally
from steelyard.scoring.shard_texts import open_texts
from steelyard.core.work import CacheShape
config = RunConfig(inputs=(sys.argv[1],), judge=(sys.argv[3],))
spec, examples = resolve_spec(config)
shards, stack = open_input(config, spec), ExitStack()
(prepared,) = stack.enter_context(open_judges(config, spec, examples))
key_spec, maker = KeySpec.of(spec, [prepared.forms]), prepared.maker()
oracle, tally = BlockOracle(CacheShape(True, 16, 4096, 16384, 1024, 8192)), Tally()
times = []
with tempfile.TemporaryDirectory(dir=sys.argv[2]) as folder:
    run = RunDir(Path(folder))
    run.create()
    plan = write_plan(
        run, shards, config, key_spec, lambda accepted, refused: None
    )
    with closing(open_texts(run, plan, shards, key_spec, row_limits(config))) as texts:
        buckets = feed(texts, plan, maker, lambda bucket: set())
        while True:
            began, used = time.perf_counter(), time.process_time()
            bucket = next(buckets, None)
            if bucket is None:
                break
            computed = oracle.computed(bucket.rows, bucket.fitting)
            tally.open(bucket, computed)
            took = time.perf_counter() - began, time.process_time() - used
            times.append((len(bucket.unique.starts) - 1, *took))
times = times[1:-1] or times  # the first compiles or loads kernels, the last is cut short
pairs, seconds, cpu = map(sum, zip(*times))
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(json.dumps({
    "pairs": pairs, "seconds": seconds, "cpu": cpu, "peak": peak / 2**20, "buckets": len(times),
    "tokenizer": maker.encoder.engine,
}))
"""
SCORE = """
import gc, json, sys, time
import steelyard
spent, since = 0.0, 0.0
def watch(phase, info):
    global spent, since
    now = time.perf_counter()
    if phase == "start":
        since = now
    else:
        spent += now - since
gc.callbacks.append(watch)
began = time.perf_counter()
steelyard.score(sys.argv[1], run=sys.argv[2], judge="scripted")
print(json.dumps({"seconds": time.perf_counter() - began, "garbage": spent}))
"""
READS = 500


def plan(rows: int, size: int, kind: str, order: str, repeats: int) -> dict[str, Any]:
    """Plan the same shards several times; return the median."""
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as folder:
        shards = Path(folder) / "in"
        make_shards(shards, rows, size, distinct=kind == "distinct", shuffled=order == "shuffled")
        command = [sys.executable, "-c", CHILD, str(shards), folder]
        found = [
            json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            for _ in range(repeats)
        ]
    if any(one["unique"] != 2 * rows for one in found):
        raise SystemExit("host: the plan lost or invented prompts")
    seconds = median(one["seconds"] for one in found)
    return {
        "what": f"plan, {kind}, {order}",
        "rows": rows,
        "bytes_a_row": round(found[0]["text"] / rows),
        "a_second": round(rows / seconds),
        "mb_a_second": found[0]["text"] / 1e6 / seconds,
        "a_cpu_second": round(rows / median(one["cpu"] for one in found)),
        "texts": found[0]["texts"],
        "buckets": found[0]["buckets"],
        "disk_bytes_a_row": found[0]["disk"] / rows,
        "peak_gib": max(one["peak"] for one in found),
    }


def prepare(rows: int, judge: str, repeats: int) -> dict[str, Any]:
    """Load buckets, tokenise, order, ask the oracle, open the tally; return the median."""
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as folder:
        shards = Path(folder) / "in"
        make_shards(shards, rows, 2600, distinct=False, shuffled=True)
        command = [sys.executable, "-c", PREPARE, str(shards), folder, judge]
        done = [subprocess.run(command, check=True, capture_output=True) for _ in range(repeats)]
        found = [json.loads(one.stdout) for one in done]
    return {
        "what": f"prepare buckets, {found[0]['tokenizer']}",
        "rows": found[0]["pairs"],
        "bytes_a_row": 2600,
        "a_second": round(median(one["pairs"] / one["seconds"] for one in found)),
        "a_cpu_second": round(median(one["pairs"] / one["cpu"] for one in found)),
        "buckets": found[0]["buckets"],
        "peak_gib": max(one["peak"] for one in found),
    }


def score(rows: int, repeats: int) -> dict[str, Any]:
    """Run with the scripted judge, and time the garbage collector; return the median."""
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as folder:
        shards = Path(folder) / "in"
        make_shards(shards, rows, 400, distinct=False, shuffled=True)
        found = []
        for turn in range(repeats):
            command = [sys.executable, "-c", SCORE, str(shards), f"{folder}/run-{turn}"]
            done = subprocess.run(command, check=True, capture_output=True)
            found.append(json.loads(done.stdout))
    return {
        "what": "score, scripted judge",
        "rows": rows,
        "a_second": round(median(rows / one["seconds"] for one in found)),
        "garbage_share": median(one["garbage"] / one["seconds"] for one in found),
    }


def read_batches(count: int) -> Iterator[Any]:
    from steelyard.core.batches import ReadBatch

    draw = np.random.default_rng(0)
    for start in range(0, count, READS):
        size = min(READS, count - start)
        keys, logprobs = draw.bytes(16 * size), -draw.random((size, 2))
        yield ReadBatch(
            keys=[keys[at : at + 16] for at in range(0, 16 * size, 16)],
            buckets=np.full(size, start // 25_000, dtype=np.int32),
            status=["ok"] * size,
            label_logprobs=logprobs,
            label_mass=np.exp(logprobs).mean(axis=1),
            argmax_outside=np.zeros(size, dtype=np.bool_),
            truncated=np.zeros(size, dtype=np.bool_),
            prompt_tokens=draw.integers(300, 900, size).astype(np.int32),
            cached_tokens=draw.integers(0, 300, size).astype(np.int32),
            errors=[None] * size,
        )


def write_reads(count: int, repeats: int) -> dict[str, Any]:
    """Give reads to the part writer until all are committed; return the median."""
    from steelyard.core.work import BatchProgress
    from steelyard.store.reads import journal
    from steelyard.store.reads.parts import PartWriter
    from steelyard.store.rundir import READS_FOLDER, RunDir

    batches = list(read_batches(count))
    rates, cpu, disk = [], [], 0
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as folder:
            run = RunDir(Path(folder))
            run.create()
            journal.create(run)
            began, used = time.perf_counter(), time.process_time()
            writer = PartWriter(run, rows=20_000, seconds=60.0)
            for batch in batches:
                writer.add(batch, BatchProgress(len(batch) // 2, 0))
            writer.close()
            rates.append(count / (time.perf_counter() - began))
            cpu.append(count / (time.process_time() - used))
            if sum(part.rows for part in journal.read_journal(run.root)) != count:
                raise SystemExit("host: reads were lost")
            disk = run.files.size(READS_FOLDER)
    return {
        "what": "write reads",
        "rows": count,
        "a_second": round(median(rates)),
        "a_cpu_second": round(median(cpu)),
        "disk_bytes_a_row": disk / count,
    }


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=200_000, help="rows of 2.6 KB")
    options.add_argument(
        "--short-rows", type=int, default=10_000_000, help="rows of 250 bytes; 0: none"
    )
    options.add_argument("--judge", default="demo", help="judge with the tokenizer to use [demo]")
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    reads = 1_000_000
    if chosen.smoke:
        chosen.rows, chosen.short_rows, chosen.repeats, reads = 2000, 3000, 1, 5000
    lines = [
        plan(chosen.rows, 2600, kind, order, chosen.repeats)
        for kind in ("tournament", "distinct")
        for order in ("shuffled", "grouped")
    ]
    if chosen.short_rows:
        lines.append(plan(chosen.short_rows, 250, "tournament", "shuffled", 1))
    lines.append(prepare(chosen.rows, chosen.judge, chosen.repeats))
    lines.append(score(chosen.rows, chosen.repeats))
    lines.append(write_reads(reads, chosen.repeats))
    columns = {key: "" for line in lines for key in line}
    report("host", [columns | line for line in lines], chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
