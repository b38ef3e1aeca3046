"""`demo`: the pairs that come with the program, the small judge that installs with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.errors import EXIT_INTERRUPTED, EXIT_ROW_ERRORS
from steelyard.scoring.run import score
from steelyard.scoring.status import format_status, run_status
from steelyard.store.rundir import RunDir
from steelyard.store.verdicts import database

VERDICTS = """\
SELECT "row", metadata.source AS source, metadata.difficulty AS difficulty, model_a, model_b,
  round(preference_ab, 3) AS ab, round(preference_ba, 3) AS ba,
  round(raw_preference, 3) AS preference, consistent
FROM verdicts ORDER BY "row" """
SHOWN = 20

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


def run_demo(
    run: Path, reporter: Reporter, stop: threading.Event, show: Callable[[str], None]
) -> int:
    """Score the demonstration pairs and show verdicts, savings, rejects and one SQL query.

    Args:
        run: the run directory; a second demo finds its reads there.
        reporter: where progress goes.
        stop: set to end early.
        show: takes each piece of the output.

    Returns:
        0 when done (the two bad rows belong to the show), or `score`'s exit code.
    """
    data = resources.files("steelyard") / "data" / "demo.parquet"
    with resources.as_file(data) as shard:
        config = RunConfig(inputs=(str(shard),), judge=("demo",))
        code = score(config, run, reporter, stop)
    if code == EXIT_INTERRUPTED:
        return code
    place = RunDir(run)
    show("\nVerdicts (ab, ba: P(response_a is better) as read in each order)")
    show(database.show(place, VERDICTS, SHOWN))
    show("\nRejected rows, with the reason")
    show(database.show(place, REJECTS, 20))
    show("\nWhat it took")
    show(format_status(run_status(run)))
    show(f'\n$ steelyard sql {run} "{WIN_RATES}"')
    show(database.show(place, WIN_RATES, 20))
    show(
        "\nThe demonstration judge has 135 million parameters: enough to show the way of a row,"
        " too small to judge well.\nYour own data:  steelyard score SHARDS... --run RUN"
        " --judge MODEL"
    )
    return 0 if code == EXIT_ROW_ERRORS else code
