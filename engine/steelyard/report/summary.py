"""The answer of a run in a few lines: winners, what the order does, a leaderboard, what is next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steelyard.comparisons.from_scores import comparisons_sql
from steelyard.report import aggregates
from steelyard.scoring.status import run_status
from steelyard.store.run_record import ScoredRecord
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import Connection
from steelyard.store.verdicts.database import open_sql
from steelyard.store.verdicts.statistics_views import statistics_sql

BEST = 10  # competitors that are shown
_LEADERS = f"""
SELECT rank, competitor, average_win_rate, comparisons, count(*) OVER () AS competitors
FROM leaderboard ORDER BY rank, competitor LIMIT {BEST}"""  # noqa: S608 - a constant
_FIRST = """
SELECT sum(pairs * first_rate) / sum(pairs) AS first FROM position_bias"""


def summarise_run(root: Path) -> dict[str, Any]:
    """Return the status of a run, and its results if it is complete.

    Returns:
        JSON: what `run_status` returns, and `results`: pairs, winners, `consistency` (share of
        pairs with the same winner in both orders), `first_position` (share of decisions for the
        response shown first), `leaderboard`, `toy` (whether the judge is `demo`) and `next`,
        commands to go on with; None for a run that is not complete.
    """
    status = run_status(root)
    return {**status, "results": _results(root) if status["state"] == "complete" else None}


def _results(root: Path) -> dict[str, Any]:
    snapshot = RunSnapshot.take(root)
    with open_sql(snapshot) as connection:
        counts = aggregates.count_winners(connection, snapshot)
        leaders = aggregates.rows(connection, _leaders_sql(connection, snapshot))
        first = aggregates.rows(connection, _FIRST)[0]["first"]
    results = {
        **counts,
        "first_position": first,
        "competitors": leaders[0]["competitors"] if leaders else 0,
        "leaderboard": [
            {key: row[key] for key in ("rank", "competitor", "average_win_rate", "comparisons")}
            for row in leaders
        ],
    }
    return {
        **results,
        "toy": isinstance(snapshot.record, ScoredRecord) and "demo" in snapshot.record.config.judge,
        "next": _next(root, results, scored=isinstance(snapshot.record, ScoredRecord)),
    }


def _leaders_sql(connection: Connection, snapshot: RunSnapshot) -> str:
    """Return the query for the best competitors; scores of single responses are compared first."""
    query, from_scores = comparisons_sql(connection, snapshot)
    if not from_scores:
        return _LEADERS
    connection.execute(f"CREATE OR REPLACE TEMP VIEW compared AS {query}")
    board = statistics_sql(snapshot.preference)["leaderboard"]
    board = board.replace("FROM verdicts", "FROM compared")
    return _LEADERS.replace("FROM leaderboard", f"FROM ({board})")


def _next(root: Path, results: dict[str, Any], *, scored: bool) -> list[list[str]]:
    """Return three commands, as their arguments, that suit what the run holds."""
    run = str(root)
    commands = [["report", run, "--open"]]
    if results["gold"] and not results["calibrated"]:
        commands.append(["evaluate", run])
    if results["competitors"] > 1:
        commands.append(["rank", run])
    if scored and results["consistency"] is not None:
        commands.append(["show", run, "--flipped", "5"])
    commands.append(["show", run, "--least-certain" if results["graded"] else "--any", "5"])
    return commands[:3]
