"""Lives of a run on a disk and with an engine that fail by a schedule, against a model.

    simulate.py --seeds 2000            what a seed does, and what it must come to
    simulate.py --seed 17               one of them, with its schedule and every call
    simulate.py --plant missing-fsync   a known bug is put back: which seed finds it?

Disk, clock and engine of `store` and of a session are injected. A seed expands to a table, options
and a few sessions (score, then resume) in which calls of the disk fail (EIO, ENOSPC, EMFILE, ...),
write short, or never return because the process is killed or the power is lost; engines die, hang,
do not load or answer NaN; readers and second writers come in between. After each session what is on
the disk is compared with a model that knows the table alone: nothing acknowledged is lost, no read
is doubled, altered or made twice, errors have their class, readers see a prefix, no thread is left.
At the end the run is complete and its books balance.

The exit status is 1 if anything is violated, or a planted bug is not found.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from itertools import count
from pathlib import Path

from harness.common import parser, report
from harness.simulator.base import census
from harness.simulator.life import Result, live
from harness.simulator.plants import PLANTS
from harness.simulator.schedule import Census, expand
from harness.simulator.workers import Workers, folder

SMOKE_PLANTS = ("missing-fsync", "missing-folder-fsync")
LIMIT, PLANT_LIMIT = 120.0, 15.0  # seconds that a life may take


def run_seeds(options, calls: dict[str, Census], place: Path) -> int:
    began, results = time.monotonic(), []
    seeds = iter(range(options.start, options.start + options.seeds))
    for result in Workers(options.workers, calls, limit=LIMIT, place=place).live(seeds):
        results.append(result)
        if result.violation:
            print(f"seed {result.seed}: {result.violation}\n{expand(result.seed, calls)}")
    seconds = time.monotonic() - began
    rows = table(results)
    report("simulate", rows, options)
    whole = rows[0]
    print(
        f"{len(results):,} seeds, {whole['steps']:,} steps, {whole['violations']} violations"
        f" in {seconds:.0f} s"
    )
    return 1 if whole["violations"] else 0


def table(results: list[Result]) -> list[dict[str, object]]:
    """Count by kind of fault, all of them first."""
    fired: Counter[str] = Counter()
    for result in results:
        fired.update(result.fired)
    return [
        _row("all", sum(fired.values()), results),
        *(
            _row(kind, number, [result for result in results if result.fired[kind]])
            for kind, number in sorted(fired.items())
        ),
        *(
            _row(f"ended: {end}", number, [result for result in results if result.ends[end]])
            for end, number in sorted(sum((result.ends for result in results), Counter()).items())
        ),
    ]


def _row(kind: str, number: int, results: list[Result]) -> dict[str, object]:
    return {
        "fault": kind,
        "times": number,
        "seeds": len(results),
        "steps": sum(result.steps + result.reads for result in results),
        "violations": sum(result.violation is not None for result in results),
    }


def find_plant(name: str, options, calls: dict[str, Census], place: Path) -> Result | None:
    """Return the first life that fails with a known bug put back."""
    seeds = iter(range(options.start, options.start + options.seeds))
    workers = Workers(options.workers, calls, limit=PLANT_LIMIT, place=place, plant=name)
    for result in workers.live(seeds):
        if result.violation:
            return result
    return None


def run_plants(options, calls: dict[str, Census], place: Path) -> int:
    rows = []
    for name in options.plant:
        result = find_plant(name, options, calls, place)
        rows.append(
            {
                "plant": name,
                "seed": "not found" if result is None else result.seed,
                "violation": "" if result is None else str(result.violation).split("\n")[0][:100],
            }
        )
    report("simulate-plants", rows, options)
    return 1 if any(row["seed"] == "not found" for row in rows) else 0


def run_one(seed: int, calls: dict[str, Census], place: Path) -> int:
    life = expand(seed, calls)
    print(life)
    result = live(life, place / "life", trace=True)
    for number, line in zip(count(1), result.log, strict=False):
        print(f"{number:6} {line}")
    print(f"seed {seed}: {result.violation or 'all is as it must be'}")
    return 1 if result.violation else 0


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=2000, help="how many lives")
    options.add_argument("--start", type=int, default=0, help="the first seed")
    options.add_argument("--seed", type=int, help="one life, with every call")
    options.add_argument("--workers", type=int, default=2, help="processes")
    options.add_argument(
        "--plant", choices=PLANTS, action="append", help="put a known bug back; repeatable"
    )
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="steelyard-simulate-", dir=folder()) as name:
        return simulate(chosen, Path(name))


def simulate(options, place: Path) -> int:
    calls = census(place / "census")
    if options.seed is not None:
        return run_one(options.seed, calls, place)
    if options.plant:
        return run_plants(options, calls, place)
    if options.smoke:
        options.seeds = min(options.seeds, 40)
        if any(find_plant(name, options, calls, place) is None for name in SMOKE_PLANTS):
            print("simulate: a known bug was put back and not found", file=sys.stderr)
            return 1
    return run_seeds(options, calls, place)


if __name__ == "__main__":
    sys.exit(main())
