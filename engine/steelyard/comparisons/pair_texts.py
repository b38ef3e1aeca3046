"""The texts of a few pairs of a run, from its own shards."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa

from steelyard.core.arrow import to_ints
from steelyard.core.schemas import READ_FROM
from steelyard.input import Limits, ShardSet, stream
from steelyard.store.run_input import reopen_input
from steelyard.store.run_record import RunRecord, ScoredRecord
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import Connection
from steelyard.store.verdicts.database import open_sql

Place = tuple[str, int]  # shard and row of a pair, as in `verdicts`
Address = tuple[str, int, int | None]  # a shard's name, a row in it, and the item of a list
ROLES = (
    "instruction", "response_a", "response_b", "system", "turns", "turns_a", "turns_b",
    "reference", "criteria",
)  # fmt: skip
_OF_SECOND = {"response_b": "response_a", "turns_b": "turns_a"}  # where it is in its own row
NEAR = 20_000  # rows to read on for the next pair; beyond, its row group is looked up
_ADDRESSES = f"""
SELECT shard, "row", {", ".join(f"metadata.{name}" for name in READ_FROM)}
FROM verdicts WHERE (shard, "row") IN (SELECT unnest(?), unnest(?))"""  # noqa: S608 - constants


def are_paired(record: RunRecord) -> bool:
    """Return whether the pairs of a run were made of rows of single responses."""
    return isinstance(record, ScoredRecord) and record.config.pairs is not None


def addresses_of(
    connection: Connection, record: RunRecord, places: Collection[Place]
) -> dict[Place, list[Address]]:
    """Return the rows in which the texts of pairs are: one each, or one per response."""
    if not are_paired(record) or not places:
        return {place: [(*place, None)] for place in places}
    columns = [list(column) for column in zip(*places, strict=True)]
    rows = connection.sql(_ADDRESSES, params=columns).to_arrow_table().to_pylist()
    return {
        (row["shard"], row["row"]): [tuple(row[name].values()) for name in READ_FROM if row[name]]
        for row in rows
    }


def texts_of_pairs(
    snapshot: RunSnapshot, places: Collection[Place], *, remote: bool = False
) -> dict[Place, dict[str, Any]]:
    """Return the texts of pairs of a run; arguments and errors as of `pair_texts`."""
    if not are_paired(snapshot.record):
        return pair_texts(
            snapshot.record, {place: [(*place, None)] for place in places}, remote=remote
        )
    with open_sql(snapshot) as connection:
        addresses = addresses_of(connection, snapshot.record, places)
    return pair_texts(snapshot.record, addresses, remote=remote)


def pair_texts(
    record: RunRecord, addresses: Mapping[Place, Sequence[Address]], *, remote: bool = False
) -> dict[Place, dict[str, Any]]:
    """Return the texts of pairs of a run, from its shards, as Python values by role (ROLES).

    Args:
        record: of the run.
        addresses: where the texts of each pair are, from `addresses_of`.
        remote: whether files may be fetched from addresses that the run names.

    Returns:
        Texts by place. A row that the shards do not hold, or that is refused, is missing.

    Raises:
        UsageError: the run has no texts, or they may not be fetched.
        InputRefused: the shards are missing or have changed.
    """
    shards, limits = reopen_input(record, otherwise="do without texts", remote=remote)
    numbers = {shard.name: number for number, shard in enumerate(shards.shards)}
    rows = {(shard, row) for each in addresses.values() for shard, row, _ in each}
    wanted = sorted((numbers[shard], row) for shard, row in rows if shard in numbers)
    held: dict[Address, dict[str, Any]] = {}
    while wanted:
        wanted = wanted[_read_near(shards, limits, wanted, held) :]
    texts = {}
    for place, (first, *second) in addresses.items():
        if all(address in held for address in (first, *second)):
            texts[place] = dict(held[first])
            for address in second:
                for role, own in _OF_SECOND.items():
                    texts[place][role] = held[address][own]
    return texts


def _read_near(
    shards: ShardSet,
    limits: Limits,
    wanted: list[tuple[int, int]],
    texts: dict[Address, dict[str, Any]],
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
            chosen = rows.select(["shard", "row", "item", *ROLES]).take(pa.array(index))
            for values in chosen.to_pylist():
                texts[values.pop("shard"), values.pop("row"), values.pop("item")] = values
            seen += len(here)
            if seen == len(mine) or mine[seen] > end + NEAR:
                return seen
    return len(mine)


def _shard_of(rows: pa.RecordBatch, rejects: pa.RecordBatch) -> str:
    return str((rows if len(rows) else rejects)["shard"][0].as_py())
