"""CSV and TSV with a header line -> chunks of rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO

from steelyard.errors import InputRefused, escape
from steelyard.input.columns import Chunk, Notes
from steelyard.input.packed import AGAIN, LONGEST, READ
from steelyard.input.problems import printable

_ROWS = 4096  # of a chunk


def read_csv(
    reader: BinaryIO, encoding: str, name: str, keep_empty: frozenset[str]
) -> Iterator[Chunk]:
    """Yield the rows below a header line; an empty field is null, but in columns of `keep_empty`.

    TSV has tabs between fields; CSV commas, semicolons or tabs, as the header shows. A row with
    more or fewer fields than the header is a row with a note.

    Raises:
        InputRefused: the header is not usable, or a line is longer than LONGEST.
    """
    text = io.TextIOWrapper(reader, encoding, errors="surrogateescape", newline="")
    csv.field_size_limit(LONGEST)
    lines = _text_lines(text, name)
    first = next((line for line in lines if line.strip()), "")
    marks = "\t" if ".tsv" in name.lower() else ",;\t"
    rows = csv.reader(chain([first], lines), delimiter=max(marks, key=first.count))
    header, _ = next(_parsed(rows), ([], ""))
    names = _header(header, name)
    yield Chunk(0, dict.fromkeys(names, ()))
    chunk, size = _Rows(names, keep_empty), 0
    for fields, fault in _parsed(rows):
        if fields or fault:
            chunk.add(fields, fault, rows.line_num)
            size += sum(map(len, fields))
        if len(chunk.rows) == _ROWS or size > READ:
            yield chunk.columns()
            chunk, size = _Rows(names, keep_empty), 0
    if chunk.rows:
        yield chunk.columns()


class _Rows:
    """The rows of a chunk, as they come."""

    def __init__(self, names: Sequence[str], keep_empty: frozenset[str]) -> None:
        self.rows: list[list[str | None]] = []
        self._names = names
        self._empty = ["" if column in keep_empty else None for column in names]
        self._notes: Notes = {}

    def add(self, fields: Sequence[str], fault: str, line: int) -> None:
        """Add a row, which ended in a line; if anything is wrong with it, as a note."""
        fault = fault or self._fault(fields)
        if fault:
            self._notes[len(self.rows)] = [("", f"the row that ends in line {line} {fault}")]
            self.rows.append([None] * len(self._names))
        else:
            both = zip(fields, self._empty, strict=True)
            self.rows.append([field or empty for field, empty in both])

    def _fault(self, fields: Sequence[str]) -> str:
        if len(fields) != len(self._names):
            return f"has {len(fields)} fields, the header {len(self._names)}"
        for name, field in zip(self._names, fields, strict=True):
            try:
                if not field.isascii():
                    field.encode()
            except UnicodeEncodeError:
                return f"has a text in {printable(name)} that is not UTF-8"
        return ""

    def columns(self) -> Chunk:
        """Return the rows by column."""
        values = zip(*self.rows, strict=True)
        return Chunk(len(self.rows), dict(zip(self._names, values, strict=True)), self._notes)


def _text_lines(text: io.TextIOWrapper, name: str) -> Iterator[str]:
    while line := text.readline(LONGEST):
        if len(line) == LONGEST:
            cause = f"a line has more than {LONGEST >> 20} million characters"
            raise InputRefused(cause, place=printable(name), remedy=AGAIN)
        yield line


def _parsed(rows: Any) -> Iterator[tuple[list[str], str]]:  # noqa: ANN401 - what csv.reader returns
    """Yield the fields of each row, or what is wrong with it."""
    while True:
        try:
            yield next(rows), ""
        except StopIteration:
            return
        except csv.Error as error:
            yield [], f"is not CSV: {escape(error, 120)}"


def _header(header: Sequence[str], name: str) -> list[str]:
    names = [column.strip() for column in header]
    if len(names) > 1 and not names[0]:
        names[0] = "index"  # pandas writes it without a name
    cause = ""
    if "" in names or not names:
        cause, remedy = "a column has no name", "give each column of the header a name"
    elif len(set(names)) < len(names):
        twice = next(column for column in names if names.count(column) > 1)
        cause, remedy = f"column {printable(twice)} is there twice", "rename one of them"
    if cause:
        raise InputRefused(cause, place=printable(name), remedy=remedy)
    return names
