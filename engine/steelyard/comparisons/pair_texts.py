"""The texts of a few pairs of a run, from its own shards."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa

from steelyard.core.arrow import to_ints
from steelyard.input import Limits, ShardSet, stream
from steelyard.store.run_input import reopen_input
from steelyard.store.run_record import RunRecord

Place = tuple[str, int]  # a shard's name, and a row in it
ROLES = (
    "instruction", "response_a", "response_b", "system", "turns", "turns_a", "turns_b",
    "reference", "criteria",
)  # fmt: skip
NEAR = 20_000  # rows to read on for the next pair; beyond, its row group is looked up


def pair_texts(
    record: RunRecord, places: Collection[Place], *, remote: bool = False
) -> dict[Place, dict[str, Any]]:
    """Return the texts of these rows of a run's shards, as Python values by role (ROLES).

    Args:
        record: of the run.
        places: shard and row of each pair, as in `verdicts`.
        remote: whether files may be fetched from addresses that the run names.

    Returns:
        Texts by place. A row that the shards do not hold, or that is refused, is missing.

    Raises:
        UsageError: the run has no texts, or they may not be fetched.
        InputRefused: the shards are missing or have changed.
    """
    shards, limits = reopen_input(record, otherwise="do without texts", remote=remote)
    numbers = {shard.name: number for number, shard in enumerate(shards.shards)}
    wanted = sorted({(numbers[shard], row) for shard, row in places if shard in numbers})
    texts: dict[Place, dict[str, Any]] = {}
    while wanted:
        wanted = wanted[_read_near(shards, limits, wanted, texts) :]
    return texts


def _read_near(
    shards: ShardSet,
    limits: Limits,
    wanted: list[tuple[int, int]],
    texts: dict[Place, dict[str, Any]],
) -> int:
    """Read from the first wanted row on, while the next one is near; return how many were seen."""
    number, seen = wanted[0][0], 0
    mine = [row for shard, row in wanted if shard == number]
    with closing(stream(shards, limits, wanted[0])) as batches:
        for rows, rejects in batches:
            if _shard_of(rows, rejects) != shards.shards[number].name:
                return len(mine)  # rows that this shard does not have
            held = to_ints(rows["row"])
            end = max(int(part["row"][-1].as_py()) for part in (rows, rejects) if len(part))
            here = [row for row in mine[seen:] if row <= end]
            index = np.flatnonzero(np.isin(held, here))
            for values in rows.select(["shard", "row", *ROLES]).take(pa.array(index)).to_pylist():
                texts[values.pop("shard"), values.pop("row")] = values
            seen += len(here)
            if seen == len(mine) or mine[seen] > end + NEAR:
                return seen
    return len(mine)


def _shard_of(rows: pa.RecordBatch, rejects: pa.RecordBatch) -> str:
    return str((rows if len(rows) else rejects)["shard"][0].as_py())
