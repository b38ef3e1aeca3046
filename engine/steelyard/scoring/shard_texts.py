"""Where a bucket's texts come from: the copy in the plan, or once more the shards."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from typing_extensions import override

from steelyard.core.arrow import offsets_of, to_ints, to_mask
from steelyard.core.batches import Planned, PlannedResponses
from steelyard.core.schemas import READ_FROM, TEXTS, Int64
from steelyard.errors import InputRefused, IntegrityFault
from steelyard.input import PROMPT_ROLES, Limits, ShardSet, stream
from steelyard.plan.keys import plan_batch
from steelyard.plan.pairing import NO_RESPONSE
from steelyard.plan.responses import pair_texts, pair_up, plan_responses
from steelyard.plan.spec import KeySpec
from steelyard.store.plan.buckets import BucketTexts, CopiedBucketTexts
from steelyard.store.plan.files import PAIRS_FILE, Manifest, require_plan_file
from steelyard.store.rundir import RunDir

SCORE_ANEW = "score what is there now into a new run directory with `--reuse` of this one"
_ITEMS = 1 << 32  # items that no list has
_SHARD = 1 << 40  # rows that no shard has: a pair's position is shard * _SHARD + row


def open_texts(
    run: RunDir, manifest: Manifest, shards: ShardSet | None, key_spec: KeySpec, limits: Limits
) -> BucketTexts:
    """Open the texts of a plan; its shards are needed where `manifest.in_shards`."""
    if not manifest.in_shards:
        return CopiedBucketTexts(partial(require_plan_file, run, manifest), manifest.unique)
    assert shards is not None  # noqa: S101 - the caller's duty
    made = PlannedResponseRows if paired(manifest) else PlannedShards
    return made(run, manifest, shards, key_spec, limits)


def paired(manifest: Manifest) -> bool:
    """Return whether the pairs were made of rows of single responses."""
    return set(READ_FROM) <= set(manifest.metadata)


class PlannedShards(BucketTexts):
    """Reads buckets from the shards in sequence, and checks the rows as for the plan."""

    def __init__(
        self, run: RunDir, manifest: Manifest, shards: ShardSet, key_spec: KeySpec, limits: Limits
    ) -> None:
        roles = {role: name for role, name in shards.roles.items() if role in PROMPT_ROLES}
        self._shards = replace(shards, roles=roles, metadata=pa.schema([]))
        self._numbers = pa.array([shard.name for shard in shards.shards])
        self._key_spec, self._limits = key_spec, replace(limits, on_bad_row="reject")
        self._pairs = pq.ParquetFile(require_plan_file(run, manifest, f"plan/{PAIRS_FILE}"))
        self._starts = offsets_of(manifest.ranges).tolist()
        meta = self._pairs.metadata
        rows = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
        self._groups = offsets_of(rows).tolist()  # where row groups of pairs begin
        self._next = -1  # the bucket that comes next in `_rows`
        self._rows = self._from(0)
        self._rest: tuple[Int64, Planned | PlannedResponses] | None = (
            None  # a batch that ends after that bucket
        )

    @override
    def texts(self, bucket: int) -> pa.Table:
        planned = self._planned(bucket, "shard", "row")
        positions = self._positions(planned)
        self._go_to(bucket, int(positions[0]))
        texts = self._select(positions)
        self._require_same(texts, planned, positions)
        return texts

    @override
    def close(self) -> None:
        self._rows.close()
        self._pairs.close()

    def _go_to(self, bucket: int, position: int) -> None:
        """Begin again at a position, unless the bucket before this one was read last."""
        if bucket != self._next:
            self._rows.close()
            self._rows, self._rest = self._from(position), None
        self._next = bucket + 1

    def _require_same(self, texts: pa.Table, planned: pa.Table, positions: Int64) -> None:
        """Require the keys that were planned; `positions` are those of the rows."""
        if not texts["keys"].equals(planned["keys"]):
            now, then = (table["keys"].to_pylist() for table in (texts, planned))
            differs = next(row for row, keys in enumerate(now) if keys != then[row])
            raise self._changed(int(positions[differs]), "the row has changed")

    def _planned(self, bucket: int, *columns: str) -> pa.Table:
        """Return some columns of a bucket's pairs, and their keys."""
        start, end = self._starts[bucket : bucket + 2]
        first = bisect_right(self._groups, start) - 1
        groups = range(first, bisect_left(self._groups, end))
        named = [*columns, "keys"]
        table = self._pairs.read_row_groups(groups, columns=named, use_threads=False)
        return table.slice(start - self._groups[first], end - start)

    def _positions(self, rows: pa.Table | pa.RecordBatch) -> Int64:
        """Return where rows are in the sequence of all rows; ascending."""
        shard = pc.index_in(rows["shard"], value_set=self._numbers)
        return to_ints(shard) * _SHARD + to_ints(rows["row"])

    def _from(self, position: int) -> Generator[tuple[Int64, Planned | PlannedResponses]]:
        """Read rows from the row group of a position on."""
        shard, row = divmod(position, _SHARD)
        with closing(stream(self._shards, self._limits, (shard, row))) as batches:
            for intake, _ in batches:
                if len(intake):
                    yield self._positions(intake), self._plan(intake)

    def _plan(self, intake: pa.RecordBatch) -> Planned | PlannedResponses:
        return plan_batch(intake, self._key_spec)

    def _select(self, positions: Int64) -> pa.Table:
        """Return the rows at these positions; rows between them were refused, and are again."""
        batches: list[pa.RecordBatch] = []
        done = 0
        while done < len(positions):
            here, rows = self._rest or self._read(int(positions[done]))
            end = done + int(np.searchsorted(positions[done:], here[-1], "right"))
            index = np.searchsorted(here, positions[done:end])
            if np.any(here[index] != positions[done:end]):
                raise self._changed(int(positions[done]), "a row that was good is refused now")
            batches.append(rows.texts.take(pa.array(index)))
            done = end
            self._rest = (here, rows) if done == len(positions) else None
        return pa.Table.from_batches(batches, TEXTS)

    def _read(self, position: int) -> tuple[Int64, Planned | PlannedResponses]:
        try:
            return next(self._rows)
        except StopIteration:
            raise self._changed(position, "rows are missing") from None
        except InputRefused as refused:
            raise self._changed(position, refused.cause) from refused

    def _changed(self, position: int, cause: str) -> IntegrityFault:
        shard, row = divmod(position, _SHARD)
        return IntegrityFault(
            f"the shard changed since it was planned: {cause}",
            place=f"{self._shards.shards[shard].source.path}, near row {row}",
            effect="its pairs cannot be judged by this plan; the reads that are there are intact",
            remedy=f"put the shards back as they were and resume, or {SCORE_ANEW}",
        )


class PlannedResponseRows(PlannedShards):
    """The same of pairs that were made of single responses, whose rows are read once per bucket."""

    @override
    def texts(self, bucket: int) -> pa.Table:
        planned = self._planned(bucket, "metadata")
        addresses = [
            pc.struct_field(planned["metadata"].combine_chunks(), name) for name in READ_FROM
        ]
        places = [self._places(address) for address in addresses]
        there = [to_mask(address.is_valid()) for address in addresses]
        wanted = np.unique(
            np.concatenate([place[mask] for (place, _), mask in zip(places, there, strict=True)])
        )
        self._go_to(bucket, int(wanted[0]))
        rows, texts, held = self._collect(wanted)
        index = []
        for (place, item), mask in zip(places, there, strict=True):
            number = np.searchsorted(wanted, place) * _ITEMS + item
            position = np.minimum(np.searchsorted(held, number), len(held) - 1)
            missing = mask & (held[position] != number)
            if missing.any():
                raise self._changed(int(place[missing][0]), "a row that was good is refused now")
            index.append(np.where(mask, position, NO_RESPONSE))
        keys = pair_up(rows, index[0], index[1], self._key_spec).pairs["keys"]
        made = pair_texts(texts, index[0], index[1], keys)
        self._require_same(made, planned, places[0][0])
        return made

    @override
    def _plan(self, intake: pa.RecordBatch) -> PlannedResponses:
        return plan_responses(intake)

    def _places(self, address: pa.StructArray) -> tuple[Int64, Int64]:
        """Return position of each address's row, and its item."""
        fields = {name: pc.struct_field(address, name) for name in ("shard", "row", "item")}
        return self._positions(pa.record_batch(fields)), to_ints(fields["item"])

    def _collect(self, wanted: Int64) -> tuple[pa.RecordBatch, pa.RecordBatch, Int64]:
        """Return the rows at these positions, their texts, and numbers by which to find them."""
        parts: list[PlannedResponses] = []
        numbers: list[Int64] = []
        last, end = int(wanted[-1]), -1
        while end < last:
            here, rows = self._rest or self._read(last)
            assert isinstance(rows, PlannedResponses)  # noqa: S101 - made by `_plan`
            end = int(here[-1])
            self._rest = (here, rows) if end > last else None
            kept = np.isin(here, wanted)
            parts.append(rows.filter(kept))
            items = to_ints(parts[-1].rows["item"])
            numbers.append(np.searchsorted(wanted, here[kept]) * _ITEMS + items)
        rows_of, texts_of = (
            pa.concat_batches([getattr(part, name) for part in parts]) for name in ("rows", "texts")
        )
        return rows_of, texts_of, np.concatenate(numbers)
