"""Judged pairs of a run or of a table, and what their reads depend on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.features import Member, MemberValue
from steelyard.comparisons.read import CALIBRATED, describe, read_comparisons
from steelyard.core.arrow import to_floats, to_mask
from steelyard.core.schemas import Float64, Int64, UInt64
from steelyard.errors import CalibratorRefused, InputRefused, escape
from steelyard.input.roles import LENGTHS
from steelyard.input.sql_roles import quoted
from steelyard.statistics.clusters import instruction_ids
from steelyard.store.run_record import ScoredRecord
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts.calibrated_tables import calibrator_of_table

ORDERS = ("preference_ab", "preference_ba")
MASSES = ("label_mass_ab", "label_mass_ba")
MEMBERS = "members"
MEMBER_FIELDS = {"logit", "logit_ab", "logit_ba", "share"}
MEMBER_COLUMN = re.compile(rf"{MEMBERS}\[(?P<number>\d+)\]\.(?P<value>\w+)")
WANTED = ("pair_id", "instruction", "tie", *LENGTHS, *ORDERS, *MASSES)


@dataclass(frozen=True)
class Source:
    """Where judged pairs are, and which columns have which role (`comparisons.read`)."""

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def run(self) -> RunSnapshot | None:
        """The run as it is when a command first looks at it; None for a table."""
        return RunSnapshot.take(self.path) if RunDir(self.path).is_begun else None

    @cached_property
    def calibrator(self) -> Calibrator | None:
        """What made the calibrated columns; None where there are none or nothing says so.

        Raises:
            CalibratorRefused: a table's is damaged.
        """
        return calibrator_of_table(self.path) if self.run is None else self.run.calibrator


@dataclass(frozen=True, slots=True)
class GoldSource:
    """Where gold for some of the judged pairs is."""

    gold: Path | None  # Parquet; None: the source's own
    gold_columns: Mapping[str, str] | None = None  # role -> column of that file


@dataclass(frozen=True, slots=True)
class JudgedPairs:
    """Pairs of a source; all columns have n rows."""

    table: pa.Table
    pair_ids: UInt64 | None  # digests of pair_id; None: there is no such column
    instructions: UInt64  # ids; a pair that names no instruction is an instruction by itself
    notes: tuple[str, ...]  # for the user: what was left out, what was assumed
    named: bool  # whether a column says which instruction each pair belongs to
    preference: str  # the column, or the expression, that preferences are of

    def __len__(self) -> int:
        return len(self.table)

    @property
    def groups(self) -> Int64:
        """Numbers of the pairs' instructions, from 0."""
        return np.unique(self.instructions, return_inverse=True)[1].astype(np.int64)


def read_pairs(source: Source, want: tuple[str, ...] = ()) -> JudgedPairs:
    """Read the judged pairs of a source.

    Raises:
        UsageError: the source or a column is missing.
        InputRefused: values cannot be what their role says.
    """
    need = ["preference", *(["score"] if "score" in source.columns else [])]
    want = (*WANTED, *CALIBRATED, MEMBERS, *want)
    read = read_comparisons(source.run or source.path, source.columns, need, want, raw=True)
    notes = [f"left out: {describe(read.left_out)}"] if read.left_out else []
    table = _with_members(read.table)
    if "score" in table.column_names and source.run is None:
        score = to_floats(table["score"])
        if ((score >= 0) & (score <= 1)).all():
            notes.append(
                "all logits are from 0 to 1: if they are probabilities, name them with --preference"
            )
    # The substitute if no column names the instruction, under the name that it has here.
    pair_id = read.columns.get("pair_id", quoted("pair_id"))
    named = read.columns.get("instruction", pair_id) != pair_id
    pair_ids = None
    if "pair_id" in table.column_names:
        pair_ids = own_ids(instruction_ids(table["pair_id"].combine_chunks()), None)
    instructions = pa.nulls(len(table), pa.uint64())
    if "instruction" in table.column_names:
        instructions = table["instruction"].combine_chunks()
    return JudgedPairs(
        table, pair_ids, own_ids(instructions, pair_ids), tuple(notes), named, read.preference
    )


def own_ids(ids: pa.Array, pairs: UInt64 | None) -> UInt64:
    """Return n ids, and for a null that of the pair, or the number of the row."""
    known = np.asarray(ids.fill_null(0), np.uint64)
    other = np.arange(len(ids), dtype=np.uint64) if pairs is None else pairs
    return np.where(to_mask(ids.is_null()), other, known)


def _with_members(table: pa.Table) -> pa.Table:
    """Replace `members` by a column for each of its values that a verdict has."""
    if MEMBERS not in table.column_names:
        return table
    values = table[MEMBERS].combine_chunks()
    table = table.drop_columns(MEMBERS)
    if not pt.is_list(values.type) or not pt.is_struct(kind := values.type.value_type):
        return table  # of another tool
    if not MEMBER_FIELDS.issubset(kind.field(i).name for i in range(kind.num_fields)):
        return table
    for number in range(1, pc.max(pc.list_value_length(values)).as_py() + 1):
        member = pc.list_element(values, number - 1)
        ordered = pc.struct_field(member, "logit_ab").null_count < len(member)
        kinds = ("logit_ab", "logit_ba", "share") if ordered else ("logit",)
        for kind in kinds:
            column = pc.struct_field(member, kind)
            if column.null_count < len(column):
                table = table.append_column(f"{MEMBERS}[{number}].{kind}", column)
    return table


def members_of(table: pa.Table) -> dict[Member, Float64] | None:
    """Return the values of an ensemble's members; None without any, or if a pair lacks one."""
    members = {}
    for name in table.column_names:
        if match := MEMBER_COLUMN.fullmatch(name):
            values = complete_column(table, name)
            if values is None:
                return None
            members[Member(int(match["number"]), cast("MemberValue", match["value"]))] = values
    return members or None


def member_names(source: Source) -> list[str]:
    """Return the judge and the variant of the prompt of each member; empty for a table."""
    record = None if source.run is None else source.run.record
    if not isinstance(record, ScoredRecord):
        return []
    return [f"{judge.name}, {x.name}" for judge in record.judges for x in record.spec.protocols]


def require_single(source: Source, table: pa.Table) -> None:
    """Refuse a table that has several rows per pair, such as those of several judges.

    Raises:
        InputRefused: it does.
    """
    if source.run is not None or "pair_id" not in table.column_names:
        return
    distinct = pc.count_distinct(table["pair_id"], mode="all").as_py()
    if distinct < len(table):
        raise InputRefused(
            f"{len(table):,} rows have {distinct:,} pair_ids: pairs would count several times",
            place=str(source.path),
            remedy="leave one row per pair, of one judge, with both orders in columns",
        )


def describe_missing(table: pa.Table, names: Iterable[str]) -> str:
    """Describe how many rows lack a value that others have, by column; empty if none do."""
    count = len(table)
    missing = {name: table[name].null_count for name in names if name in table.column_names}
    return ", ".join(
        f"{name} in {lacking:,} of {count:,}"
        for name, lacking in missing.items()
        if 0 < lacking < count
    )


def binding(source: Source) -> dict[str, str]:
    """Return what reads depend on: a calibrator of other reads is refused.

    Raises:
        UsageError: a run directory without run.json.
    """
    if source.run is None:
        return {"table": "logit" if "score" in source.columns else "preference"}
    record = source.run.record
    parts: list[Any] = [None]  # an imported run has one judge, and nothing is known of its prompts
    truncation = "none"
    if isinstance(record, ScoredRecord):
        parts = [msgspec.to_builtins(judge.part) for judge in record.judges]
        truncation = record.config.overlong
    forms = json.dumps(parts, sort_keys=True).encode()
    return {
        "fingerprint": record.fingerprint,
        "judge": record.judge,
        "protocol": record.protocol,
        "templates": hashlib.sha256(forms).hexdigest()[:32],
        "truncation": truncation,
    }


def describe_differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Describe how two bindings differ; empty if they do not."""
    return "; ".join(
        f"{key}: {escape(there.get(key, 'none'))} there, {escape(here.get(key, 'none'))} here"
        for key in dict.fromkeys([*there, *here])
        if there.get(key) != here.get(key)
    )


def content_free(source: Source, path: Path) -> float:
    """Return the mean preference of pairs without content, judged like those of the source.

    Raises:
        CalibratorRefused: they were judged differently.
    """
    bare = Source(path, source.columns)
    differences = describe_differences(binding(bare), binding(source))
    if differences:
        raise CalibratorRefused(
            f"the pairs without content were judged differently ({differences})",
            place=str(path),
            remedy="judge them with the same judge, protocol and options",
        )
    pairs = read_comparisons(bare.run or path, bare.columns, ["preference"], raw=True)
    return float(pairs.table["preference"].to_numpy().mean())


def optional_column(table: pa.Table, name: str) -> Float64 | None:
    """Return a column as numbers, NaN for null; None if it is missing or has no value."""
    if name not in table.column_names or table[name].null_count == len(table):
        return None
    return to_floats(table[name])


def complete_column(table: pa.Table, name: str) -> Float64 | None:
    """Return a column as numbers; None if it is missing or lacks a value."""
    values = optional_column(table, name)
    return None if values is None or not np.isfinite(values).all() else values
