"""Compares all shards with each other and with the roles, before any of their data is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.types as pt

from steelyard.errors import InputRefused
from steelyard.input.footer import Footer
from steelyard.input.metadata import metadata_type
from steelyard.input.problems import printable
from steelyard.input.role_types import NUMBERS, role_type
from steelyard.input.roles import REQUIRED, is_better_side
from steelyard.input.types import UnsupportedError, is_bytes, unify, without_nulls

_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
# A column that its writer kept as a dictionary is read as one, whole, for each row group.
DICTIONARY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class ShardColumns:
    """The columns of one shard, those from its folders included."""

    footer: Footer
    partitions: dict[str, str | None]
    types: dict[str, pa.DataType]  # as the file has them, in its order, partitions last

    @property
    def place(self) -> str:
        """The shard's name, for messages."""
        return printable(self.footer.source.name)

    def refused(self, cause: str, remedy: str) -> InputRefused:
        """Return an error that names the shard."""
        return InputRefused(cause, place=self.place, remedy=remedy)


def shard_columns(footer: Footer) -> ShardColumns:
    """Return a shard's columns, with one for each folder such as `source=web/` in its name.

    Raises:
        InputRefused: a name comes twice, is empty, or a folder's name is that of a column.
    """
    names = list(footer.schema.names)
    partitions = _partitions(footer.source.name)
    types = {field.name: field.type for field in footer.schema}
    shard = ShardColumns(footer, partitions, types | dict.fromkeys(partitions, pa.string()))
    folded = {name.casefold() for name in names}
    twice = [printable(name) for name in names if names.count(name) > 1]
    overwritten = [printable(name) for name in partitions if name.casefold() in folded]
    if "" in names:
        raise shard.refused("a column has no name", "give it one")
    if twice:
        raise shard.refused(f"column {twice[0]} is there twice", "rename one of them")
    if overwritten:
        raise shard.refused(
            f"the folder {overwritten[0]}=... would overwrite the column {overwritten[0]}",
            "rename the folder or the column",
        )
    return shard


def _partitions(name: str) -> dict[str, str | None]:
    parts = [part.partition("=") for part in name.split("/")[:-1]]
    return {
        unquote(key): None if value == _NO_PARTITION else unquote(value)
        for key, equals, value in parts
        if equals and key
    }


def agree(
    shards: Sequence[ShardColumns],
    roles: Mapping[str, str],
    problems: list[InputRefused],
    required: Sequence[str] = REQUIRED,
) -> pa.Schema:
    """Compare all shards with the first, at least one; what differs is added to `problems`.

    Returns:
        The metadata columns, which have no role, with the types to which `stream` brings them.
    """
    unified: dict[str, pa.DataType] = {}
    source: dict[str, ShardColumns] = {}  # of each column's type
    for shard in shards:
        kinds, unusable = _resolve_types(shard, roles, required)
        unified, source = unified or dict(kinds), source or dict.fromkeys(kinds, shard)
        # A difference from other shards explains more than what follows from it.
        if names := _differing(unified, kinds):
            other = source.get(names[0], shards[0])
            problems.append(_difference(shard, kinds, other, unified, names))
            continue
        problems += unusable
        for name, kind in kinds.items():
            if pt.is_null(unified[name]) and not pt.is_null(kind):
                source[name] = shard
            unified[name] = unify(unified[name], kind)
    metadata = [name for name in unified if name not in roles.values()]
    problems += _case_clashes(shards[0], metadata)
    return pa.schema([(name, without_nulls(unified[name])) for name in metadata])


def _resolve_types(
    shard: ShardColumns, roles: Mapping[str, str], required: Sequence[str]
) -> tuple[dict[str, pa.DataType], list[InputRefused]]:
    """Return the types that a shard's columns are brought to, and those that cannot be used."""
    players = {column: role for role, column in roles.items() if not is_better_side(role, roles)}
    kinds: dict[str, pa.DataType] = {}
    problems: list[InputRefused] = []
    for name, kind in shard.types.items():
        role = players.get(name)
        try:
            kinds[name] = role_type(role, kind) if role else metadata_type(kind)
            if role in required and pt.is_null(kind) and shard.footer.rows:
                raise UnsupportedError("has no value in any row")
            sizes = chunk_bytes(shard.footer, {name})
            if pt.is_dictionary(kind) and max(sizes, default=0) > DICTIONARY_BYTES:
                raise UnsupportedError(f"is a dictionary of more than {DICTIONARY_BYTES >> 20} MiB")
        except UnsupportedError as error:
            kinds.setdefault(name, kind)
            if role:
                other = "" if role in required else f", or keep it as metadata with --map {role}="
                problem = unusable_column(shard.place, pa.field(name, kind), role, error, other)
            else:
                cast = "" if pt.is_nested(kind) else ", or cast it to text,"
                problem = shard.refused(
                    f"metadata column {printable(name)} ({printable(str(kind))}) {error}",
                    f"leave the column {printable(name)} out{cast} when the file is written",
                )
            problems.append(problem)
    return kinds, problems


def unusable_column(
    place: str, column: pa.Field, role: str, why: UnsupportedError, other: str
) -> InputRefused:
    """Return the error for a column whose type does not fit its role.

    `why` is what `role_type` says about the type; `other` is a remedy to follow the first.
    """
    shown = printable(column.name)
    if role == "gold":
        remedy = "write A, B and tie, or P(a) as a floating-point number"
    elif is_bytes(column.type):
        remedy = f"declare it as text, for example decode({shown}) in DuckDB"
    elif pt.is_nested(column.type):
        remedy = f"name another column: --map {role}=COLUMN"
    else:
        number = role in NUMBERS
        remedy = (
            f"write {'numbers' if number else 'texts'}: df[{shown!r}]"
            f".astype({'float' if number else 'str'}) in pandas,"
            f" {shown}::{'DOUBLE' if number else 'VARCHAR'} in DuckDB"
        )
    if column.type == pa.null():
        remedy = f"fill it, or map another column with --map {role}=COLUMN"
    cause = f"column {shown} ({printable(str(column.type))}) for {role} {why}"
    return InputRefused(cause, place=place, remedy=remedy + other)


def _differing(first: Mapping[str, pa.DataType], other: Mapping[str, pa.DataType]) -> list[str]:
    """Return the columns that one of the two lacks, or whose types do not go together."""
    return [
        name
        for name in dict.fromkeys([*first, *other])
        if name not in first or name not in other or unify(first[name], other[name]) is None
    ]


def _difference(
    shard: ShardColumns,
    kinds: Mapping[str, pa.DataType],
    other: ShardColumns,
    before: Mapping[str, pa.DataType],
    names: Sequence[str],
) -> InputRefused:
    """Return the error for a shard that differs in these columns from those `before` it."""
    lines = [
        f"{sign} {printable(name)}: {printable(str(types[name]))}"
        for name in names
        for sign, types in (("-", before), ("+", kinds))
        if name in types
    ]
    cause = f"its columns (+) differ from those of {other.place} (-)"
    remedy = "give all shards the same columns and types, or score them in separate runs"
    return shard.refused("\n    ".join([cause, *lines]), remedy)


def _case_clashes(shard: ShardColumns, names: Sequence[str]) -> Iterator[InputRefused]:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            yield shard.refused(
                f"metadata columns {printable(other)} and {printable(name)} differ in case only, "
                "which DuckDB ignores",
                "rename one of them when the file is written",
            )


def chunk_bytes(footer: Footer, names: Collection[str]) -> Iterator[int]:
    """Yield the uncompressed bytes of these columns' chunks, as the footer estimates them."""
    for leaf in range(footer.metadata.num_columns):
        path = footer.metadata.schema.column(leaf).path
        if any(path == name or path.startswith(name + ".") for name in names):
            yield from (max(0, group.chunks[leaf].unpacked) for group in footer.groups)
