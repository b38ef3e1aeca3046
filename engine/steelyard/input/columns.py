"""Values of formats without declared types -> Arrow columns of types that hold all of them.

A column whose values are of several kinds becomes text: texts stay as they are, other values are
written as JSON, and the row notes that under the column's name. A row that could not be read at
all has no values, and a note without a name. `rows.check` rejects such a row if the column has a
role; in metadata the text stays.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from typing_extensions import override

NOTES = "steelyard:notes"  # a column of converted files
Notes: TypeAlias = dict[int, list[tuple[str, str]]]  # row -> column, what
NOTE = pa.struct([("column", pa.string()), ("what", pa.string())])
_MOST_FIELDS = 200  # of an object; one with more is a map, whose keys differ from row to row
_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"  # 007 is a text
_FLOAT = r"^[-+]?((0|[1-9][0-9]{0,14})(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?$"
INTEGER = "an integer"
_KINDS = {bool: "a boolean", int: INTEGER, float: "a number", list: "a list", dict: "an object"}
_ERRORS = (pa.ArrowException, OverflowError, ValueError, TypeError)  # of values that do not fit


class Piece(ABC):
    """Some rows of a file, as they are written there."""

    def quick(self, types: dict[str, pa.DataType]) -> pa.RecordBatch | None:
        """Return the rows in these columns and NOTES; None if that is not certain to be right."""
        del types
        return None

    @abstractmethod
    def read(self) -> Chunk:
        """Return the rows as values."""


@dataclass(slots=True)
class Chunk(Piece):
    """Some rows of a file, n of them, by column; a row without a column is null there."""

    rows: int
    columns: Mapping[str, Sequence[Any]]  # name -> n values
    notes: Notes = field(default_factory=dict)  # row -> column, what

    @override
    def read(self) -> Chunk:
        return self


class Typing(ABC):
    """How the values of a format find a type."""

    @abstractmethod
    def infer(self, name: str, values: Sequence[Any]) -> pa.DataType:
        """Return a type that holds these values of a column; text if nothing else does."""

    @abstractmethod
    def make(self, values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        """Return values as a type that `infer` chose for them, or for these and others."""


class JsonTyping(Typing):
    """Values that know their kind: of JSON, or of Python."""

    @override
    def infer(self, name: str, values: Sequence[Any]) -> pa.DataType:
        try:
            kind = pa.array(values).type
        except _ERRORS:
            return pa.string()
        return kind if _is_table(kind) else pa.string()

    @override
    def make(self, values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind)


class TextTyping(Typing):
    """Texts, of which whole columns may be numbers.

    Args:
        texts: columns that stay texts, whatever they hold.
    """

    def __init__(self, texts: frozenset[str]) -> None:
        self._texts = texts

    @override
    def infer(self, name: str, values: Sequence[Any]) -> pa.DataType:
        given = pa.array(values, pa.string()).drop_null()
        if not len(given):
            return pa.null()
        if name not in self._texts:
            for pattern, kind in ((_INTEGER, pa.int64()), (_FLOAT, pa.float64())):
                if pc.all(pc.match_substring_regex(given, pattern)).as_py():
                    return kind
        return pa.string()

    @override
    def make(self, values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, pa.string()).cast(kind)


def _is_table(kind: pa.DataType) -> bool:
    """Return whether a type's objects have the same fields in all rows, with names that differ."""
    if pt.is_struct(kind):
        names = {field.name.casefold() for field in kind}
        distinct = len(names) == kind.num_fields and "" not in names
        if not distinct or not 0 < len(names) <= _MOST_FIELDS:
            return False
    return all(_is_table(kind.field(i).type) for i in range(kind.num_fields))


def widen(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """Return the type that holds the values of both; None if they are of different kinds."""
    if left == right or pt.is_null(right):
        return left
    if pt.is_null(left):
        return right
    if pt.is_list(left) and pt.is_list(right):
        item = widen(left.value_type, right.value_type)
        return item and pa.list_(item)
    if pt.is_struct(left) and pt.is_struct(right):
        fields = {field.name: field.type for field in left}
        for other in right:
            kind = widen(fields.get(other.name, pa.null()), other.type)
            if kind is None:
                return None
            fields[other.name] = kind
        both = pa.struct(list(fields.items()))
        return both if _is_table(both) else None
    numbers = {pa.int64(), pa.float64()}
    return pa.float64() if {left, right} == numbers else None


class ColumnsDifferError(Exception):
    """Rows need other columns than those before, which are written already."""


class Columns:
    """The columns of a file, settled by the values that were looked at.

    Args:
        typing: of the file's format.
    """

    def __init__(self, typing: Typing) -> None:
        self.types: dict[str, pa.DataType] = {}
        self._typing = typing

    @property
    def schema(self) -> pa.Schema:
        """The columns, and NOTES."""
        return pa.schema([*self.types.items(), (NOTES, pa.list_(NOTE))])

    def look(self, chunk: Chunk) -> bool:
        """Take in a chunk's values; return whether the columns hold them as they were."""
        before = dict(self.types)
        for name, values in chunk.columns.items():
            known = self.types.get(name, pa.null())
            if not pt.is_string(known):
                kind = widen(known, self._typing.infer(name, values))
                self.types[name] = pa.string() if kind is None else kind
            elif name not in before:
                self.types[name] = known
        return before == self.types

    def batch(self, chunk: Chunk) -> pa.RecordBatch:
        """Return a chunk's rows.

        Raises:
            ColumnsDifferError: a column turned to text, and earlier rows have to, too.
        """
        arrays, notes = [], {row: list(whole) for row, whole in chunk.notes.items()}
        for name, kind in self.types.items():
            values = chunk.columns.get(name)
            if values is None:
                arrays.append(pa.nulls(chunk.rows, kind))
                continue
            try:
                arrays.append(self._typing.make(values, kind))
            except _ERRORS:
                if not pt.is_string(kind):
                    self.types[name] = pa.string()
                    raise ColumnsDifferError from None
                texts = [_as_text(name, value, row, notes) for row, value in enumerate(values)]
                arrays.append(pa.array(texts, pa.string()))
        noted = [_noted(notes.get(row)) for row in range(chunk.rows)] if notes else None
        kind = pa.list_(NOTE)
        arrays.append(pa.array(noted, kind) if noted else pa.nulls(chunk.rows, kind))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _noted(notes: Sequence[tuple[str, str]] | None) -> list[dict[str, str]] | None:
    return None if notes is None else [{"column": name, "what": what} for name, what in notes]


def _as_text(name: str, value: object, row: int, notes: Notes) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            notes.setdefault(row, []).append((name, "half of a character"))
            return None
        return value
    what = _KINDS.get(type(value), f"a {type(value).__name__}")
    notes.setdefault(row, []).append((name, what))
    return json.dumps(value, default=str, ensure_ascii=True)


def chunk_of(rows: Sequence[Mapping[str, Any]], notes: Notes | None = None) -> Chunk:
    """Return rows that are mappings by column, in the order in which columns come first."""
    names = dict.fromkeys(name for row in rows for name in row)
    return Chunk(len(rows), {name: [row.get(name) for row in rows] for name in names}, notes or {})


def batches(pieces: Iterable[Piece], columns: Columns) -> Generator[pa.RecordBatch]:
    """Yield the rows of each piece.

    Raises:
        ColumnsDifferError: `columns` turned out to be others, and are those from now on.
    """
    begun = False
    for piece in pieces:
        batch = piece.quick(columns.types) if columns.types else None
        if batch is None:
            chunk = piece.read()
            if not columns.look(chunk) and begun:
                raise ColumnsDifferError
            batch = columns.batch(chunk)
        begun = True
        yield batch
