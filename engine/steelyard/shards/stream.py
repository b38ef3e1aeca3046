"""Shards -> checked batches, one pass, in order, with bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from ..errors import InputRefused, SteelyardError, escape
from .columns import cast, role_type
from .files import disk_fault, is_disk_fault, open_file, remote_fault
from .footer import DECODE_ERRORS, Footer, read_footer
from .problems import RefusalError, refusal, show
from .roles import VOTES
from .rows import Limits, RawBatch, check
from .shardset import Shard, ShardSet

_FIRST_ROWS = 64
_GROWTH = 4
_BUFFER = 1 << 18  # bytes read ahead of each column
_EFFECT = "the pass over the inputs stopped there; nothing was scored"
_ABSENT = dict.fromkeys(VOTES, pa.float64())


def stream(
    shards: ShardSet, limits: Limits | None = None
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Read and check all rows of all shards, in the order of shards and rows.

    Memory holds one batch and a page of each column, however large a row group is: batches begin
    with few rows and grow up to `limits.batch_bytes` and `limits.batch_rows`. A batch exceeds
    these bytes only where rows suddenly become longer.

    Args:
        shards: from `open_shards`.
        limits: the defaults where None.

    Yields:
        (rows of `shards.schema`, REJECTS), either may have no rows; every row of the shards is
        in exactly one of them, once.

    Raises:
        InputRefused: a shard changed since it was opened, cannot be decoded or holds fewer rows
            than its footer says; or a row is bad and `limits.on_bad_row` is "fail".
        EnvironmentFault: the disk or the network failed.
    """
    limits = limits or Limits()
    pace = _Pace(limits)
    for shard in shards.shards:
        for batch in _read(shard, shards, pace):
            yield check(batch, shards.roles, shards.schema, limits)


class _Pace:
    """How many rows to ask for next, from what the rows before have taken."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.rows = min(_FIRST_ROWS, limits.batch_rows)

    def seen(self, batch: RawBatch) -> None:
        """Adapt to what this batch has taken."""
        size = sum(x.nbytes for x in (*batch.columns.values(), *batch.metadata.values()))
        fitting = self.limits.batch_bytes * batch.rows // max(size, 1)
        self.rows = max(1, min(fitting, self.rows * _GROWTH, self.limits.batch_rows))


def _read(shard: Shard, shards: ShardSet, pace: _Pace) -> Iterator[RawBatch]:
    footer = _same_footer(shard)
    group = 0
    try:
        with open_file(shard.source.path) as file:
            reader = pq.ParquetFile(
                file,
                metadata=footer.metadata,
                pre_buffer=False,  # it would load whole row groups
                buffer_size=_BUFFER,
                page_checksum_verification=True,
            )
            first = 0
            for group, facts in enumerate(footer.groups):
                for batch in _read_group(reader, group, facts.rows, pace):
                    raw = _raw(shard, shards, first, batch)
                    first += raw.rows
                    pace.seen(raw)
                    # pyarrow looks at it before each batch: the one way to size them singly.
                    reader.reader.set_batch_size(pace.rows)
                    yield raw
    except Exception as error:  # drivers raise what their client libraries raise
        raise _fault(shard, group, error) from error


def _same_footer(shard: Shard) -> Footer:
    try:
        footer = read_footer(shard.source)
    except RefusalError as refused:
        raise refusal([refused.problem]) from refused
    if footer.digest != shard.digest:
        raise InputRefused(
            "the file changed after the inputs were checked",
            place=show(shard.name),
            effect=_EFFECT,
            remedy="start again, and leave the inputs alone while they are read",
        )
    return footer


def _read_group(
    reader: pq.ParquetFile, group: int, rows: int, pace: _Pace
) -> Iterator[pa.RecordBatch]:
    seen = 0
    for batch in reader.iter_batches(pace.rows, row_groups=[group]):
        seen += len(batch)
        yield batch
    if seen != rows:
        raise ValueError(f"it holds {seen:,} of the {rows:,} rows that the footer promises")


def _raw(shard: Shard, shards: ShardSet, first: int, batch: pa.RecordBatch) -> RawBatch:
    """The batch's columns by role, in the types settled when the shards were opened."""
    rows = len(batch)
    found = {name: batch.column(i) for i, name in enumerate(batch.schema.names)}
    for name, value in shard.partitions:
        found[name] = pa.repeat(pa.scalar(value, pa.string()), rows)
    columns = {}
    for role, name in shards.roles.items():
        kind = role_type(role, found[name].type)
        if not pt.is_null(kind):
            columns[role] = cast(found[name], kind)
        elif role not in ("gold", "turns"):  # these may take several types, and are absent here
            columns[role] = pa.nulls(rows, _ABSENT.get(role, pa.string()))
    metadata = {field.name: cast(found[field.name], field.type) for field in shards.metadata}
    return RawBatch(shard.name, first, rows, columns, metadata)


def _fault(shard: Shard, group: int, error: Exception) -> SteelyardError:
    if isinstance(error, SteelyardError):
        return error
    place = f"{show(shard.name)}, row group {group}"
    if is_disk_fault(error):
        return disk_fault(place, error)
    if not isinstance(error, DECODE_ERRORS):
        return remote_fault(place, error)
    first = str(error).partition("\n")[0] or type(error).__name__
    return InputRefused(
        f"the data cannot be read: {escape(first, 200)}",
        place=place,
        effect=_EFFECT,
        remedy="write the file again, or leave it out",
    )
