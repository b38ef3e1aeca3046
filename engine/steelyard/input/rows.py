"""The rows of one batch: good ones become INTAKE, bad ones REJECTS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.schemas import INTAKE, Bool, Int64
from steelyard.errors import InputRefused, UsageError, escape
from steelyard.input.cells import invalid_rows, read_criteria, read_turns, row_bytes, shown_bytes
from steelyard.input.images import ImageReader
from steelyard.input.problems import EMPTY, NULL, SIZE, UTF8, RowProblems, printable
from steelyard.input.roles import CONVERSATIONS, REQUIRED, TEXTS
from steelyard.input.votes import read_gold

_ASCII_BLANKS = 0x20
_LONGEST_ID = 1024
_SIZED = ("pair_id", *TEXTS, *CONVERSATIONS, "criteria")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a row may hold, and how much is held at a time."""

    row_bytes: int = 1 << 20  # UTF-8 bytes of a row's texts together; as much again for metadata
    batch_rows: int = 2048
    batch_bytes: int = 16 << 20  # aimed at, from the rows before
    on_bad_row: Literal["reject", "fail"] = "reject"

    def __post_init__(self) -> None:
        if min(self.row_bytes, self.batch_rows, self.batch_bytes) < 1:
            raise UsageError("a limit is not positive", remedy="give each limit at least 1")
        if self.on_bad_row not in {"reject", "fail"}:
            raise UsageError(
                f"unknown choice {escape(self.on_bad_row)} for bad rows",
                remedy="use reject or fail",
            )


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Consecutive rows of a shard, each column in the type settled at the door, unchecked."""

    shard: str
    first: int  # number of the first row in the shard
    rows: int
    columns: Mapping[str, pa.Array]  # role -> values, of the roles that the shards fill
    metadata: Mapping[str, pa.Array]
    folder: str | None = None  # of the shard, if it is on this machine

    def filter(self, good: pa.Array) -> RawBatch:
        """The rows where `good` is true; `first` stays and no longer tells the others' numbers."""
        return RawBatch(
            self.shard,
            self.first,
            int(pc.sum(good).as_py() or 0),
            {name: values.filter(good) for name, values in self.columns.items()},
            {name: values.filter(good) for name, values in self.metadata.items()},
            self.folder,
        )


def check(
    batch: RawBatch,
    roles: Mapping[str, str],
    schema: pa.Schema,
    limits: Limits,
    required: Sequence[str] = REQUIRED,
    *,
    images: ImageReader | None = None,
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Split a batch into good and bad rows; each row is in exactly one, in the shard's order.

    Args:
        batch: up to `limits.batch_rows` rows.
        roles: role -> the user's name of its column, for messages.
        schema: ShardSet.schema.
        limits: see there.
        required: roles that no row may leave empty.
        images: reads the rows' images.

    Returns:
        (rows of `schema`, REJECTS).

    Raises:
        InputRefused: there is a bad row and `limits.on_bad_row` is "fail".
    """
    findings = RowProblems()
    _find_nulls(batch, roles, required, findings)
    find_invalid_utf8(batch, roles, findings)
    clean, numbers = without(batch, findings)  # what follows reads texts as UTF-8
    later = RowProblems()
    _find_empty(clean, roles, later)
    _find_large(clean, limits, later)
    derived = {}
    for role in CONVERSATIONS:
        if role in clean.columns:
            derived[role] = read_turns(clean.columns[role], roles[role], later)
    if "criteria" in clean.columns:
        derived["criteria"] = read_criteria(clean.columns["criteria"], roles["criteria"], later)
    if "images" in clean.columns:
        reader = images or ImageReader()
        derived["images"] = reader.read(clean.columns["images"], batch.folder, later)
    if "gold" in clean.columns or "votes_a" in clean.columns:
        derived["gold"] = read_gold(clean.columns, roles, later)
    accepted = _intake(clean, derived, numbers, schema)
    if later:
        accepted = accepted.filter(pa.array(later.good(clean.rows)))
        findings.found |= {int(numbers[row]): found for row, found in later.found.items()}
    rejects = findings.rejects(batch.shard, batch.first, pair_ids(batch, findings))
    if limits.on_bad_row == "fail" and len(rejects):
        raise _first_bad_row(rejects)
    return accepted, rejects


def without(batch: RawBatch, findings: RowProblems) -> tuple[RawBatch, Int64]:
    """The rows that have no finding, and their numbers in the batch."""
    if not findings:
        return batch, np.arange(batch.rows)
    good = findings.good(batch.rows)
    return batch.filter(pa.array(good)), np.flatnonzero(good)


def tally(rejects: pa.RecordBatch) -> Counter[str]:
    """How many rows were rejected for each reason."""
    return Counter(rejects.column("reason").to_pylist())


def _find_nulls(
    batch: RawBatch, roles: Mapping[str, str], required: Sequence[str], findings: RowProblems
) -> None:
    for role in required:
        values = batch.columns[role]
        if values.null_count:
            findings.add(_mask(values.is_null()), NULL, always(f"{printable(roles[role])} is null"))


def find_invalid_utf8(batch: RawBatch, roles: Mapping[str, str], findings: RowProblems) -> None:
    """Find the rows with a text, of a role or of the metadata, that is not UTF-8."""
    named = [(roles[role], values) for role, values in batch.columns.items()]
    for column, values in [*named, *batch.metadata.items()]:
        bad = invalid_rows(values)
        if bad is not None:
            findings.add(bad, UTF8, _not_utf8(column, values))


def _not_utf8(column: str, values: pa.Array) -> Callable[[int], str]:
    return lambda row: f"{printable(column)} is not UTF-8{shown_bytes(values, row)}"


def _find_empty(batch: RawBatch, roles: Mapping[str, str], findings: RowProblems) -> None:
    """Instructions only: a model that answered nothing did answer, and may lose for it."""
    blank = _blank(batch.columns["instruction"])
    if blank is not None:
        detail = f"{printable(roles['instruction'])} is empty or white space only"
        findings.add(blank, EMPTY, always(detail))


def always(detail: str) -> Callable[[int], str]:
    """The same detail for every row."""
    return lambda _: detail


def _blank(values: pa.StringArray) -> Bool | None:
    """Which texts have nothing but white space; None: none. Looks at most first bytes only."""
    offsets = np.frombuffer(values.buffers()[1], np.int32)
    offsets = offsets[values.offset : values.offset + len(values) + 1]
    data = values.buffers()[2]
    if data is None or not len(values):
        return np.ones(len(values), dtype=np.bool_) if len(values) else None
    raw = np.frombuffer(data, np.uint8)
    empty: Bool = np.equal(offsets[:-1], offsets[1:])
    if not len(raw):
        return empty
    first = raw[np.minimum(offsets[:-1], len(raw) - 1)]
    doubtful = empty | (first <= _ASCII_BLANKS) | (first >= 0x80)
    if not doubtful.any():
        return None
    rows = np.flatnonzero(doubtful)
    trimmed = pc.binary_length(pc.utf8_trim_whitespace(values.take(pa.array(rows))))
    blank = np.zeros(len(values), dtype=np.bool_)
    blank[rows[_mask(pc.equal(trimmed, 0))]] = True
    return blank


def _find_large(batch: RawBatch, limits: Limits, findings: RowProblems) -> None:
    texts = [batch.columns[name] for name in _SIZED if name in batch.columns]
    for kind, columns in (("texts", texts), ("metadata", list(batch.metadata.values()))):
        size: Int64 = np.zeros(batch.rows, dtype=np.int64)
        for values in columns:
            size += row_bytes(values)
        findings.add(size > limits.row_bytes, SIZE, _too_large(kind, size, limits.row_bytes))


def _too_large(kind: str, size: Int64, limit: int) -> Callable[[int], str]:
    return lambda row: f"the row's {kind} have {int(size[row]):,} bytes; the limit is {limit:,}"


def _intake(
    batch: RawBatch, derived: Mapping[str, pa.Array], numbers: Int64, schema: pa.Schema
) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {**batch.columns, **derived}
    columns["shard"] = pa.repeat(pa.scalar(batch.shard, pa.string()), batch.rows)
    columns["row"] = pa.array(numbers + batch.first, pa.int64())
    if len(schema) > len(INTAKE):
        fields = list(schema.field("metadata").type)
        inner = [batch.metadata[field.name] for field in fields]
        columns["metadata"] = pa.StructArray.from_arrays(inner, fields=fields)
    filled = [
        columns[field.name] if field.name in columns else pa.nulls(batch.rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(filled, schema=schema)


def pair_ids(batch: RawBatch, findings: RowProblems) -> list[str | None]:
    """Of the bad rows; null where there is none, or none that can be shown."""
    values = batch.columns.get("pair_id")
    rows = sorted(findings.found)
    if values is None or not rows:
        return [None] * len(rows)
    raw = values.take(pa.array(rows)).cast(pa.binary()).to_pylist()
    return [_readable(value) for value in raw]


def _readable(value: bytes | None) -> str | None:
    if value is None or len(value) > _LONGEST_ID:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _first_bad_row(rejects: pa.RecordBatch) -> InputRefused:
    first = rejects.slice(0, 1).to_pylist()[0]
    return InputRefused(
        f"bad row ({first['reason']}): {first['detail']}",
        place=f"{printable(first['shard'])}, row {first['row']}",
        effect="the run stopped there, as --on-bad-row fail asks",
        remedy="correct the row, or reject bad rows and go on: --on-bad-row reject",
    )


def _mask(values: pa.BooleanArray) -> Bool:
    mask: Bool = values.to_numpy(zero_copy_only=False)
    return mask
