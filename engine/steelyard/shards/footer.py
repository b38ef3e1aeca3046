"""What a Parquet file says of itself, read without its data, and whether that can be true."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ..errors import SteelyardError, escape
from .discover import Source
from .files import is_machine_fault, open_file, protocol, remote_fault
from .problems import CONVERT, Problem, Refusal, show

MAGIC = b"PAR1"
_TAIL = 1 << 16  # most footers come with the first read
_AGAIN = "write the file again, or leave it out"
# What pyarrow raises over bytes that are no good Parquet, found by mutating files.
DECODE_ERRORS = (pa.ArrowException, OSError, ValueError, MemoryError, LookupError, OverflowError)


@dataclass(frozen=True, slots=True)
class Footer:
    """The footer of one shard, checked for what a reader relies on."""

    source: Source
    size: int  # bytes of the file
    digest: bytes  # xxh3_128 of size and footer: changes when the file is written anew
    metadata: pq.FileMetaData
    schema: pa.Schema  # of the file's own columns
    raw: bytes

    @property
    def rows(self) -> int:
        """Rows that the footer promises."""
        return int(self.metadata.num_rows)


def read_footer(source: Source) -> Footer:
    """Read and check one file's footer: two small reads.

    Raises:
        Refusal: the file is no whole, plausible Parquet file.
        EnvironmentFault: the disk or the network fails.
    """
    try:
        with open_file(source.path) as file:
            size, raw = _tail(source, file)
    except (Refusal, SteelyardError):
        raise
    except Exception as error:  # drivers raise what their client libraries raise
        raise _unreadable(source, error) from error
    metadata, schema = _parse(source, raw)
    footer = Footer(source, size, digest(size, raw), metadata, schema, raw)
    _check(footer)
    return footer


def digest(size: int, raw: bytes) -> bytes:
    """16 bytes that identify a file's size and footer."""
    return xxhash.xxh3_128_digest(size.to_bytes(8, "little") + raw)


def _tail(source: Source, file: pa.NativeFile) -> tuple[int, bytes]:
    size = file.size()
    if size == 0:
        raise _refused(source, "the file is empty (0 bytes)")
    tail = file.read_at(min(size, _TAIL), max(0, size - _TAIL))
    head = file.read_at(min(size, 4), 0)
    if tail[-4:] == b"PARE" or head == b"PARE":
        raise _refused(source, "the file is encrypted", "write it without encryption")
    if head != MAGIC:
        raise _refused(source, f"not a Parquet file; it begins with {_shown(head)}", CONVERT)
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


def _parse(source: Source, raw: bytes) -> tuple[pq.FileMetaData, pa.Schema]:
    try:
        # A footer's offsets are not followed here, so a file of the footer alone will do.
        file = pq.ParquetFile(pa.BufferReader(MAGIC + raw))
        schema = file.schema_arrow
        _ = [(field.name, str(field.type)) for field in schema]  # names that are not UTF-8 raise
        return file.metadata, schema
    except DECODE_ERRORS as error:
        first = str(error).partition("\n")[0]
        raise _refused(
            source, f"the Parquet footer cannot be read: {escape(first, 200)}"
        ) from error


def _check(footer: Footer) -> None:
    metadata, source = footer.metadata, footer.source
    total = 0
    for group in range(metadata.num_row_groups):
        info = metadata.row_group(group)
        if info.num_rows < 0:
            raise _lie(source, f"row group {group} claims {info.num_rows} rows")
        total += info.num_rows
        for column in range(info.num_columns):
            _check_chunk(footer, group, info.num_rows, column)
    if total != metadata.num_rows:
        raise _lie(source, f"it claims {metadata.num_rows:,} rows, its row groups {total:,}")


def _check_chunk(footer: Footer, group: int, rows: int, column: int) -> None:
    chunk = footer.metadata.row_group(group).column(column)
    leaf = footer.metadata.schema.column(column)
    where = f"row group {group}, column {show(leaf.path)}"
    packed, values = chunk.total_compressed_size, chunk.num_values
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    if start < 0 or packed < 0 or start + packed > footer.size:
        raise _lie(footer.source, f"{where} lies outside of the file")
    if values < rows or (leaf.max_repetition_level == 0 and values != rows):
        raise _lie(footer.source, f"{where} has {values:,} values for {rows:,} rows")
    # A page header takes at least 10 bytes and counts its values in 32 bits.
    if values > (packed // 10 + 1) << 31:
        raise _lie(footer.source, f"{where} claims {values:,} values in {packed:,} bytes")


def _lie(source: Source, cause: str) -> Refusal:
    return _refused(source, f"the Parquet footer contradicts itself: {cause}")


def _refused(source: Source, cause: str, remedy: str = _AGAIN) -> Refusal:
    return Refusal(Problem(show(source.name), cause, remedy))


def _unreadable(source: Source, error: Exception) -> Exception:
    if protocol(source.path):
        fault = remote_fault(show(source.name), error)
        if fault.exit_code == 3:
            return _refused(source, fault.cause, fault.remedy)
        return fault
    if is_machine_fault(error):
        return remote_fault(show(source.name), error)
    reason = getattr(error, "strerror", None) or escape(error)
    return _refused(source, f"cannot be read: {reason}", "check the file and its permissions")
