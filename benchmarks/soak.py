"""Kill a run at random moments, resume it each time, and audit what is left.

    soak.py                                              200 kills over 20,000 pairs, scripted judge
    soak.py --judge demo --input FILE --pairs 300 --kills 5     real text, real model

Meanwhile a second process queries the run in a loop. The result is one line of counts, and JSON;
the exit status is 1 if anything was lost, doubled or altered, or a query failed.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import steelyard
from harness.common import parser, report
from steelyard.store.reads.journal import read_journal

QUERIES = """
import json, sys, time
from pathlib import Path
import steelyard
run, stop = Path(sys.argv[1]), Path(sys.argv[2])
done = errors = 0
last, words = -1, ""
while not stop.exists():
    if not (run / "run.json").exists():
        time.sleep(0.01)
        continue
    try:
        row = steelyard.open_run(run).sql(
            "SELECT count(*) AS n, count(DISTINCT (shard, row)) AS pairs FROM verdicts"
        ).to_pylist()[0]
        if row["n"] != row["pairs"] or row["n"] < last:
            raise ValueError(f"{row} after {last}")
        last, done = row["n"], done + 1
    except Exception as error:
        errors, words = errors + 1, f"{type(error).__name__}: {error}"
    time.sleep(0.5)
print(json.dumps({"queries": done, "errors": errors, "last_error": words}))
"""


def make_input(path: Path, pairs: int, seed: int) -> None:
    """Write pairs; about one in ten is an exact duplicate and one in ten a swapped one."""
    draw = random.Random(seed)
    rows: list[tuple[str, str, str]] = []
    for index in range(pairs):
        kind = draw.random()
        if rows and kind < 0.2:
            instruction, a, b = draw.choice(rows)
            rows.append((instruction, b, a) if kind < 0.1 else (instruction, a, b))
        else:
            rows.append((f"question {index % 997}", f"one {index}", f"two {draw.random()}"))
    names = ("instruction", "response_a", "response_b")
    columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    pq.write_table(pa.table(columns), path)


def command(*arguments: str) -> list[str]:
    """Return the command of the program on this run."""
    return [sys.executable, "-m", "steelyard", *arguments, "--quiet", "--json"]


def score_command(place: Path, run: Path, judge: str, part_rows: int) -> list[str]:
    config = place / "soak.toml"
    config.write_text(f"part_rows = {part_rows}\npart_seconds = 0.2\nbucket_bytes = 50000\n")
    shard = str(place / "input.parquet")
    return command("score", shard, "--run", str(run), "--judge", judge, "--config", str(config))


def kill_and_resume(
    begin: list[str], run: Path, kills: int, draw: random.Random, *, starting: float, reading: float
) -> int:
    """Begin or resume the run `kills` times, each ended by SIGKILL; return the kills that hit.

    In turn they hit a process that starts and, however busy the machine is, one that reads: after
    its first part is committed. `starting` and `reading` are seconds from which moments are drawn.
    """
    hit = 0
    for turn in range(kills):
        parts = len(read_journal(run))
        resume = [sys.executable, "-m", "steelyard", "resume", str(run), "--quiet"]
        process = subprocess.Popen(
            resume if (run / "run.json").exists() else begin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if turn % 2:
            while process.poll() is None and len(read_journal(run)) == parts:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, reading))
        else:
            time.sleep(draw.uniform(0.3 * starting, 1.2 * starting))
        process.kill()
        hit += process.wait() == -9
    return hit


def contents(run: Path, table: str, order: str) -> pa.Table:
    """Return a table without the time of reading, which may differ."""
    return steelyard.open_run(run).sql(f"SELECT * EXCLUDE read_at FROM {table} ORDER BY {order}")


def compare(run: Path, reference: Path, tolerance: float) -> dict[str, object]:
    """Count reads and verdicts lost, doubled and altered against an uninterrupted run."""
    found, expected = (contents(place, "reads", "prompt_key") for place in (run, reference))
    keys, wanted = (table["prompt_key"].to_pylist() for table in (found, expected))
    rows, wanted_rows = (
        {row["prompt_key"]: row for row in table.to_pylist()} for table in (found, expected)
    )
    common = set(keys) & set(wanted)
    verdicts, wanted_verdicts = (
        contents(place, "verdicts", 'shard, "row"').to_pylist() for place in (run, reference)
    )
    pairs = list(zip(verdicts, wanted_verdicts, strict=False))
    return {
        "lost": len(set(wanted) - set(keys)) + max(0, len(wanted_verdicts) - len(verdicts)),
        "duplicated": len(keys) - len(set(keys)) + max(0, len(verdicts) - len(wanted_verdicts)),
        "altered": sum(differs(rows[key], wanted_rows[key], tolerance) for key in common)
        + sum(differs(one, other, tolerance) for one, other in pairs)
        + len(set(keys) - set(wanted)),
        "largest_difference": max((gap(one, other) for one, other in pairs), default=0.0),
        "reads": len(keys),
        "verdicts": len(verdicts),
    }


# What an engine's batches may change: how much came from its cache, and the last digits.
LOOSE = {"cached_tokens"}
NUMBERS = ("preference_ab", "preference_ba", "raw_preference")


def gap(one: dict[str, object], other: dict[str, object]) -> float:
    """Return the largest difference of probabilities; infinite if only one verdict has them."""
    values = [
        (one[name], other[name]) for name in NUMBERS if (one[name], other[name]) != (None, None)
    ]
    return max(
        (math.inf if None in both else abs(both[0] - both[1]) for both in values), default=0.0
    )


def differs(one: dict[str, object], other: dict[str, object], tolerance: float) -> bool:
    """Compare two rows, exactly or with a tolerance for probabilities."""
    if not tolerance:
        return one != other
    if "preference_ab" in one:
        same = ("pair_id", "shard", "row", "status", "keys", "metadata")
        return gap(one, other) > tolerance or any(one[name] != other[name] for name in same)
    both = zip(one["label_logprobs"] or [], other["label_logprobs"] or [], strict=True)
    return one["status"] != other["status"] or any(
        abs(math.exp(left) - math.exp(right)) > tolerance for left, right in both
    )


def prepare(place: Path, options: argparse.Namespace) -> None:
    target = place / "input.parquet"
    if options.input:
        pq.write_table(pq.read_table(options.input).slice(0, options.pairs), target)
    else:
        make_input(target, options.pairs, options.seed)


def soak(place: Path, options: argparse.Namespace) -> dict[str, object]:
    """Run the whole trial."""
    draw = random.Random(options.seed)
    prepare(place, options)
    reference, run, stop = place / "reference", place / "run", place / "stop"
    scripted = options.judge == "scripted"
    kills, pairs = options.kills, options.pairs
    part_rows = max(50, pairs // kills) if scripted else 16
    quick = "scripted:seed=3" if scripted else options.judge
    slow = f"{quick},rate={max(100, 2 * pairs // kills)}" if scripted else quick
    began = time.monotonic()
    call(score_command(place, reference, quick, 20_000))
    whole = time.monotonic() - began
    began = time.monotonic()
    call(command("resume", str(reference)))
    load = time.monotonic() - began if scripted else options.load_seconds
    reading = 0.6 if scripted else whole / kills
    watcher = subprocess.Popen(
        [sys.executable, "-c", QUERIES, str(run), str(stop)],
        stdout=subprocess.PIPE,
        text=True,
    )
    begin = score_command(place, run, slow, part_rows)
    hit = kill_and_resume(begin, run, kills, draw, starting=load, reading=reading)
    before = steelyard.open_run(run).status()
    call(score_command(place, run, quick, part_rows))
    time.sleep(0.2)
    stop.touch()
    queries = json.loads(watcher.communicate(timeout=60)[0])
    if queries["errors"]:
        print(f"soak: a query failed: {queries['last_error']}", file=sys.stderr)
    status = steelyard.open_run(run).status()
    return {
        "judge": options.judge,
        "pairs": status["pairs"]["planned"],
        "kills": hit,
        "reads_at_last_kill": before["prompts"]["read"],
        **compare(run, reference, 0.0 if scripted else TOLERANCE),
        "queries": queries["queries"],
        "errors": queries["errors"],
        "pairs_counted": status["pairs"]["done"],
        "parts": status["parts"],
        "seed": options.seed,
    }


TOLERANCE = 1e-3  # of a probability, for engines whose last digits depend on the batch


def call(command: list[str]) -> None:
    """Run to the end; row errors are an end, too."""
    code = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
    if code not in (0, 4):
        raise SystemExit(f"soak: {' '.join(command)} ended with {code}")


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=20_000)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--judge", default="scripted", help="scripted, or a real judge")
    options.add_argument("--input", type=Path, help="Parquet file; its first pairs are scored")
    options.add_argument(
        "--load-seconds", type=float, default=10.0, help="settings of a real engine"
    )
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.pairs, chosen.kills = 2500, 25
    with tempfile.TemporaryDirectory(prefix="steelyard-soak-") as folder:
        result = soak(Path(folder), chosen)
    report("soak" if chosen.judge == "scripted" else "soak-real", [result], chosen)
    bad = ("lost", "duplicated", "altered", "errors")
    whole = result["verdicts"] == result["pairs"] == result["pairs_counted"]
    if not result["reads_at_last_kill"]:
        print("soak: no kill hit a run that had read something", file=sys.stderr)
        return 1
    return 0 if whole and not any(result[name] for name in bad) else 1


if __name__ == "__main__":
    sys.exit(main())
