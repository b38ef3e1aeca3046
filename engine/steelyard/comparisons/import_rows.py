"""Rows of tables with verdicts that were made elsewhere, as verdicts.

tables = open_shards(["preferences.parquet"], {"model_a": "model"}, VERDICT_TABLE)
for batch in read(tables, Limits()):
    verdicts, rejects = read_verdicts(batch, tables.roles, Reading())
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.comparisons.checks import LONGEST, is_outside, read_names
from steelyard.core.arrow import repeat_text, to_floats, to_mask
from steelyard.core.schemas import CRITERIA, GOLD, KEYS, STATUS_OK, Float64
from steelyard.input.conversations import as_texts
from steelyard.input.problems import Reason, RowProblems, printable
from steelyard.input.roles import LENGTHS, MODELS
from steelyard.input.rows import RawBatch, find_invalid, find_noted, split, without
from steelyard.input.votes import PREFERENCES, label_codes, read_gold
from steelyard.protocols.rules import COLUMNS
from steelyard.statistics.clusters import instruction_ids

PROTOCOL = "imported"

# The columns of a run's table `verdicts`; the struct `metadata` comes before those at the end.
_TEXT, _NUMBER = pa.string(), pa.float64()
VERDICTS = pa.schema(
    [
        *((name, _TEXT) for name in ("pair_id", "shard")),
        ("row", pa.int64()),
        ("instruction_id", pa.uint64()),
        *((name, _TEXT) for name in ("category", "model_a", "model_b", "judge", "protocol")),
        *((name, _NUMBER) for name in COLUMNS),
        ("winner", _TEXT),
        ("symmetry_deviation", _NUMBER),
        ("consistent", pa.bool_()),
        *((name, _NUMBER) for name in ("label_mass_ab", "label_mass_ba")),
        ("flags", pa.list_(_TEXT)),
        *((name, _TEXT) for name in ("status", "error")),
        *((name, pa.int32()) for name in ("length_a", "length_b")),
        ("gold", GOLD),
    ]
)


@dataclass(frozen=True, slots=True)
class Reading:
    """How the rows of a table are to be understood."""

    judge: str = PROTOCOL
    low: float = 0.0  # the preference that means: b wins for certain
    high: float = 1.0  # the one that means: a wins; may be below `low`
    constants: Mapping[str, str] = field(default_factory=dict)  # model_a, model_b of every row


def verdict_schema(metadata: pa.Schema) -> pa.Schema:
    """Return VERDICTS with the metadata's columns as a struct."""
    struct = pa.struct(list(metadata or pa.schema([("none", _TEXT)])))
    read_at = ("read_at", pa.timestamp("ms", tz="UTC"))
    last = pa.schema([("metadata", struct), read_at, ("criteria", CRITERIA), ("keys", KEYS)])
    return pa.schema([*VERDICTS, *last])


def read_verdicts(
    batch: RawBatch, roles: Mapping[str, str], reading: Reading
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Split a batch into verdicts and refused rows; each row is in exactly one of them.

    The batch has one of the roles preference and winner; `roles` gives the user's names of columns.

    Returns:
        (rows of `verdict_schema`, REJECTS).
    """
    problems = RowProblems(batch.numbers)
    find_noted(batch, roles, problems)
    find_invalid(batch, roles, problems)
    clean = without(batch, problems)  # what follows reads texts as UTF-8
    clean = replace(clean, columns=as_texts(clean.columns, roles, problems))
    columns = _competitors(clean, roles, reading, problems)
    if "winner" in clean.columns:
        columns |= _from_words(clean, columns, roles["winner"], problems)
    else:
        columns |= _from_numbers(clean, roles["preference"], reading, problems)
    columns |= {side: _lengths(clean, side, roles, problems) for side in LENGTHS}
    columns["instruction_id"] = _instruction_ids(clean, roles, problems)
    if "gold" in clean.columns or "votes_a" in clean.columns:
        columns["gold"] = read_gold(clean.columns, roles, problems)
    return split(batch, _assemble(clean, columns, reading.judge), problems)


def _competitors(
    batch: RawBatch, roles: Mapping[str, str], reading: Reading, problems: RowProblems
) -> dict[str, pa.Array]:
    names = {role: repeat_text(name, len(batch)) for role, name in reading.constants.items()}
    for role in batch.columns.keys() & set(MODELS):
        values, label = batch.columns[role], printable(roles[role])
        problems.add(to_mask(values.is_null()), Reason.NULL, f"{label} is null")
        names[role] = read_names(values, label, problems).dictionary_decode()
    return names


def _from_numbers(
    batch: RawBatch, column: str, reading: Reading, problems: RowProblems
) -> dict[str, pa.Array]:
    """Return preferences on [0, 1]; the tie's own probability is not known."""
    values, name = batch.columns["preference"], printable(column)
    low, high = reading.low, reading.high
    problems.add(to_mask(values.is_null()), Reason.NULL, f"{name} is null")
    outside = is_outside(values, min(low, high), max(low, high))
    what = f"{name} is not from {low:g} to {high:g}"
    problems.add(outside, Reason.SCALE, what, lambda row: values[row])
    preference = (to_floats(values) - low) / (high - low)
    return {"raw_preference": pa.array(preference), "winner": _winner(preference)}


def _from_words(
    batch: RawBatch, columns: Mapping[str, pa.Array], column: str, problems: RowProblems
) -> dict[str, pa.Array]:
    """Return winners by word (a, b, tie and the spellings of a gold label) or by competitor."""
    values, name = batch.columns["winner"], printable(column)
    words, trimmed = label_codes(values), pc.utf8_trim_whitespace(values)
    of_a, of_b = (to_mask(pc.equal(trimmed, columns[role])) for role in MODELS)
    named = np.where(of_a & ~of_b, 0, np.where(of_b & ~of_a, 1, -1))
    codes = np.where(words < 0, named, words)
    problems.add(to_mask(values.is_null()), Reason.NULL, f"{name} is null")
    problems.add(
        (codes < 0) | ((words >= 0) & (named >= 0) & (words != named)),
        Reason.WINNER,
        f"{name} is not a, b, tie or the name of one competitor",
        lambda row: values[row],
    )
    preference = PREFERENCES[codes]
    return {
        "raw_preference": pa.array(preference),
        "raw_tie": pa.array((codes == 2).astype(np.float64)),
        "winner": _winner(preference),
    }


def _winner(preference: Float64) -> pa.Array:
    return pa.array(np.where(preference > 0.5, "a", np.where(preference < 0.5, "b", "tie")))


def _lengths(
    batch: RawBatch, role: str, roles: Mapping[str, str], problems: RowProblems
) -> pa.Array | None:
    """Return characters: as given, else counted; null where there is neither number nor text."""
    if role in batch.columns:
        values = batch.columns[role]
        given = to_floats(values)
        known = to_mask(values.is_valid())
        wrong = is_outside(values, 0, LONGEST) | (known & (given != np.floor(given)))
        what = f"{printable(roles[role])} is not a number of characters"
        problems.add(wrong, Reason.LENGTH, what, lambda row: values[row])
        kept = np.where(known & ~wrong, given, 0).astype(np.int32)
        return pa.array(kept, mask=~known)
    text = batch.columns.get(role.replace("length", "response"))
    return None if text is None else pc.utf8_length(pc.utf8_trim_whitespace(text)).cast(pa.int32())


def _instruction_ids(
    batch: RawBatch, roles: Mapping[str, str], problems: RowProblems
) -> pa.Array | None:
    """Return ids as every table has them (`clusters.instruction_ids`); ids go before texts."""
    values = batch.columns.get("instruction_id", batch.columns.get("instruction"))
    if values is None:
        return None
    if pt.is_signed_integer(values.type):
        what = f"{printable(roles['instruction_id'])} is below 0"
        negative = to_mask(pc.less(values, 0))
        problems.add(negative, Reason.SCALE, what, lambda row: values[row])
    return instruction_ids(values)


def _assemble(batch: RawBatch, columns: Mapping[str, pa.Array], judge: str) -> pa.RecordBatch:
    fields = [pa.field(name, values.type) for name, values in batch.metadata.items()]
    schema = verdict_schema(pa.schema(fields))
    rows, shard = len(batch), repeat_text(batch.shard, len(batch))
    numbers = pa.array(batch.numbers, pa.int64())
    derived = pc.binary_join_element_wise(shard, numbers.cast(_TEXT), ":")
    ids = batch.columns.get("pair_id")
    filled: dict[str, pa.Array] = {
        **columns,
        "pair_id": derived if ids is None else pc.coalesce(ids, derived),
        "shard": shard,
        "row": numbers,
        "judge": repeat_text(judge, rows),
        "protocol": repeat_text(PROTOCOL, rows),
        "flags": pa.repeat(pa.scalar([], pa.list_(_TEXT)), rows),
        "status": repeat_text(STATUS_OK, rows),
    }
    if fields:
        inner = list(batch.metadata.values())
        filled["metadata"] = pa.StructArray.from_arrays(inner, fields=fields)
    arrays = [
        pa.nulls(rows, entry.type) if (values := filled.get(entry.name)) is None else values
        for entry in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
