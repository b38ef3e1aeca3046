"""Is a changed bit of a run directory ever taken for a result?

A small run is scored, calibrated and compacted. Then one bit at a time is changed: every bit of
the small files, and some by chance in the others. After each, all tables and `status` are read,
live and from the database, and compared with what they were. A flip is `found` (an integrity
error, or a line that `status` reports as damaged), `without effect`, or a violation. Now and then
`resume` has to mend what was found, or to refuse it.
"""

from __future__ import annotations

import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

import steelyard
from harness.common import parser, report
from steelyard.core.progress import Reporter
from steelyard.errors import EXIT_ROW_ERRORS, IntegrityFault, SteelyardError
from steelyard.evaluation.apply import apply_calibrator
from steelyard.evaluation.fit import FitOptions, fit_calibrator
from steelyard.evaluation.judged_pairs import Source
from steelyard.scoring.run import resume
from steelyard.scoring.status import run_status
from steelyard.store.calibration import save_calibrator
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts.database import open_sql

SMALL = (
    "run.json", "plan/plan.json", "journal.jsonl", "complete.json", "calibration.json",
    "sessions.jsonl", "telemetry.jsonl", "lock",
)  # fmt: skip
DATABASE = "verdicts.duckdb"
TABLES = ("verdicts", "answers", "reads", "rejects", "work", "run")
PAIRS = 60
MEND_EVERY = 500  # flips: how often `resume` is tried


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--flips", type=int, default=20_000, help="flips in the other files")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--stride", type=int, default=1, help="bits of small files: each n-th")
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.flips, chosen.stride = 60, 997
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as folder:
        run = make_run(Path(folder))
        rows, violations = flip_all(run, chosen.flips, chosen.stride, random.Random(chosen.seed))
    report("bitflips", rows, chosen)
    for violation in violations[:20]:
        print(violation)
    return 1 if violations else 0


def make_run(folder: Path) -> Path:
    """Score, calibrate and compact a small run with gold, metadata and rejects."""
    rows = range(PAIRS)
    columns = {
        "instruction": [None if i == 7 else f"question {i % 20}" for i in rows],
        "response_a": [f"first answer {i}" for i in rows],
        "response_b": [f"second answer {i * i}" for i in rows],
        "model_a": [f"m{i % 3}" for i in rows],
        "model_b": [f"m{(i + 1) % 3}" for i in rows],
        "gold": ["ABAAB"[i % 5] for i in rows],
        "tag": [f"tag {i % 4}" for i in rows],
    }
    pq.write_table(pa.table(columns), folder / "pairs.parquet")
    run = folder / "run"
    steelyard.score(folder / "pairs.parquet", run=run, judge="scripted", part_rows=30)
    fitted = fit_calibrator(Source(run), None, FitOptions(method="temperature"))
    save_calibrator(folder / "c.json", fitted.calibrator)
    apply_calibrator(Source(run), folder / "c.json", None, force=False)
    return run


def flip_all(
    run: Path, flips: int, stride: int, draw: random.Random
) -> tuple[list[dict[str, object]], list[str]]:
    """Flip bits one at a time; return a row for each kind of file, and the violations."""
    live = run.with_name("live")
    shutil.copytree(run, live)
    (live / DATABASE).unlink()
    expected = {place: results(place)[0] for place in (run, live)}
    numbers = verdicts(live)
    violations: list[str] = []
    kinds: dict[str, Counter[str]] = {}
    for number, (name, bit) in enumerate(schedule(live, run, flips, stride, draw)):
        count = kinds.setdefault(re.sub(r"\d{2,}", "*", name), Counter())
        places = [run] if name == DATABASE else [run, live] if name in SMALL else [live]
        outcomes = set()
        for place in places:
            with flipped(place / name, bit):
                outcomes.add(outcome(place, expected[place]))
                if number % MEND_EVERY == 0 and place == live:
                    violations += mend(live, numbers, f"{name}, bit {bit}")
        count["flips"] += 1
        worst = max(outcomes, key=("without effect", "found", "violation").index)
        count[worst] += 1
        if worst == "violation":
            violations.append(f"violation: {name}, bit {bit}")
    names = ("flips", "found", "without effect", "violation")
    rows = [
        {"file": kind, **{name: count[name] for name in names}} for kind, count in kinds.items()
    ]
    return rows, violations


def schedule(
    live: Path, run: Path, flips: int, stride: int, draw: random.Random
) -> Iterator[tuple[str, int]]:
    """Yield file and bit of every flip."""
    for name in SMALL:
        for bit in range(0, 8 * (live / name).stat().st_size, stride):
            yield name, bit
    others = [
        str(path.relative_to(live)) for path in live.rglob("*.parquet") if path.stat().st_size
    ]
    sizes = [(live / name).stat().st_size for name in others]
    half = flips // 2
    for name in draw.choices(others, sizes, k=half):
        yield name, draw.randrange(8 * (live / name).stat().st_size)
    size = (run / DATABASE).stat().st_size
    for _ in range(flips - half):
        yield DATABASE, draw.randrange(8 * size)


class flipped:  # noqa: N801 - used as a context manager only
    """Change one bit of a file, and change it back."""

    def __init__(self, path: Path, bit: int) -> None:
        self._path, self._bit = path, bit

    def __enter__(self) -> None:
        self._flip()

    def __exit__(self, *_: object) -> None:
        if self._path.exists():
            self._flip()

    def _flip(self) -> None:
        byte, bit = divmod(self._bit, 8)
        with self._path.open("r+b") as file:
            file.seek(byte)
            (value,) = file.read(1)
            file.seek(byte)
            file.write(bytes([value ^ 1 << bit]))


def outcome(run: Path, expected: str) -> str:
    """Say what a changed bit did."""
    try:
        digest, damaged = results(run)
    except IntegrityFault:
        return "found"
    except Exception:
        return "violation"
    if damaged:
        return "found"
    return "without effect" if digest == expected else "violation"


def results(run: Path) -> tuple[str, bool]:
    """Hash all tables and the status; say whether the status reports damage."""
    snapshot = RunSnapshot.take(run)
    digest = xxhash.xxh3_128()
    with open_sql(snapshot) as connection:
        for name in TABLES:
            digest.update(repr(connection.execute(f"FROM {name} ORDER BY ALL").fetchall()).encode())
    status = run_status(run)
    damaged = bool(status.pop("damage")) or status.pop("damaged_samples") > 0
    status.pop("bytes")
    digest.update(repr({**status, "run": ""}).encode())
    return digest.hexdigest(), damaged


def mend(live: Path, numbers: str, what: str) -> list[str]:
    """Let `resume` mend a copy, or refuse it; return what is neither."""
    copy = live.with_name("copy")
    shutil.copytree(live, copy)
    try:
        code = resume(copy, Reporter(quiet=True))
        if code != EXIT_ROW_ERRORS or verdicts(copy) != numbers:
            return [f"violation: {what}: resume ended with {code} and other verdicts"]
    except IntegrityFault:
        pass
    except SteelyardError as error:
        return [f"violation: {what}: resume ended with {error}"]
    finally:
        shutil.rmtree(copy)
    return []


def verdicts(run: Path) -> str:
    """Hash the verdicts without the times of reading, which differ where a part is read again."""
    table = steelyard.open_run(run).sql("SELECT * EXCLUDE (read_at) FROM verdicts ORDER BY ALL")
    return xxhash.xxh3_128_hexdigest(repr(table.to_pylist()).encode())


if __name__ == "__main__":
    sys.exit(main())
