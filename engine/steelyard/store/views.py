"""The SQL of views: the one definition of a verdict, for live runs and for the hand-off file."""

from __future__ import annotations

from steelyard.calibrate.record import Calibrator, calibrated_sql
from steelyard.protocols import get_protocol

LOW_LABEL_MASS = 0.5


# The calibrated columns of a run to which no calibrator was applied.
UNCALIBRATED = """NULL::DOUBLE AS calibrated_preference, NULL::DOUBLE AS calibrated_tie,
  NULL::BOOLEAN AS trusted"""


def verdict_sql(judge: str, protocol: str, *, metadata: bool, calibrator: Calibrator | None) -> str:
    """The one definition of a verdict: raw verdicts with their calibrated columns.

    Reads `pairs_raw` and `reads`. A pair appears when both its prompts are read.
    """
    added = UNCALIBRATED
    if calibrator is not None:
        added = ",\n  ".join(f"{sql} AS {name}" for name, sql in calibrated_sql(calibrator))
    raw = raw_verdict_sql(judge, protocol, metadata=metadata)
    return f"SELECT v.*,\n  {added}\nFROM ({raw}) v"


def raw_verdict_sql(judge: str, protocol: str, *, metadata: bool) -> str:
    """Pairs joined to the reads of both orders."""
    derived = ",\n  ".join(
        f"CASE WHEN ab.status = 'ok' AND ba.status = 'ok' THEN {expression} END AS {name}"
        for name, expression in get_protocol(protocol).verdict_sql
    )
    flags = " || ".join(
        f"CASE WHEN {condition} THEN ['{flag}'] ELSE []::VARCHAR[] END"
        for flag, condition in (
            ("truncated", "ab.truncated OR ba.truncated"),
            ("outside_ab", "ab.argmax_outside"),
            ("outside_ba", "ba.argmax_outside"),
            ("low_label_mass", f"least(ab.label_mass, ba.label_mass) < {LOW_LABEL_MASS}"),
        )
    )
    status = "CASE WHEN ab.status <> 'ok' THEN ab.status ELSE ba.status END"
    return f"""
SELECT p.pair_id, p.shard, p."row", p.model_a, p.model_b,
  {sql_text(judge)} AS judge, {sql_text(protocol)} AS protocol,
  {derived},
  {flags} AS flags,
  {status} AS status, coalesce(ab.error, ba.error) AS error,
  p.length_a, p.length_b, p.gold,
  {"p.metadata" if metadata else "NULL::STRUCT(none VARCHAR)"} AS metadata,
  greatest(ab.read_at, ba.read_at) AS read_at, p.key_ab, p.key_ba
FROM pairs_raw p
JOIN reads ab ON p.key_ab = ab.prompt_key
JOIN reads ba ON p.key_ba = ba.prompt_key"""  # noqa: S608 - our own text


REJECTS_SQL = """
SELECT shard, "row", pair_id, reason, detail FROM rejects_raw
UNION ALL
SELECT shard, "row", pair_id, status, error FROM verdicts WHERE status = 'overlong'"""


def sql_text(value: object) -> str:
    """A SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"
