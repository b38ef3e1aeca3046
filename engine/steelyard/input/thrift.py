"""Reads the few facts of a Parquet footer that have to be checked before pyarrow sees them.

pyarrow (26.0.1) ends the whole process (std::terminate) when Python asks it for a column chunk
whose size statistics are damaged, so the numbers are read here, from the Thrift compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md) and
parquet.thrift (https://github.com/apache/parquet-format).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any

_DEEPEST = 24
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)
_DATA_PAGES = (0, 3)
_LEVELS = {3, 4}  # encodings of repetition and definition levels: RLE, BIT_PACKED
_CODED = {2, 8}  # PLAIN_DICTIONARY, RLE_DICTIONARY


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where one column of one row group lies, as the footer claims."""

    values: int  # nulls included
    unpacked: int  # bytes
    packed: int  # bytes
    start: int  # offset of the first page in the file
    external: bool  # in another file
    coded: bool = False  # all values are in its dictionary: they take more when they are decoded


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group, as the footer claims."""

    rows: int
    chunks: tuple[Chunk, ...]


def row_groups(footer: bytes) -> tuple[int, tuple[RowGroup, ...]]:
    """Return the number of rows of the file and its row groups, unchecked.

    `footer` is without length and magic. A ValueError says that it does not have such a structure.
    """
    try:
        file = _Reader(footer).struct(0)
        groups = tuple(RowGroup(group[3], tuple(map(_chunk, group[1]))) for group in file[4])
        return int(file[3]), groups
    except (LookupError, TypeError, OverflowError, struct.error) as error:
        raise ValueError("its Thrift structure is damaged") from error


def _chunk(column: dict[int, Any]) -> Chunk:
    facts = column[3]
    start = min(facts[9], facts.get(11) or facts[9])  # a dictionary comes before the data
    # Encodings of the data pages (of either version), or of all pages if the writer says no more.
    pages = [page[2] for page in facts.get(13, ()) if page[1] in _DATA_PAGES]
    encodings = set(pages or facts[2]) - _LEVELS
    return Chunk(facts[5], facts[6], facts[7], start, 1 in column, encodings <= _CODED)


class _Reader(BytesIO):
    """Compact protocol: a struct becomes field id -> value, a list a list."""

    def struct(self, depth: int) -> dict[int, Any]:
        if depth > _DEEPEST:
            raise ValueError("its Thrift structure is too deep")
        fields: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            field = field + delta if delta else self._zigzag()
            fields[field] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:  # noqa: ANN401 (what the bytes say)
        if kind in _INTEGERS:
            return self._zigzag()
        if kind == _BINARY:
            return self._take(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            return self._items(depth)
        if kind == _DOUBLE:
            return struct.unpack("<d", self._take(8))[0]
        if kind in (_TRUE, _FALSE, _BYTE):  # booleans in lists take a byte each
            return self._byte()
        raise ValueError("its Thrift structure has an unknown type")

    def _items(self, depth: int) -> list[Any]:
        head = self._byte()
        size, kind = head >> 4, head & 15
        if size == 15:
            size = self._varint()
        if size > self.getbuffer().nbytes - self.tell():
            raise ValueError("its Thrift structure claims a list longer than itself")
        return [self._value(kind, depth + 1) for _ in range(size)]

    def _byte(self) -> int:
        return self.read(1)[0]

    def _take(self, size: int) -> bytes:
        taken = self.read(size)
        if len(taken) < size:
            raise ValueError("its Thrift structure ends early")
        return taken

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("its Thrift structure has an endless number")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
