"""Comparisons from scores of single responses: the verdicts of a run in which each was alone.

Two responses to an instruction are compared by their scores as the two of a pair are: the
preference is the sigmoid of the difference, and sides within the tie band are a tie.
"""

from __future__ import annotations

from steelyard.comparisons.pair_texts import are_paired
from steelyard.core.schemas import PAIRED, READ_FROM
from steelyard.protocols.rules import sigmoid, winner
from steelyard.store.run_record import ScoredRecord
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import Connection, one_row, sql_text
from steelyard.store.verdicts.views import UNCALIBRATED, with_calibration

VERDICTS = "SELECT * FROM verdicts"
_ANY_PAIR = "SELECT count(*) FROM (SELECT 1 FROM verdicts WHERE length_b IS NOT NULL LIMIT 1)"


def comparisons_sql(connection: Connection, snapshot: RunSnapshot) -> tuple[str, bool]:
    """Return the query for what a run compares, with the columns of `verdicts`, and their source.

    These are its verdicts, or, where each is of a single response, comparisons of all responses to
    an instruction; verdicts without a score stay. Whether they come from scores is the second
    value: then `metadata` has the addresses of both responses, READ_FROM.
    """
    record = snapshot.record
    if not isinstance(record, ScoredRecord) or record.spec.axes.shows != "response":
        return VERDICTS, False
    if one_row(connection, _ANY_PAIR)[0]:
        return VERDICTS, False
    if snapshot.manifest is None or not snapshot.manifest.pairs:
        return VERDICTS, False
    has_metadata = bool(snapshot.manifest.metadata)
    band = record.spec.protocol.tie_band
    raw = _compared(band, has_metadata=has_metadata, paired=are_paired(record))
    return with_calibration(raw, snapshot.calibrator, 0.0), True


def _compared(band: float, *, has_metadata: bool, paired: bool) -> str:
    ours, theirs = "a.score_a", "b.score_a"
    own = [_address(side, paired=paired) for side in "ab"]
    first, second = READ_FROM
    metadata = f"struct_pack({first} := {own[0]}, {second} := {own[1]})"
    if paired:
        metadata = f"struct_update(a.metadata, {second} := {own[1]})"
    elif has_metadata:
        metadata = f"struct_insert(a.metadata, {first} := {own[0]}, {second} := {own[1]})"
    preference = sigmoid(f"{ours} - {theirs}")
    columns = {
        "pair_id": "a.pair_id || '|' || b.pair_id",
        "shard": sql_text(PAIRED),
        '"row"': 'row_number() OVER (ORDER BY a.shard, a."row", b.shard, b."row") - 1',
        "model_b": "b.model_a",
        "raw_preference": preference,
        "score_b": theirs,
        "hard_score_b": "b.hard_score_a",
        "winner": winner(f"({preference})", "NULL", (ours, theirs), band),
        "label_mass_ba": "b.label_mass_ab",
        "flags": "list_sort(list_distinct(list_concat(a.flags, b.flags)))",
        "length_b": "b.length_a",
        "gold": "CASE WHEN false THEN a.gold END",
        "metadata": metadata,
        "read_at": "greatest(a.read_at, b.read_at)",
        "keys": "list_concat(a.keys, b.keys)",
        "members": "CASE WHEN false THEN a.members END",
    }
    replaced = ",\n    ".join(f"{sql} AS {name}" for name, sql in columns.items())
    names = [line.split(" AS ")[1] for line in UNCALIBRATED.split(",")]
    left_out = ", ".join([*names, "raw_winner"])
    return f"""
SELECT a.* EXCLUDE ({left_out}) REPLACE ({replaced})
FROM verdicts a JOIN verdicts b
  ON a.instruction_id = b.instruction_id AND (a.shard, a."row") < (b.shard, b."row")
WHERE a.status = 'ok' AND b.status = 'ok'
UNION ALL BY NAME
SELECT * EXCLUDE ({left_out}, metadata) FROM verdicts WHERE status <> 'ok'"""  # noqa: S608 - our own text


def _address(side: str, *, paired: bool) -> str:
    if paired:
        return f"{side}.metadata.{READ_FROM[0]}"
    return f"""{{'shard': {side}.shard, 'row': {side}."row", 'item': NULL::INTEGER}}"""
