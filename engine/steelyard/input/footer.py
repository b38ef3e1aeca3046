"""Reads what a Parquet file claims about itself, and checks whether that can be true."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from steelyard.errors import InputRefused, SteelyardError, escape
from steelyard.input.columns import NOTES
from steelyard.input.discover import Source
from steelyard.input.filesystem import disk_fault, open_file, protocol, remote_fault
from steelyard.input.formats import SUFFIXES
from steelyard.input.problems import printable
from steelyard.input.thrift import Chunk, RowGroup, row_groups

MAGIC = b"PAR1"
# Key of the digest in the footer of a file that was made of another (`convert`).
CONVERTED = b"steelyard.converted"
# INT96 names no unit; its writers mean microseconds, and years that nanoseconds do not reach.
INT96_UNIT = "us"
_TAIL = 1 << 16  # most footers come with the first read
_RENAME = f"give the file the usual ending of its format ({SUFFIXES}), such as .jsonl"
_AGAIN = "write the file again, or leave it out"
# What pyarrow raises for bytes that are not good Parquet, seen by mutating files.
DECODE_ERRORS = (pa.ArrowException, OSError, ValueError, MemoryError, LookupError, OverflowError)


@dataclass(frozen=True, slots=True)
class Footer:
    """The footer of one shard, checked for what a reader relies on."""

    source: Source
    size: int  # bytes of the file
    digest: bytes  # xxh3_128 of size and footer: changes when the file is written again
    metadata: pq.FileMetaData
    schema: pa.Schema  # of the file's own columns, without NOTES
    rows: int  # that the footer promises
    groups: tuple[RowGroup, ...]
    noted: bool = False  # whether it has the column NOTES too


def read_footer(source: Source) -> Footer:
    """Read and check one file's footer: two small reads.

    Raises:
        InputRefused: the file is not a whole, plausible Parquet file.
        EnvironmentFault: the disk or the network fails.
    """
    try:
        with open_file(source.path) as file:
            size, raw = _tail(source, file)
    except SteelyardError:
        raise
    except Exception as error:  # drivers raise what their client libraries raise
        raise _unreadable(source, error) from error
    footer = _parse(source, size, raw)
    _check(footer)
    return footer


def require_same(source: Source, digest: bytes, effect: str | None = None) -> Footer:
    """Return a file's footer, which must have the digest that it had when the file was checked.

    Raises:
        InputRefused: it has another one, or the file is gone, cut or no longer Parquet.
        EnvironmentFault: the disk or the network fails.
    """
    try:
        footer = read_footer(source)
    except InputRefused as refused:
        refused.effect = effect or refused.effect
        raise
    if footer.digest != digest:
        raise InputRefused(
            "the file changed after the inputs were checked",
            place=printable(source.name),
            effect=effect,
            remedy="start again, and leave the inputs alone while they are read",
        )
    return footer


def _tail(source: Source, file: pa.NativeFile) -> tuple[int, bytes]:
    size = file.size()
    if size == 0:
        raise _refused(source, "the file is empty (0 bytes)")
    tail = file.read_at(min(size, _TAIL), max(0, size - _TAIL))
    head = file.read_at(min(size, 4), 0)
    if tail[-4:] == b"PARE" or head == b"PARE":
        raise _refused(source, "the file is encrypted", "write it without encryption")
    if head != MAGIC and file.read_at(min(size, 12), 0)[8:] == b"DUCK":
        table = f"name one of its tables: {printable(source.name)}::TABLE"
        raise _refused(source, "this is a DuckDB database", table)
    if head != MAGIC:
        raise _refused(source, f"not a Parquet file; it begins with {_shown(head)}", _RENAME)
    if tail[-4:] != MAGIC or size < 12:
        raise _refused(source, "the file is truncated: it has no Parquet footer at its end")
    length = int.from_bytes(tail[-8:-4], "little")
    if length + 12 > size:
        raise _refused(
            source, f"the file is damaged: it claims a footer of {length:,} bytes in {size:,}"
        )
    if length + 8 > len(tail):
        tail = file.read_at(length + 8, size - length - 8)
    return size, bytes(tail[-(length + 8) :])


def _shown(data: bytes) -> str:
    return escape(repr(data)[2:-1])


def _parse(source: Source, size: int, raw: bytes) -> Footer:
    try:
        rows, groups = row_groups(raw[:-8])
        # A footer's offsets are not followed here, so a file of the footer alone will do.
        content = pa.BufferReader(MAGIC + raw)
        file = pq.ParquetFile(content, coerce_int96_timestamp_unit=INT96_UNIT)
        schema = file.schema_arrow
        str(schema)  # raises for names that are not UTF-8
    except DECODE_ERRORS as error:
        first = escape(str(error).partition("\n")[0], 200)
        raise _refused(source, f"the Parquet footer cannot be read: {first}") from error
    digest = xxhash.xxh3_128_digest(size.to_bytes(8, "little") + raw)
    if source.origin:  # what counts is the file that it was made of
        digest = _digest_of(file.metadata, digest)
    noted = bool(source.origin) and NOTES in schema.names
    schema = pa.schema([field for field in schema if not (noted and field.name == NOTES)])
    return Footer(source, size, digest, file.metadata, schema, rows, groups, noted)


def _digest_of(metadata: pq.FileMetaData, otherwise: bytes) -> bytes:
    stored = (metadata.metadata or {}).get(CONVERTED, b"")
    try:
        return bytes.fromhex(stored.decode()) or otherwise
    except ValueError:
        return otherwise


def _check(footer: Footer) -> None:
    source, leaves = footer.source, footer.metadata.num_columns
    total = 0
    for number, group in enumerate(footer.groups):
        if group.rows < 0 or len(group.chunks) != leaves:
            claim = f"{group.rows} rows in {len(group.chunks)} of {leaves} columns"
            raise _lie(source, f"row group {number} has {claim}")
        total += group.rows
        for column, chunk in enumerate(group.chunks):
            _check_chunk(footer, group.rows, chunk, (number, column))
    if not total == footer.rows == footer.metadata.num_rows:
        raise _lie(source, f"it claims {footer.rows:,} rows, its row groups {total:,}")


def _check_chunk(footer: Footer, rows: int, chunk: Chunk, position: tuple[int, int]) -> None:
    group, column = position
    leaf = footer.metadata.schema.column(column)
    where = f"row group {group}, column {printable(leaf.path)}"
    if chunk.external:
        raise _refused(footer.source, f"{where} is in another file")
    if chunk.start < 0 or chunk.packed < 0 or chunk.start + chunk.packed > footer.size:
        raise _lie(footer.source, f"{where} is outside of the file")
    flat = leaf.max_repetition_level == 0
    if chunk.values < rows or (flat and chunk.values != rows):
        raise _lie(footer.source, f"{where} has {chunk.values:,} values for {rows:,} rows")
    # A page header takes at least 10 bytes and counts its values in 32 bits.
    if chunk.values > (chunk.packed // 10 + 1) << 31:
        claim = f"{chunk.values:,} values in {chunk.packed:,} bytes"
        raise _lie(footer.source, f"{where} claims {claim}")


def _lie(source: Source, cause: str) -> InputRefused:
    return _refused(source, f"the Parquet footer contradicts itself: {cause}")


def _refused(source: Source, cause: str, remedy: str = _AGAIN) -> InputRefused:
    return InputRefused(cause, place=printable(source.name), remedy=remedy)


def _unreadable(source: Source, error: Exception) -> Exception:
    if protocol(source.path):
        return remote_fault(printable(source.name), error)
    if fault := disk_fault(printable(source.name), error):
        return fault
    number = getattr(error, "errno", None)
    reason = os.strerror(number) if number else escape(error)
    return _refused(source, f"cannot be read: {reason}", "check the file and its permissions")


def decode_fault(place: str, error: Exception, effect: str | None = None) -> SteelyardError:
    """Return the error for an exception that came while data was decoded.

    `effect` is what it means that they cannot be.
    """
    if fault := disk_fault(place, error):
        return fault
    if not isinstance(error, DECODE_ERRORS):
        return remote_fault(place, error)
    first = str(error).partition("\n")[0] or type(error).__name__
    cause = f"the data cannot be read: {escape(first, 200)}"
    return InputRefused(
        cause, place=place, effect=effect, remedy="write the file again, or leave it out"
    )
