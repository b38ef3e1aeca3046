"""`demo`: the demonstration pairs of the package, and the small judge installed with it."""

from __future__ import annotations

import threading
from importlib import resources
from pathlib import Path
from typing import Any

from steelyard.cli.scoring_text import format_status
from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.errors import EXIT_ROW_ERRORS
from steelyard.scoring.run import score
from steelyard.scoring.status import run_status
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import database

VERDICTS = """\
SELECT "row", metadata.source AS source, metadata.difficulty AS difficulty, model_a, model_b,
  round(preference_ab, 3) AS ab, round(preference_ba, 3) AS ba,
  round(raw_preference, 3) AS preference, consistent
FROM verdicts ORDER BY "row" """

REJECTS = 'SELECT "row", reason, detail FROM rejects ORDER BY "row"'

WIN_RATES = """\
SELECT model, count(*) AS pairs, round(avg(win), 3) AS win_rate
FROM (
  SELECT model_a AS model, raw_preference AS win FROM verdicts WHERE status = 'ok'
  UNION ALL
  SELECT model_b, 1 - raw_preference FROM verdicts WHERE status = 'ok'
)
GROUP BY model
ORDER BY win_rate DESC"""
SHOWN = 20  # rows of each table


def score_demo(run: Path, reporter: Reporter, stop: threading.Event) -> int:
    """Score the demonstration pairs; return 0 if only the two bad rows were refused.

    A second demo in the same run directory reuses the reads in it.
    """
    data = resources.files("steelyard.cli") / "data" / "demo.parquet"
    with resources.as_file(data) as shard:
        config = RunConfig(inputs=(str(shard),), judge=("demo",))
        code = score(config, run, reporter, stop)
    return 0 if code == EXIT_ROW_ERRORS else code


def format_demo(run: Path) -> str:
    """Return verdicts, rejects, work, and an SQL query with its result."""
    snapshot = RunSnapshot.take(run)
    verdicts, rejects, win_rates = (
        database.show(snapshot, sql, SHOWN) for sql in (VERDICTS, REJECTS, WIN_RATES)
    )
    return f"""
Verdicts (ab and ba: P(response_a is better), read in each order)
{verdicts}

Rejected rows, with the reason
{rejects}

What it took
{format_status(run_status(run))}

$ steelyard sql {run} "{WIN_RATES}"
{win_rates}

The demo judge has 135 million parameters: enough to show how Steelyard works, not to judge well.
To judge your own data:  steelyard score SHARDS... --run RUN --judge MODEL"""


def demo_content(run: Path) -> dict[str, Any]:
    """Return what the demo shows, as JSON values."""
    tables = {"verdicts": VERDICTS, "rejects": REJECTS}
    snapshot = RunSnapshot.take(run)
    rows = {name: list(database.rows(snapshot, sql)) for name, sql in tables.items()}
    return {"status": run_status(run), **rows}
