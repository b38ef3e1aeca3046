"""Files of instructions alone, such as an evaluation's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from ..errors import InputRefused
from .findings import Findings
from .problems import show
from .roles import NAMES, Roles
from .rows import Limits, find_invalid_utf8
from .shardset import ShardSet, open_shards
from .stream import read

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
            findings = Findings()
            find_invalid_utf8(batch, shards.roles, findings)
            if findings:
                raise InputRefused(
                    "a text is not UTF-8",
                    place=f"{show(batch.shard)}, after row {batch.first}",
                    effect="nothing was written",
                    remedy="correct the file",
                )
            yield from batch.columns["instruction"].drop_null().to_pylist()
