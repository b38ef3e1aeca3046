"""Kills a run at random moments, resumes it each time, and audits what is left.

A second process queries the run in a loop meanwhile. Prints one line of counts and writes JSON;
exit status 1 when anything was lost, doubled or altered, or a query failed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import steelyard

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
    time.sleep(0.02)
print(json.dumps({"queries": done, "errors": errors, "last_error": words}))
"""


def make_input(path: Path, pairs: int, seed: int) -> None:
    """Pairs of which about one in ten is an exact duplicate and one in ten a swapped one."""
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


def command(place: Path, *arguments: str) -> list[str]:
    """The program on this run."""
    return [sys.executable, "-m", "steelyard", *arguments, "--quiet", "--json"]


def score_command(place: Path, run: Path, judge: str, part_rows: int) -> list[str]:
    config = place / "soak.toml"
    config.write_text(f"part_rows = {part_rows}\npart_seconds = 0.2\nbucket_bytes = 50000\n")
    shard = str(place / "input.parquet")
    return command(
        place, "score", shard, "--run", str(run), "--judge", judge, "--config", str(config)
    )


def kill_and_resume(
    place: Path, run: Path, kills: int, rate: int, draw: random.Random, part_rows: int
) -> int:
    """Begin or resume the run `kills` times, each ended by SIGKILL; returns the kills that hit."""
    hit = 0
    judge = f"scripted:seed=3,rate={rate}"
    for _ in range(kills):
        begin = score_command(place, run, judge, part_rows)
        resume = command(place, "resume", str(run))
        process = subprocess.Popen(
            resume if (run / "run.json").exists() else begin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(draw.uniform(0.3, 1.6))
        process.kill()
        hit += process.wait() == -9
    return hit


def contents(run: Path, table: str, order: str) -> pa.Table:
    """A table without the time of reading, which may differ."""
    return steelyard.open_run(run).sql(f"SELECT * EXCLUDE read_at FROM {table} ORDER BY {order}")


def compare(run: Path, reference: Path) -> dict[str, int]:
    """Reads and verdicts lost, doubled and altered against an uninterrupted run."""
    found, expected = (contents(place, "reads", "prompt_key") for place in (run, reference))
    keys, wanted = (table["prompt_key"].to_pylist() for table in (found, expected))
    verdicts, wanted_verdicts = (
        contents(place, "verdicts", 'shard, "row"') for place in (run, reference)
    )
    common = set(keys) & set(wanted)
    rows, wanted_rows = (
        {row["prompt_key"]: row for row in table.to_pylist()} for table in (found, expected)
    )
    return {
        "lost": len(set(wanted) - set(keys)),
        "duplicated": len(keys) - len(set(keys)),
        "altered": sum(rows[key] != wanted_rows[key] for key in common)
        + (verdicts != wanted_verdicts)
        + len(set(keys) - set(wanted)),
        "reads": len(keys),
        "verdicts": len(verdicts),
    }


def soak(place: Path, pairs: int, kills: int, seed: int) -> dict[str, object]:
    """The whole trial; see the module's text."""
    draw = random.Random(seed)
    make_input(place / "input.parquet", pairs, seed)
    reference, run, stop = place / "reference", place / "run", place / "stop"
    part_rows = max(50, pairs // kills)
    subprocess.run(
        score_command(place, reference, "scripted:seed=3", 20_000),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    watcher = subprocess.Popen(
        [sys.executable, "-c", QUERIES, str(run), str(stop)], stdout=subprocess.PIPE, text=True
    )
    rate = max(100, int(2 * pairs / (kills * 0.6)))
    hit = kill_and_resume(place, run, kills, rate, draw, part_rows)
    before = steelyard.open_run(run).status()
    subprocess.run(
        score_command(place, run, "scripted:seed=3", part_rows),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    time.sleep(0.2)
    stop.touch()
    queries = json.loads(watcher.communicate(timeout=60)[0])
    status = steelyard.open_run(run).status()
    return {
        "pairs": pairs,
        "kills": hit,
        "reads_at_last_kill": before["prompts"]["read"],
        **compare(run, reference),
        **queries,
        "pairs_counted": status["pairs"]["done"],
        "parts": status["parts"],
        "seed": seed,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the result here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="steelyard-soak-") as folder:
        result = soak(Path(folder), options.pairs, options.kills, options.seed)
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    bad = ("lost", "duplicated", "altered", "errors")
    whole = result["verdicts"] == result["pairs"] == result["pairs_counted"]
    return 0 if whole and not any(result[name] for name in bad) else 1


if __name__ == "__main__":
    sys.exit(main())
