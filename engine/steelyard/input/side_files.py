"""Files besides the shards: responses and instructions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from steelyard.errors import InputRefused
from steelyard.input.conversations import as_texts
from steelyard.input.problems import RowProblems, printable
from steelyard.input.roles import RESPONSES
from steelyard.input.rows import Limits, RawBatch, find_invalid_utf8, without
from steelyard.input.shardset import ShardSet
from steelyard.input.stream import read
from steelyard.statistics.clusters import instruction_ids

_TEXTS = ("instruction", "system", "model", "response")


def stream_responses(shards: ShardSet) -> Iterator[pa.Table]:
    """Yield batches of instruction_id, instruction, system, model and response, in their order.

    `shards` are opened as RESPONSES: the texts of verdicts that were imported.
    `instruction_id` is the given one, or the hash of the instruction, as in verdicts. Rows that
    lack a text, or have one that is not UTF-8, are left out: their verdicts have no text.
    """
    with closing(read(shards, Limits())) as batches:
        for batch in batches:
            problems = RowProblems(batch.numbers)
            find_invalid_utf8(batch.named(shards.roles), problems)
            clean = _texts(without(batch, problems), shards, problems)
            named = clean.columns.get("instruction_id", clean.columns["instruction"])
            columns = {
                name: clean.columns.get(name, pa.nulls(len(clean), pa.string())) for name in _TEXTS
            }
            columns["model"] = pc.utf8_trim_whitespace(columns["model"])
            rows = pa.table({"instruction_id": instruction_ids(named), **columns})
            valid = [rows[role].is_valid() for role in RESPONSES.required]
            yield rows.filter(reduce(pc.and_, valid))


def read_instructions(shards: ShardSet) -> Iterator[str]:
    """Yield the instructions of shards that are opened as INSTRUCTIONS; nulls are left out.

    Raises:
        InputRefused: a text is not UTF-8.
    """
    with closing(read(shards, Limits())) as batches:
        for batch in batches:
            problems = RowProblems(batch.numbers)
            find_invalid_utf8(batch.named(shards.roles), problems)
            if problems:
                raise InputRefused(
                    "a text is not UTF-8",
                    place=f"{printable(batch.shard)}, row {problems.bad_rows()[0]}",
                    remedy="correct the file",
                )
            clean = _texts(batch, shards, problems)
            yield from clean.columns["instruction"].drop_null().to_pylist()


def _texts(batch: RawBatch, shards: ShardSet, problems: RowProblems) -> RawBatch:
    """Return the rows whose instructions are texts, or messages that end with one."""
    columns = as_texts(batch.columns, shards.roles, problems)
    return without(replace(batch, columns=columns), problems)
