"""JSON Lines, or one JSON array of objects -> chunks of rows."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.json as pj
from typing_extensions import override

from steelyard.errors import InputRefused, escape
from steelyard.input.columns import NOTE, NOTES, Chunk, Notes, Piece, chunk_of
from steelyard.input.json_documents import read_document, rows_of_document
from steelyard.input.packed import AGAIN, LONGEST, READ
from steelyard.input.problems import printable

_ITEMS = 4096  # of an array, in a piece
_MOST = 1 << 31  # bytes of a JSON array, which is read whole
_BAD_JSON = (msgspec.DecodeError, ValueError, RecursionError)
_decode = msgspec.json.Decoder().decode


def read_json(reader: BinaryIO, encoding: str, name: str) -> Iterator[Piece]:
    """Yield the rows of JSON Lines, of a JSON array of objects, or of an object that has one.

    Blank lines are passed over and have no row number. A line that is not an object is a row with
    a note.

    Raises:
        InputRefused: an array is damaged, or too large to be read whole; or an object has columns.
    """
    blocks = _utf8(reader, encoding)
    first = next(blocks, b"")
    items: Sequence[bytes] | None = None
    if first.lstrip()[:1] == b"[":
        items = _array(chain([first], blocks), name)
    else:
        document, blocks = read_document(first, blocks)
        if document is not None:
            items = rows_of_document(document, printable(name))
            blocks = iter([document])
    if items is None:
        yield from _lines(blocks)
        return
    for number in range(0, len(items), _ITEMS):
        yield _Lines(items[number : number + _ITEMS], number + 1, "item")


def _utf8(reader: BinaryIO, encoding: str) -> Iterator[bytes]:
    decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)("replace")
    while data := reader.read(READ):
        yield data if decoder is None else decoder.decode(data).encode()


def _array(blocks: Iterable[bytes], name: str) -> Sequence[bytes]:
    whole = bytearray()
    for block in blocks:
        whole += block
        if len(whole) > _MOST:
            raise InputRefused(
                f"one JSON array of more than {_MOST >> 30} GiB is not read",
                place=printable(name),
                remedy="write one object per line instead (JSON Lines), which has no such limit",
            )
    try:
        return [bytes(item) for item in msgspec.json.decode(whole, type=list[msgspec.Raw])]
    except _BAD_JSON as error:
        cause = f"the JSON array cannot be read: {escape(error, 200)}"
        raise InputRefused(cause, place=printable(name), remedy=AGAIN) from None


def _lines(blocks: Iterable[bytes]) -> Iterator[Piece]:
    """Yield whole lines; one over LONGEST bytes is passed over, as a row with a note."""
    number, rest, long = 1, b"", False
    for block in chain(blocks, (b"\n",)):
        head, newline, tail = (rest + block).rpartition(b"\n")
        if newline:
            if long:
                _, _, head = head.partition(b"\n")
                yield _Lines([None], number, "line")
                number, long = number + 1, False
            yield _Block(head, number)
            number += head.count(b"\n") + 1
        rest = tail
        if len(rest) > LONGEST:
            rest, long = b"", True


class _Block(Piece):
    """Some lines; `number` is that of the first."""

    def __init__(self, data: bytes, number: int) -> None:
        self._data = data
        self._number = number

    @override
    def quick(self, types: dict[str, pa.DataType]) -> pa.RecordBatch | None:
        return _parsed(self._data, self._data.count(b"\n") + 1, types)

    @override
    def read(self) -> Chunk:
        return _Lines(self._data.split(b"\n"), self._number, "line").read()


class _Lines(Piece):
    """Some lines, or items of an array; None: too long."""

    def __init__(self, lines: Sequence[bytes | None], number: int, unit: str) -> None:
        self._lines = lines
        self._number = number
        self._unit = unit

    @override
    def quick(self, types: dict[str, pa.DataType]) -> pa.RecordBatch | None:
        lines = [line for line in self._lines if line is not None]
        return _parsed(b"\n".join(lines), len(self._lines), types)

    @override
    def read(self) -> Chunk:
        rows: list[dict[str, Any]] = []
        notes: Notes = {}
        for number, line in enumerate(self._lines, self._number):
            if line is None or line.strip():
                row, what = _row(line)
                if what:
                    notes[len(rows)] = [("", f"{self._unit} {number} {what}")]
                rows.append(row)
        return chunk_of(rows, notes)


def _parsed(data: bytes, rows: int, types: dict[str, pa.DataType]) -> pa.RecordBatch | None:
    """Parse objects in C++, which refuses other columns, other types, and what is not JSON."""
    reading = pj.ReadOptions(use_threads=False, block_size=len(data) + 1)
    parsing = pj.ParseOptions(
        explicit_schema=pa.schema(list(types.items())),
        newlines_in_values=True,
        unexpected_field_behavior="error",
    )
    try:
        table = pj.read_json(pa.BufferReader(data), reading, parsing).combine_chunks()
    except (pa.ArrowException, ValueError):
        return None
    if len(table) != rows:
        return None
    return table.append_column(NOTES, pa.nulls(rows, pa.list_(NOTE))).to_batches()[0]


def _row(line: bytes | None) -> tuple[dict[str, Any], str]:
    """Return a line's object, or why there is no object."""
    if line is None:
        return {}, f"has more than {LONGEST >> 20} MiB"
    try:
        row = _decode(line)
    except _BAD_JSON:
        try:
            row = json.loads(line)  # takes NaN and Infinity, which Python writes
        except _BAD_JSON as error:
            return {}, f"is not JSON: {_reason(error)}"
    if not isinstance(row, dict):
        return {}, "is not an object with the row's columns"
    return row, ""


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, json.JSONDecodeError):  # it says `line 1`, which is not the file's line
        return f"{escape(error.msg, 120)}, at character {error.pos + 1:,}"
    return escape(error, 120)
