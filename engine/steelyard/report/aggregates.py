"""Numbers about all verdicts of a run, by SQL: ten million take some seconds."""

from __future__ import annotations

from typing import Any

from steelyard.store.run_record import ScoredRecord
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import Connection

BINS = 20  # of preferences, in [0, 1]
MOST_POINTS = 120  # of reads over time

_SUMMARY = """
SELECT count(*) AS pairs, count(*) FILTER (status = 'ok') AS ok,
  count(*) FILTER (preference > 0.5) AS a, count(*) FILTER (preference < 0.5) AS b,
  count(*) FILTER (preference = 0.5) AS even,
  count(*) FILTER (preference NOT IN (0, 0.5, 1)) AS graded,
  count(*) FILTER (winner = 'tie') AS ties,
  avg(consistent::DOUBLE) AS consistency, avg(symmetry_deviation) AS towards_first,
  count(DISTINCT instruction_id) AS instructions,
  count(*) FILTER (calibrated_preference IS NOT NULL) AS calibrated,
  count(*) FILTER (trusted) AS trusted,
  count(*) FILTER (gold IS NOT NULL) AS gold
FROM {verdicts}"""
_STATUSES = """
SELECT status, count(*) AS pairs, any_value(error) AS example
FROM verdicts WHERE status <> 'ok' GROUP BY status ORDER BY pairs DESC, status"""
_FLAGS = """
SELECT flag, count(*) AS pairs FROM (SELECT unnest(flags) AS flag FROM verdicts)
GROUP BY flag ORDER BY pairs DESC, flag"""
_HISTOGRAM = f"""
SELECT kind, least(floor(value * {BINS})::INTEGER, {BINS - 1}) AS bin, count(*) AS pairs
FROM (
  SELECT 'raw' AS kind, raw_preference AS value FROM verdicts
  UNION ALL SELECT 'calibrated', calibrated_preference FROM verdicts
) WHERE value IS NOT NULL GROUP BY ALL ORDER BY kind DESC, bin"""  # noqa: S608 - constants
_SCORES = f"""
WITH s AS (
  SELECT score_a AS score FROM verdicts WHERE score_a IS NOT NULL
  UNION ALL SELECT score_b FROM verdicts WHERE score_b IS NOT NULL
), r AS (SELECT min(score) AS low, max(score) AS high FROM s)
SELECT low + (high - low) * bin / {BINS} AS start, low + (high - low) * (bin + 1) / {BINS} AS stop,
  count(*) AS responses
FROM (SELECT *, least(floor((score - low) / (high - low) * {BINS})::INTEGER, {BINS - 1}) AS bin
  FROM s, r WHERE high > low)
GROUP BY ALL ORDER BY start"""  # noqa: S608 - constants
_LENGTHS = """
SELECT longer_by, sum(pairs)::BIGINT AS pairs,
  sum(pairs * prefers_longer) / sum(pairs) AS prefers_longer
FROM length_bias GROUP BY longer_by ORDER BY longer_by"""
_RATES = f"""
WITH r AS (
  SELECT epoch(read_at) AS second, prompt_tokens, cached_tokens FROM reads
  WHERE reused_from IS NULL AND read_at IS NOT NULL
), span AS (SELECT min(second) AS first, max(second) AS last FROM r),
width AS (SELECT first, greatest(1, ceil((last - first) / {MOST_POINTS})) AS step FROM span)
SELECT first + step * floor((second - first) / step) AS start, any_value(step) AS seconds,
  count(*) AS prompts, sum(prompt_tokens)::BIGINT AS tokens
FROM r, width GROUP BY start ORDER BY start"""  # noqa: S608 - constants
_REJECTS = """
SELECT reason, count(*) AS rows, any_value(detail) AS example
FROM rejects GROUP BY reason ORDER BY rows DESC, reason"""


def with_preference(snapshot: RunSnapshot) -> str:
    """Return the SQL of verdicts with the column `preference`: calibrated if the run is, or raw."""
    read = "raw_preference" if snapshot.calibrator is None else "calibrated_preference"
    return f"(SELECT *, {read} AS preference FROM verdicts)"  # noqa: S608 - constants


def count_winners(connection: Connection, snapshot: RunSnapshot) -> dict[str, Any]:
    """Return how many pairs there are, and how they were decided."""
    return rows(connection, _SUMMARY.format(verdicts=with_preference(snapshot)))[0]


def summarise(connection: Connection, snapshot: RunSnapshot) -> dict[str, Any]:
    """Return counts and distributions of all verdicts, as JSON."""
    scored = isinstance(snapshot.record, ScoredRecord)
    return {
        **count_winners(connection, snapshot),
        "not_ok": rows(connection, _STATUSES),
        "flags": rows(connection, _FLAGS),
        "histogram": rows(connection, _HISTOGRAM),
        "scores": rows(connection, _SCORES),
        "lengths": rows(connection, _LENGTHS),
        "rates": rows(connection, _RATES) if scored else [],
        "rejects": rows(connection, _REJECTS),
    }


def rows(connection: Connection, sql: str) -> list[dict[str, Any]]:
    """Return the rows of a query of our own."""
    table: list[dict[str, Any]] = connection.sql(sql).to_arrow_table().to_pylist()
    return table
