"""Shards -> checked batches, one pass, in order, with bounded memory."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from steelyard.core.arrow import repeat_text
from steelyard.core.background import Prefetch
from steelyard.input.chosen_rows import ChosenRows
from steelyard.input.columns import NOTES
from steelyard.input.conversations import as_messages
from steelyard.input.filesystem import open_file, protocol
from steelyard.input.footer import Footer, decode_fault, require_same
from steelyard.input.images import ImageReader, Keep
from steelyard.input.metadata import fit
from steelyard.input.problems import printable
from steelyard.input.response_lists import RESPONSE_LISTS, single_responses, unpack
from steelyard.input.role_types import SAID, absent, role_type
from steelyard.input.roles import CONVERSATIONS, is_better_side
from steelyard.input.row_groups import Pace, read_group
from steelyard.input.rows import Limits, RawBatch, check
from steelyard.input.shardset import Shard, ShardSet
from steelyard.input.types import cast

_FIRST_ROWS = 64
_FIRST_PICTURED = 4  # rows with images may hold 128 MiB each
_AHEAD = 2  # batches decoded during the work on those before; decoding takes a third of planning
_EFFECT = "the pass over the inputs stopped there; nothing was scored"
_SEVERAL_TYPES = ("gold", "images", "criteria", *CONVERSATIONS, *RESPONSE_LISTS)


def read(shards: ShardSet, limits: Limits, start: tuple[int, int] = (0, 0)) -> Generator[RawBatch]:
    """Read the rows of all shards, unchecked, decoded in a thread; arguments as for `stream`."""
    first = _FIRST_PICTURED if "images" in shards.roles else _FIRST_ROWS
    pace = Pace(first, limits.batch_rows, limits.batch_bytes)
    rows = _read_all(shards, pace, start)
    # Arrow decodes without Python's lock.
    with closing(Prefetch(rows, ahead=_AHEAD, name="shard-reader")) as batches:
        yield from batches


def stream(
    shards: ShardSet,
    limits: Limits | None = None,
    start: tuple[int, int] = (0, 0),
    keep_image: Keep | None = None,
    chosen: ChosenRows | None = None,
) -> Generator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Read and check all rows of all shards, in the order of shards and rows.

    Memory holds a few batches and a page of each column, however large a row group is: batches
    begin with few rows and grow up to `limits.batch_bytes` and `limits.batch_rows`. A batch
    exceeds these bytes only where rows suddenly become longer. A thread decodes the next batches
    while the caller is at work; close the iterator to end it early.

    Args:
        shards: from `open_shards`.
        limits: the defaults if None.
        start: number of a shard and of a row in it; what comes before its row group is left out.
        keep_image: given digest and bytes of every image of the rows, each once.
        chosen: the rows to check, where they are not all.

    Yields:
        (rows of `shards.schema`, REJECTS), either may have no rows; every row of the shards is
        in exactly one of them, once.

    Raises:
        InputRefused: a shard changed since it was opened, also while it is read, cannot be decoded
            or holds fewer rows than its footer says; or a row is bad and `limits.on_bad_row` is
            "fail".
        EnvironmentFault: the disk or the network failed.
    """
    limits = limits or Limits()
    images, schema = ImageReader(keep_image), shards.schema
    roles, required = single_responses(shards.roles, shards.required)
    with closing(read(shards, limits, start)) as batches:
        rows: Iterable[RawBatch] = batches if chosen is None else chosen.of(batches)
        for batch in rows if roles is shards.roles else unpack(rows, limits):
            yield check(batch, roles, schema, limits, required, images=images)


def _read_all(shards: ShardSet, pace: Pace, start: tuple[int, int]) -> Generator[RawBatch]:
    for number, shard in enumerate(shards.shards[start[0] :]):
        yield from _read(shard, shards, pace, 0 if number else start[1])


def _read(shard: Shard, shards: ShardSet, pace: Pace, start: int) -> Iterator[RawBatch]:
    footer = _same_footer(shard)
    columns = {*shards.roles.values(), *shards.metadata.names, NOTES}
    group = 0
    try:
        with open_file(shard.source.path) as file:
            first = 0
            for group, facts in enumerate(footer.groups):
                if first + facts.rows <= start:
                    first += facts.rows
                    continue
                for batch in read_group(file, footer, group, columns, pace):
                    raw = _raw(shard, shards, footer, first, batch)
                    first += len(raw)
                    arrays = (*raw.columns.values(), *raw.metadata.values())
                    pace.seen(len(raw), sum(array.nbytes for array in arrays))
                    yield raw
    except Exception as error:  # drivers raise what their client libraries raise
        _same_footer(shard)  # one that shrank or was replaced is not damaged
        place = f"{printable(shard.name)}, row group {group}"
        raise decode_fault(place, error, effect=_EFFECT) from error
    _same_footer(shard)


def _same_footer(shard: Shard) -> Footer:
    """Return the shard's footer, which must be what it was when the inputs were checked."""
    return require_same(shard.source, shard.digest, _EFFECT)


def _raw(
    shard: Shard, shards: ShardSet, footer: Footer, first: int, batch: pa.RecordBatch
) -> RawBatch:
    """Return the batch's columns by role, in the types settled when the shards were opened."""
    rows = len(batch)
    values = {name: batch.column(i) for i, name in enumerate(batch.schema.names)}
    types = {field.name: field.type for field in footer.schema}  # some are dictionaries in `batch`
    for name, value in shard.partitions:
        values[name] = pa.repeat(pa.scalar(value, pa.string()), rows)
        types[name] = pa.string()
    columns = {}
    for role, name in shards.roles.items():
        if is_better_side(role, shards.roles):
            columns[role] = repeat_text("A", rows)
            continue
        kind = role_type(role, types[name])
        if role in SAID and pt.is_list(kind):
            columns[role] = cast(as_messages(values[name]), kind)
        elif not pt.is_null(kind):
            columns[role] = cast(values[name], kind)
        elif role not in _SEVERAL_TYPES:  # these are left out
            columns[role] = absent(role, rows)
    metadata, unfit = {}, {}
    for field in shards.metadata:
        metadata[field.name], bad = fit(values[field.name], field.type)
        if bad is not None:
            unfit[field.name] = bad
    path = shard.source.origin or shard.source.path
    folder = None if protocol(path) else str(Path(path).parent)
    notes = values.get(NOTES) if footer.noted else None
    numbers = np.arange(first, first + rows)
    return RawBatch(shard.name, numbers, columns, metadata, folder, unfit, notes)
