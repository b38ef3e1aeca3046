"""`demo`: the demonstration pairs of the package, and the small judge installed with it."""

from __future__ import annotations

import shlex
import threading
from importlib import resources
from pathlib import Path
from typing import Any

from steelyard.cli.scoring_text import format_results
from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.errors import EXIT_ROW_ERRORS
from steelyard.report.content import ReportOptions, gather
from steelyard.report.page import render, require_drawing
from steelyard.report.summary import summarise_run
from steelyard.scoring.run import score
from steelyard.store.durable import write_text
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import user_queries

REPORT = "report.html"  # in the run directory
VERDICTS = """\
SELECT "row", metadata.source AS source, model_a, model_b, round(preference_ab, 2) AS ab,
  round(preference_ba, 2) AS ba, round(raw_preference, 2) AS preference, winner,
  CASE WHEN gold.a > gold.b THEN 'a' WHEN gold.b > gold.a THEN 'b' ELSE 'tie' END AS people
FROM verdicts ORDER BY "row" """

REJECTS = 'SELECT "row", reason, detail FROM rejects ORDER BY "row"'

BY_SOURCE = """\
SELECT metadata.source AS source, count(*) AS pairs, avg(consistent::INT) AS consistent
FROM verdicts GROUP BY source ORDER BY pairs DESC, source LIMIT 5"""
SHOWN = 12  # rows of each table


def score_demo(run: Path, judge: str, reporter: Reporter, stop: threading.Event) -> int:
    """Score the demonstration pairs; return 0 if only the two bad rows were refused.

    A second demo in the same run directory reuses the reads in it.
    """
    require_drawing()
    data = resources.files("steelyard.cli") / "data" / "demo.parquet"
    with resources.as_file(data) as shard:
        config = RunConfig(inputs=(str(shard),), judge=(judge,))
        code = score(config, run, reporter, stop)
    return 0 if code == EXIT_ROW_ERRORS else code


def write_report(run: Path, reporter: Reporter) -> dict[str, Any]:
    """Write the report on the demonstration run, and return its content."""
    with reporter.waiting("writing the report"):
        content = gather(run, ReportOptions())
        write_text(run / REPORT, render(content))
    return content


def format_demo(run: Path, report: dict[str, Any]) -> str:
    """Return verdicts, rejects, results, how far people agree, and an SQL query with its result."""
    snapshot = RunSnapshot.take(run)
    verdicts, rejects, by_source = (
        user_queries.show(snapshot, sql, SHOWN) for sql in (VERDICTS, REJECTS, BY_SOURCE)
    )
    results = format_results(
        summarise_run(run),
        ("people", _format_agreement(report)),
        ("report", f"{run / REPORT} (open it in a browser)"),
    )
    return f"""
Verdicts (ab and ba: P(response_a is better), read in each order; people: who is better to them)
{verdicts}

Rejected rows, with the reason
{rejects}

$ steelyard sql {shlex.quote(str(run))} "{BY_SOURCE}"
{by_source}

{results}

To judge your own data:  steelyard score SHARDS... --run RUN --judge MODEL"""


def _format_agreement(report: dict[str, Any]) -> str:
    metrics = {metric["metric"]: metric for metric in report["evaluation"]["raw"]["metrics"]}
    agreement = metrics["decided_agreement"]
    return (
        f"the judge agrees with people in {agreement['value']:.0%} of the pairs that both decide"
        f" (95% interval {agreement['low']:.0%} to {agreement['high']:.0%})"
    )


def demo_content(run: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Return what the demo shows, as JSON values."""
    tables = {"verdicts": VERDICTS, "rejects": REJECTS}
    snapshot = RunSnapshot.take(run)
    rows = {name: list(user_queries.rows(snapshot, sql)) for name, sql in tables.items()}
    return {
        "status": report["status"], **rows, "evaluation": report["evaluation"],
        "results": summarise_run(run)["results"], "report": str(run / REPORT),
    }  # fmt: skip
