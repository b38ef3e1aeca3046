"""Files of responses, a row a response: where the texts of verdicts stand that were imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from steelyard.errors import InputRefused
from steelyard.input.problems import RowProblems, printable
from steelyard.input.roles import NAMES, Roles
from steelyard.input.rows import Limits, find_invalid_utf8, without
from steelyard.input.shardset import ShardSet, open_shards
from steelyard.input.stream import read
from steelyard.statistics.clusters import instruction_ids

RESPONSES = Roles(
    names={
        "instruction_id": ("instruction_id",),
        "instruction": NAMES["instruction"],
        "system": NAMES["system"],
        "model": ("model", "generator"),
        "response": ("response", "output"),
    },
    required=("instruction", "model", "response"),
)
_TEXTS = ("instruction", "system", "model", "response")


def open_responses(inputs: Sequence[str], columns: Mapping[str, str] | None = None) -> ShardSet:
    """Files of responses; see `open_shards`."""
    return open_shards(inputs, columns, RESPONSES)


def stream_responses(shards: ShardSet) -> Iterator[pa.Table]:
    """Batches of instruction_id, instruction, system, model and response, in their order.

    `instruction_id` is the given one, or the hash of the instruction, as in verdicts. Rows that
    lack a text, or have one that is not UTF-8, are left out: their verdicts find no text.
    """
    with closing(read(shards, Limits())) as batches:
        for batch in batches:
            findings = RowProblems()
            find_invalid_utf8(batch, shards.roles, findings)
            clean, _ = without(batch, findings)
            named = clean.columns.get("instruction_id", clean.columns["instruction"])
            columns = {
                name: clean.columns.get(name, pa.nulls(clean.rows, pa.string())) for name in _TEXTS
            }
            columns["model"] = pc.utf8_trim_whitespace(columns["model"])
            rows = pa.table({"instruction_id": instruction_ids(named), **columns})
            valid = [rows[role].is_valid() for role in RESPONSES.required]
            yield rows.filter(reduce(pc.and_, valid))


INSTRUCTIONS = Roles(names={"instruction": NAMES["instruction"]}, required=("instruction",))


def open_instructions(inputs: Sequence[str], column: str | None = None) -> ShardSet:
    """Parquet files of instructions.

    Args:
        inputs: files, folders or patterns.
        column: of the instructions, if its name does not say it.

    Raises:
        InputRefused: a file cannot be read, or has no such column.
    """
    return open_shards(inputs, {"instruction": column} if column else None, INSTRUCTIONS)


def read_instructions(shards: ShardSet) -> Iterator[str]:
    """Their instructions; nulls are left out.

    Raises:
        InputRefused: a text is not UTF-8.
    """
    with closing(read(shards, Limits())) as batches:
        for batch in batches:
            findings = RowProblems()
            find_invalid_utf8(batch, shards.roles, findings)
            if findings:
                raise InputRefused(
                    "a text is not UTF-8",
                    place=f"{printable(batch.shard)}, after row {batch.first}",
                    remedy="correct the file",
                )
            yield from batch.columns["instruction"].drop_null().to_pylist()
