"""Parquet tables of any tool: one or several files, read as one table by the names of columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pyarrow.types as pt
from typing_extensions import override

from steelyard.errors import InputRefused, SteelyardError
from steelyard.input.columns import NOTES
from steelyard.input.convert import Staging, convert_all
from steelyard.input.discover import Source, discover
from steelyard.input.filesystem import open_file
from steelyard.input.footer import (
    DECODE_ERRORS,
    INT96_UNIT,
    Footer,
    decode_fault,
    read_footer,
    require_same,
)
from steelyard.input.metadata import metadata_type
from steelyard.input.problems import attempt_each, printable, raised_as, refusal
from steelyard.input.role_types import role_type
from steelyard.input.row_groups import Pace, read_group
from steelyard.input.schema import unusable_column
from steelyard.input.types import UnsupportedError, has_views, unify

_BATCH_BYTES = 16 << 20
_REMEDY = "give all files the same columns, or read them one by one"


@dataclass(frozen=True, slots=True)
class ParquetTable:
    """Files read as one table: columns of all files, of types that hold the values of all.

    A column that a file lacks is null there; `require_same` refuses that where it would mean
    something else.
    """

    place: str  # as the user named it
    footers: tuple[Footer, ...]  # of one file or more
    data: ds.Dataset

    @property
    def names(self) -> list[str]:
        """All columns."""
        return list(self.data.schema.names)

    def schemas(self) -> Iterator[tuple[str, pa.Schema]]:
        """Yield each file's path, for messages, and its columns with the types of the table."""
        for footer in self.footers:
            own = set(footer.schema.names)
            fields = [field for field in self.data.schema if field.name in own]
            yield _place(footer.source), pa.schema(fields)

    def require_same(
        self,
        roles: Mapping[str, str],
        resolve: Callable[[str, Sequence[str]], Mapping[str, str]],
        optional: Collection[str],
    ) -> None:
        """Require that each file alone has the roles that all of them together have.

        Args:
            roles: role -> column, of the whole table.
            resolve: returns the roles of a file, from its path and columns.
            optional: roles that a file may lack.

        Raises:
            InputRefused: a role is another column in some file, or missing; it names both files.
        """
        whole = set(self.names)
        for name, schema in self.schemas():
            if set(schema.names) == whole:
                continue
            own = resolve(name, schema.names)
            for role in dict.fromkeys([*roles, *own]):
                here, there = own.get(role), roles.get(role)
                if here != there and not (here is None and role in optional):
                    raise self._another(role, (name, here), there)

    def require_gold(self, column: str, other: str) -> None:
        """Require that a column is gold in each file alone: whole numbers are not, with others.

        `other` is a remedy, to follow that for the column.

        Raises:
            InputRefused: it is not in some file.
        """
        for footer in self.footers:
            if column in footer.schema.names:
                field = footer.schema.field(column)
                try:
                    role_type("gold", field.type)
                except UnsupportedError as error:
                    place = _place(footer.source)
                    raise unusable_column(place, field, "gold", error, other) from None

    def _another(self, role: str, here: tuple[str, str | None], there: str | None) -> InputRefused:
        column = (there or "").strip('"')
        have = [name for name, schema in self.schemas() if column in schema.names]
        other = have[0] if have else self.place
        if here[1] and there:
            ours, theirs = printable(here[1]), printable(there)
            cause = f"the column for {role} is {ours} in {here[0]}, and {theirs} in {other}"
        else:
            lacks, has = (other, here[0]) if here[1] else (here[0], other)
            cause = f"{lacks} has no column for {role}; in {has} it is {printable(column)}"
        return InputRefused(
            cause,
            place=self.place,
            remedy=f"{_REMEDY}; or leave the column out, with an empty name for its role",
        )

    @contextmanager
    def reading(self, error: type[InputRefused] = InputRefused) -> Iterator[None]:
        """Raise what is wrong with a file where reading the table fails in the block, or changes.

        Raises:
            error: a file is damaged, or has changed.
            EnvironmentFault: the disk, or the limit of open files.
        """
        try:
            yield
        except SteelyardError:
            with raised_as(error):
                self._check()
            raise
        except DECODE_ERRORS:
            with raised_as(error):
                self._check()
            raise
        with raised_as(error):
            for footer in self.footers:
                require_same(footer.source, footer.digest)

    def _check(self) -> None:
        """Decode all files, one by one."""
        for opened in self.footers:
            source = opened.source
            footer, group = require_same(source, opened.digest), 0
            try:
                with open_file(source.path) as file:
                    for group in range(len(footer.groups)):
                        _decode(file, footer, group)
            except Exception as error:  # drivers raise what their client libraries raise
                place = f"{_place(source)}, row group {group}"
                raise decode_fault(place, error) from error


def open_table(path: Path, error: type[InputRefused] = InputRefused) -> ParquetTable:
    """Open a Parquet table: a file, a folder or a pattern.

    Raises:
        InputRefused: there is no such file.
        error: a file is not Parquet or has no columns, or two files do not go together.
        EnvironmentFault: the disk, or the limit of open files.
    """
    named = discover([path])
    problems: list[InputRefused] = []
    with raised_as(error):
        sources = convert_all(named, Staging(), problems)
        footers = attempt_each(read_footer, sources, problems)
        if problems:
            raise refusal(problems)
        for footer in footers:
            _require_whole(footer)
            if not footer.schema.names:
                remedy = "give Parquet with columns, or take the file out of the folder"
                place = _place(footer.source)
                raise InputRefused("this Parquet file has no columns", place=place, remedy=remedy)
        schema = _unified(footers)
    files = pafs.PyFileSystem(_Files([footer.source.path for footer in footers]))
    layout = ds.ParquetFileFormat(
        ds.ParquetReadOptions(coerce_int96_timestamp_unit=INT96_UNIT),
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(
            page_checksum_verification=True
        ),
    )
    parts = [layout.make_fragment(str(number), files) for number in range(len(footers))]
    data = ds.FileSystemDataset(parts, schema, layout, files)
    return ParquetTable(str(path), tuple(footers), data)


def _place(source: Source) -> str:
    """Return how messages call a file: one that was converted by its own name."""
    return printable(source.path if source.path.endswith(source.name) else source.name)


def _require_whole(footer: Footer) -> None:
    """Refuse a file that was converted, but for rows that cannot be read."""
    if not footer.noted:
        return
    notes = pq.read_table(footer.source.path, columns=[NOTES])[NOTES].drop_null()
    for whole in (note["what"] for row in notes for note in row.as_py() if not note["column"]):
        remedy = "correct the file, or write it again"
        raise InputRefused(whole, place=printable(footer.source.name), remedy=remedy)


def _decode(file: pa.NativeFile, footer: Footer, group: int) -> None:
    pace = Pace(first=64, most=2048, size=_BATCH_BYTES)
    for batch in read_group(file, footer, group, footer.schema.names, pace):
        pace.seen(len(batch), batch.nbytes)


class _Files(pafs.FSSpecHandler):  # type: ignore[misc]
    """Files by their number: no part of a path has a syntax, and any name will do."""

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__(fsspec.filesystem("file"))
        self._paths = paths

    @override
    def open_input_file(self, path: str) -> pa.NativeFile:
        return open_file(self._paths[int(path)])

    @override
    def get_file_info(self, paths: Sequence[str]) -> list[pafs.FileInfo]:
        return [pafs.FileInfo(path, pafs.FileType.File) for path in paths]


def _unified(footers: Sequence[Footer]) -> pa.Schema:
    """Return the columns of all files, in the order in which they come first."""
    types: dict[str, tuple[pa.DataType, str]] = {}
    for footer in footers:
        name = printable(footer.source.name)
        for field in footer.schema:
            kind, before = types.get(field.name, (field.type, name))
            both = kind if kind == field.type else _common(kind, field.type)
            if both is None:
                raise InputRefused(
                    f"column {printable(field.name)} is {printable(str(kind))} in {before} and"
                    f" {printable(str(field.type))} in {name}",
                    place=name,
                    remedy=f"give it the same type in all files: {_REMEDY}",
                )
            types[field.name] = (both, name if pt.is_null(kind) else before)
    return pa.schema([(name, _readable(kind)) for name, (kind, _) in types.items()])


def _common(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """Return a type that pyarrow brings both to; None if they mean different things."""
    if pt.is_null(left) or pt.is_null(right):
        return right if pt.is_null(left) else left
    if any(isinstance(kind, pa.BaseExtensionType) or has_views(kind) for kind in (left, right)):
        return None  # pyarrow 26 takes bytes for text, and other items for those of views
    try:
        return unify(metadata_type(left), metadata_type(right))
    except UnsupportedError:
        return None


def _readable(kind: pa.DataType) -> pa.DataType:
    """Return the type, or one in its place that DuckDB reads."""
    inner = [kind]
    for nested in inner:
        inner += [nested.field(i).type for i in range(nested.num_fields)]
    if any(pt.is_float16(nested) or pt.is_decimal256(nested) for nested in inner):
        try:
            return metadata_type(kind)
        except UnsupportedError:
            pass
    return kind
