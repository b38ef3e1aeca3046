"""The rows of one batch: good ones become INTAKE, bad ones REJECTS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.arrow import repeat_text, to_mask
from steelyard.core.schemas import INTAKE, Bool, Int64
from steelyard.errors import InputRefused, UsageError, escape
from steelyard.input.cells import invalid_bytes, invalid_rows, read_criteria, read_turns, row_bytes
from steelyard.input.columns import INTEGER
from steelyard.input.conversations import as_texts
from steelyard.input.images import ImageReader
from steelyard.input.problems import Reason, RowProblems, Sentence, printable
from steelyard.input.role_types import NAMES
from steelyard.input.roles import CONVERSATIONS, REQUIRED, TEXTS
from steelyard.input.votes import read_gold

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
    """Rows of a shard, n of them, each column in the type settled at the door, unchecked."""

    shard: str
    numbers: Int64  # n, of the rows in the shard, ascending
    columns: Mapping[str, pa.Array]  # role -> n values, of the roles that the shards fill
    metadata: Mapping[str, pa.Array]
    folder: str | None = None  # of the shard, if it is on this machine
    # Metadata column -> n; of rows with a value that its type cannot hold, which is null here.
    unfit: Mapping[str, Bool] = field(default_factory=dict)
    # What a conversion noted of each row (`columns`): n lists of NOTE; None: nothing.
    notes: pa.Array | None = None
    items: pa.Array | None = None  # of each row, where rows are items of lists of responses

    def __len__(self) -> int:
        return len(self.numbers)

    def named(self, roles: Mapping[str, str]) -> Iterator[tuple[str, pa.Array]]:
        """Yield all columns with the user's name for them, which `roles` has for each role."""
        yield from ((roles[role], values) for role, values in self.columns.items())
        yield from self.metadata.items()

    def filter(self, kept: Bool) -> RawBatch:
        """Return the rows where `kept` is true."""
        mask = pa.array(kept)
        columns, metadata = (
            {name: values.filter(mask) for name, values in part.items()}
            for part in (self.columns, self.metadata)
        )
        unfit = {name: bad[kept] for name, bad in self.unfit.items()}
        notes, items = (
            None if values is None else values.filter(mask) for values in (self.notes, self.items)
        )
        return replace(
            self, numbers=self.numbers[kept], columns=columns, metadata=metadata, unfit=unfit,
            notes=notes, items=items,
        )  # fmt: skip


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

    `roles` gives the user's name of each role's column, for messages; no row may leave a required
    role empty.

    Returns:
        (rows of `schema`, which is ShardSet.schema, and REJECTS).

    Raises:
        InputRefused: there is a bad row and `limits.on_bad_row` is "fail".
    """
    problems = RowProblems(batch.numbers)
    find_noted(batch, roles, problems)
    for role in (role for role in required if role in roles):
        nulls = to_mask(batch.columns[role].is_null())
        problems.add(nulls, Reason.NULL, f"{printable(roles[role])} is null")
    find_invalid(batch, roles, problems)
    clean = without(batch, problems)  # what follows reads texts as UTF-8
    alone = "instruction" not in roles
    texts = as_texts(clean.columns, roles, problems, transcripts=alone)
    clean = replace(clean, columns=texts)
    # Instructions only: a model that answered nothing did answer, and may lose for it.
    asked = roles.get("instruction") or roles["response_a"]
    blank = f"{printable(asked)} is empty or white space only"
    instructions = clean.columns["instruction"]
    empty = pc.or_(pc.equal(instructions, ""), pc.utf8_is_space(instructions))
    problems.add(to_mask(empty), Reason.EMPTY, blank)
    _find_large(clean, limits, problems)
    derived = {}
    for role in CONVERSATIONS:
        if role in clean.columns:
            derived[role] = read_turns(clean.columns[role], roles.get(role, asked), problems)
    if "criteria" in clean.columns:
        derived["criteria"] = read_criteria(clean.columns["criteria"], roles["criteria"], problems)
    if "images" in clean.columns:
        reader = images or ImageReader()
        derived["images"] = reader.read(clean.columns["images"], batch.folder, problems)
    if "gold" in clean.columns or "votes_a" in clean.columns:
        derived["gold"] = read_gold(clean.columns, roles, problems)
    accepted, rejects = split(batch, _intake(clean, derived, schema), problems)
    if limits.on_bad_row == "fail" and len(rejects):
        raise _first_bad_row(rejects)
    return accepted, rejects


def without(batch: RawBatch, problems: RowProblems) -> RawBatch:
    """Return the rows that have no problem yet, at which alone `problems` then looks."""
    clean = batch.filter(problems.good()) if problems else batch
    problems.numbers = clean.numbers
    return clean


def split(
    batch: RawBatch, rows: pa.RecordBatch, problems: RowProblems
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Return the good ones of the rows that `without` left, and the batch's bad ones as REJECTS."""
    if problems:
        rows = rows.filter(pa.array(problems.good()))
    return rows, problems.rejects(batch.shard, _pair_ids(batch, problems.bad_rows()))


def find_invalid(batch: RawBatch, roles: Mapping[str, str], problems: RowProblems) -> None:
    """Find the rows of a whole batch that hold what no column can: invalid UTF-8, or no such time.

    `roles` gives the user's name of each role's column.
    """
    find_invalid_utf8(batch.named(roles), problems)
    for name, bad in batch.unfit.items():
        what = f"{printable(name)} has a value that {printable(str(batch.metadata[name].type))}"
        problems.add(bad, Reason.METADATA, f"{what} cannot hold")


def find_noted(batch: RawBatch, roles: Mapping[str, str], problems: RowProblems) -> None:
    """Find the rows that could not be read, or have another kind of value in a role's column."""
    if batch.notes is None or not pc.any(batch.notes.is_valid()).as_py():
        return
    names = {roles[role] for role in NAMES if role in roles}
    used = {"", *(roles[role] for role in batch.columns)}
    reasons: dict[int, Sentence] = {}
    for row in np.flatnonzero(to_mask(batch.notes.is_valid())).tolist():
        for note in batch.notes[row].as_py():
            column, what = note["column"], note["what"]
            if column in used and not (column in names and what == INTEGER):
                said = f"{printable(column)} is {what}, which it is not in other rows"
                reasons.setdefault(row, Sentence(said if column else what))
    bad = np.isin(np.arange(len(batch)), list(reasons))
    problems.add(bad, Reason.FORMAT, "the row cannot be read", reasons.__getitem__)


def find_invalid_utf8(columns: Iterable[tuple[str, pa.Array]], problems: RowProblems) -> None:
    """Find the rows with a text that is not UTF-8 in columns, each with the user's name for it."""
    for name, values in columns:
        bad = invalid_rows(values)
        if bad is not None:
            what, remedy = f"{printable(name)} is not UTF-8", "write texts as UTF-8"
            problems.add(bad, Reason.UTF8, what, partial(invalid_bytes, values), remedy)


def _find_large(batch: RawBatch, limits: Limits, problems: RowProblems) -> None:
    texts = [batch.columns[name] for name in _SIZED if name in batch.columns]
    for kind, columns in (("texts", texts), ("metadata", list(batch.metadata.values()))):
        size: Int64 = sum(map(row_bytes, columns), np.zeros(len(batch), dtype=np.int64))
        problems.add(
            size > limits.row_bytes,
            Reason.SIZE,
            f"the row's {kind} have more than {limits.row_bytes:,} bytes",
            lambda row, size=size: f"{size[row]:,}",  # type: ignore[misc]
        )


def _intake(batch: RawBatch, derived: Mapping[str, pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {**batch.columns, **derived}
    columns["shard"] = repeat_text(batch.shard, len(batch))
    columns["row"] = pa.array(batch.numbers, pa.int64())
    if batch.items is not None:
        columns["item"] = batch.items
    if len(schema) > len(INTAKE):
        fields = list(schema.field("metadata").type)
        inner = [batch.metadata[field.name] for field in fields]
        columns["metadata"] = pa.StructArray.from_arrays(inner, fields=fields)
    filled = [
        columns[field.name] if field.name in columns else pa.nulls(len(batch), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(filled, schema=schema)


def _pair_ids(batch: RawBatch, bad: Int64) -> list[str | None]:
    """Return the ids of the bad rows; null where an id is missing or cannot be shown."""
    values = batch.columns.get("pair_id")
    if values is None or not len(bad):
        return [None] * len(bad)
    rows = np.searchsorted(batch.numbers, bad)
    return [_readable(value) for value in values.take(pa.array(rows)).cast(pa.binary()).to_pylist()]


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
