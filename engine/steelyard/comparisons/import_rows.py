"""Tables of verdicts that were made elsewhere: which column is what, and rows as verdicts.

tables = open_shards(["preferences.parquet"], {"model_a": "model"}, VERDICT_TABLE)
for batch in read(tables, Limits()):
    verdicts, rejects = read_verdicts(batch, tables.roles, Reading())
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.core.schemas import CRITERIA, GOLD, KEYS, STATUS_OK, Bool, Float64
from steelyard.errors import escape
from steelyard.input.problems import EMPTY, LENGTH, NULL, SCALE, WINNER, RowProblems, printable
from steelyard.input.roles import NAMES, SPECIAL, Roles
from steelyard.input.rows import RawBatch, always, find_invalid_utf8, pair_ids, without
from steelyard.input.votes import LABELS, read_gold
from steelyard.protocols.rules import COLUMNS
from steelyard.statistics.clusters import instruction_ids

PROTOCOL = "imported"
VERDICT_TABLE = Roles(
    names={
        **{
            role: names
            for role, names in NAMES.items()
            if role not in {"system", "turns", "reference", "images", *SPECIAL}
        },
        "instruction_id": ("instruction_id", "prompt_id"),
        "preference": ("preference", "raw_preference"),
        "winner": ("winner",),
        "length_a": ("length_a",),
        "length_b": ("length_b",),
    },
    required=("model_a", "model_b"),
)

# The columns of a run's table `verdicts`; the struct `metadata` stands before those at the end.
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
_LAST = [
    pa.field("read_at", pa.timestamp("ms", tz="UTC")),
    pa.field("criteria", CRITERIA),
    pa.field("keys", KEYS),
]
_NO_METADATA = pa.schema([("none", _TEXT)])
_LONGEST = float(np.iinfo(np.int32).max)


@dataclass(frozen=True, slots=True)
class Reading:
    """How the rows of a table are to be understood."""

    judge: str = PROTOCOL
    low: float = 0.0  # the preference that says: b wins for certain
    high: float = 1.0  # the one that says: a wins; may be below `low`
    constants: Mapping[str, str] = field(default_factory=dict)  # model_a, model_b of every row


def verdict_schema(metadata: pa.Schema) -> pa.Schema:
    """VERDICTS with the metadata's columns as a struct."""
    struct = pa.field("metadata", pa.struct(list(metadata or _NO_METADATA)))
    return pa.schema([*VERDICTS, struct, *_LAST])


def read_verdicts(
    batch: RawBatch, roles: Mapping[str, str], reading: Reading
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Split a batch into verdicts and refused rows; each row is in exactly one of them.

    Args:
        batch: from `stream.read`, with one of the roles preference and winner.
        roles: role -> the user's name of its column, for messages.
        reading: what its values mean.

    Returns:
        (rows of `verdict_schema`, REJECTS).
    """
    findings = RowProblems()
    find_invalid_utf8(batch, roles, findings)
    clean, numbers = without(batch, findings)  # what follows reads texts as UTF-8
    later = RowProblems()
    columns = _competitors(clean, roles, reading, later)
    if "winner" in clean.columns:
        columns |= _from_words(clean, columns, roles["winner"], later)
    else:
        columns |= _from_numbers(clean, roles["preference"], reading, later)
    columns |= {side: _lengths(clean, side, roles, later) for side in ("length_a", "length_b")}
    columns["instruction_id"] = _instruction_ids(clean, roles, later)
    if "gold" in clean.columns or "votes_a" in clean.columns:
        columns["gold"] = read_gold(clean.columns, roles, later)
    columns["row"] = pa.array(numbers + batch.first, pa.int64())
    verdicts = _assemble(clean, columns, reading.judge).filter(pa.array(later.good(clean.rows)))
    findings.found |= {int(numbers[row]): found for row, found in later.found.items()}
    return verdicts, findings.rejects(batch.shard, batch.first, pair_ids(batch, findings))


def _competitors(
    batch: RawBatch, roles: Mapping[str, str], reading: Reading, findings: RowProblems
) -> dict[str, pa.Array]:
    found = {}
    for role in ("model_a", "model_b"):
        if role in reading.constants:
            found[role] = _same(reading.constants[role], batch.rows)
            continue
        values = pc.utf8_trim_whitespace(batch.columns[role])
        for bad, reason, what in (
            (values.is_null(), NULL, "null"),
            (pc.equal(values, ""), EMPTY, "empty"),
        ):
            findings.add(_mask(bad), reason, always(f"{printable(roles[role])} is {what}"))
        found[role] = values
    return found


def _from_numbers(
    batch: RawBatch, column: str, reading: Reading, findings: RowProblems
) -> dict[str, pa.Array]:
    """Preferences on [0, 1]; the tie's own probability is not known."""
    values = batch.columns["preference"]
    given = values.fill_null(np.nan).to_numpy(zero_copy_only=False)
    low, high = reading.low, reading.high
    preference = (given - low) / (high - low)
    findings.add(_mask(values.is_null()), NULL, always(f"{printable(column)} is null"))
    findings.add(
        ~((given >= min(low, high)) & (given <= max(low, high))),
        SCALE,
        lambda row: f"{printable(column)} is {given[row]:g}, which is not from {low:g} to {high:g}",
    )
    return {"raw_preference": pa.array(preference), "winner": _winner(preference)}


def _from_words(
    batch: RawBatch, columns: Mapping[str, pa.Array], column: str, findings: RowProblems
) -> dict[str, pa.Array]:
    """Winners by word (a, b, tie and the spellings of a gold label) or by competitor."""
    values = batch.columns["winner"]
    words = [LABELS.get(" ".join((word or "").split()).lower(), -1) for word in values.to_pylist()]
    named = pc.utf8_trim_whitespace(values)
    of_a, of_b = (_mask(pc.equal(named, columns[role])) for role in ("model_a", "model_b"))
    word = np.array(words, dtype=np.int64)
    name = np.where(of_a & ~of_b, 0, np.where(of_b & ~of_a, 1, -1))
    code = np.where(word < 0, name, word)
    findings.add(_mask(values.is_null()), NULL, always(f"{printable(column)} is null"))
    findings.add(
        (code < 0) | ((word >= 0) & (name >= 0) & (word != name)),
        WINNER,
        lambda row: (
            f"{printable(column)} is {escape(values[row])}; known are a, b, tie and the"
            " competitors' names"
        ),
    )
    preference = np.array([1.0, 0.0, 0.5])[code]
    tie = (code == 2).astype(np.float64)
    return {
        "raw_preference": pa.array(preference),
        "raw_tie": pa.array(tie),
        "winner": _winner(preference),
    }


def _winner(preference: Float64) -> pa.Array:
    return pa.array(np.where(preference > 0.5, "a", np.where(preference < 0.5, "b", "tie")))


def _lengths(
    batch: RawBatch, role: str, roles: Mapping[str, str], findings: RowProblems
) -> pa.Array | None:
    """Characters: as given, else counted; null where there is neither number nor text."""
    if role in batch.columns:
        values = batch.columns[role]
        given = values.fill_null(0).to_numpy(zero_copy_only=False)
        good = (given >= 0) & (given <= _LONGEST) & (given == np.floor(given))
        findings.add(
            ~good,
            LENGTH,
            lambda row: f"{printable(roles[role])} is {given[row]:g}, which is no length",
        )
        kept = np.where(good, given, 0).astype(np.int32)
        return pa.array(kept, mask=_mask(values.is_null()))
    text = batch.columns.get(role.replace("length", "response"))
    if text is None:
        return None
    return pc.utf8_length(pc.utf8_trim_whitespace(text)).cast(pa.int32())


def _instruction_ids(
    batch: RawBatch, roles: Mapping[str, str], findings: RowProblems
) -> pa.Array | None:
    """As every table has them (`clusters.instruction_ids`); ids go before texts."""
    values = batch.columns.get("instruction_id", batch.columns.get("instruction"))
    if values is None:
        return None
    if pt.is_signed_integer(values.type):
        negative = _mask(pc.fill_null(pc.less(values, 0), fill_value=False))
        column = printable(roles["instruction_id"])
        findings.add(negative, SCALE, lambda row: f"{column} is {values[row]}, below 0")
    return instruction_ids(values)


def _assemble(batch: RawBatch, columns: Mapping[str, pa.Array], judge: str) -> pa.RecordBatch:
    fields = [pa.field(name, values.type) for name, values in batch.metadata.items()]
    schema = verdict_schema(pa.schema(fields))
    place = _same(batch.shard, batch.rows)
    derived = pc.binary_join_element_wise(place, columns["row"].cast(_TEXT), ":")
    ids = batch.columns.get("pair_id")
    filled: dict[str, pa.Array] = {
        **columns,
        "pair_id": derived if ids is None else pc.coalesce(ids, derived),
        "shard": place,
        "judge": _same(judge, batch.rows),
        "protocol": _same(PROTOCOL, batch.rows),
        "flags": pa.repeat(pa.scalar([], pa.list_(_TEXT)), batch.rows),
        "status": _same(STATUS_OK, batch.rows),
    }
    if fields:
        inner = list(batch.metadata.values())
        filled["metadata"] = pa.StructArray.from_arrays(inner, fields=fields)
    arrays = [
        pa.nulls(batch.rows, entry.type) if (values := filled.get(entry.name)) is None else values
        for entry in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _same(text: str, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, _TEXT), rows)


def _mask(values: pa.BooleanArray) -> Bool:
    mask: Bool = values.fill_null(False).to_numpy(zero_copy_only=False)
    return mask
