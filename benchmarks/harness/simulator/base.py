"""The calls that a life makes when nothing fails: what schedules choose from."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.simulator.life import Run
from harness.simulator.model import Violation
from harness.simulator.schedule import Census, Life, Row, Session, merged

SEED = -1


def census(place: Path) -> dict[str, Census]:
    """Count the calls of `score` and of `resume`, over lives without faults."""
    counts: dict[str, list] = {"score": [], "resume": []}
    for grouped in (True, False):
        shutil.rmtree(place, ignore_errors=True)
        run = Run(_life(grouped=grouped), place)
        for session in run.life.sessions:
            run.session(session)
        if not run.complete:
            raise Violation("a life without faults does not end")
        counts["score"].append(run.censuses[0])
        counts["resume"] += run.censuses[1:]
    shutil.rmtree(place, ignore_errors=True)
    return {name: merged(censuses) for name, censuses in counts.items()}


def _life(*, grouped: bool) -> Life:
    rows = [
        Row((f"[Q{n // 4 if grouped else n % 6}] x", f"[R{2 * n}] x", f"[R{2 * n + 1}] x"))
        for n in range(24)
    ]
    rows[5] = Row(rows[5].texts, reject=True)
    return Life(
        seed=SEED,
        rows=rows,
        options={"part_rows": 8, "part_seconds": 3600.0, "bucket_bytes": 200},
        sessions=[Session(resume=False, stop_at=3), Session(resume=True), Session(resume=True)],
        poison=frozenset(),
        broken=frozenset(),
        shaky=frozenset(),
        compacts=True,
        reuses=False,
    )
