"""All shards against each other and against the roles, before any of their data is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.types as pt

from steelyard.input.footer import Footer
from steelyard.input.problems import InputProblem, InputProblemError, printable
from steelyard.input.roles import REQUIRED
from steelyard.input.types import UnsupportedError, metadata_type, role_type, unify, without_nulls

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


def shard_columns(footer: Footer) -> ShardColumns:
    """A shard's columns by name, with one for each folder such as `source=web/` in its name.

    Raises:
        InputProblemError: a name comes twice, is empty, or a folder's name is that of a column.
    """
    names = list(footer.schema.names)
    partitions = _partitions(footer.source.name)
    place = printable(footer.source.name)
    if "" in names:
        raise InputProblemError(InputProblem(place, "a column has no name", "give it one"))
    for name in names:
        if names.count(name) > 1:
            raise InputProblemError(
                InputProblem(place, f"column {printable(name)} is there twice", "rename one")
            )
    folded = {name.casefold() for name in names}
    for name in partitions:
        if name.casefold() in folded:
            raise InputProblemError(
                InputProblem(
                    place,
                    f"the folder {printable(name)}=... would overwrite the"
                    f" column {printable(name)}",
                    "rename the folder or the column",
                )
            )
    types = {field.name: field.type for field in footer.schema}
    return ShardColumns(footer, partitions, types | dict.fromkeys(partitions, pa.string()))


def _partitions(name: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for part in name.split("/")[:-1]:
        key, equals, value = part.partition("=")
        if equals and key:
            found[unquote(key)] = None if value == _NO_PARTITION else unquote(value)
    return found


def agree(
    shards: Sequence[ShardColumns],
    roles: Mapping[str, str],
    problems: list[InputProblem],
    required: Sequence[str] = REQUIRED,
) -> pa.Schema:
    """Compare all shards with the first and settle the metadata's types.

    Args:
        shards: at least one.
        roles: role -> column of the first shard.
        problems: what differs or cannot be used is added here.
        required: roles that need a value in every row.

    Returns:
        The metadata columns with the types to which `stream` brings them.
    """
    settled: list[dict[str, pa.DataType]] = []
    for shard in shards:
        kinds, found = _settle(shard, roles, required)
        # A difference from the first shard explains more than what follows from it.
        lines = _difference(settled[0], kinds) if settled else ()
        if lines:
            first = shards[0].place
            cause = f"its columns differ from those of {first} (-)"
            remedy = "give all shards the same columns and types, or score them in separate runs"
            problems.append(InputProblem(shard.place, cause, remedy, lines))
        else:
            problems += found
        settled.append(kinds)
    unified = dict(settled[0])
    for kinds in settled[1:]:
        for name in unified.keys() & kinds.keys():
            unified[name] = unify(unified[name], kinds[name]) or unified[name]
    metadata = [name for name in unified if name not in roles.values()]
    problems += _case_clashes(shards[0].place, metadata)
    return pa.schema([(name, without_nulls(unified[name])) for name in metadata])


def _settle(
    shard: ShardColumns, roles: Mapping[str, str], required: Sequence[str]
) -> tuple[dict[str, pa.DataType], list[InputProblem]]:
    """The types that a shard's columns are brought to, and what stands against it."""
    players = {column: role for role, column in roles.items()}
    kinds: dict[str, pa.DataType] = {}
    problems: list[InputProblem] = []
    for name, kind in shard.types.items():
        role = players.get(name)
        try:
            kinds[name] = role_type(role, kind) if role else metadata_type(kind)
            if role in required and pt.is_null(kind) and shard.footer.rows:
                raise UnsupportedError("has no value in any row")
            if _is_large_dictionary(shard.footer, name, kind):
                raise UnsupportedError(f"is a dictionary of more than {DICTIONARY_BYTES >> 20} MiB")
        except UnsupportedError as error:
            kinds.setdefault(name, kind)
            why, optional = str(error), role not in required
            problems.append(_unusable(shard, name, role, why, optional=optional))
    return kinds, problems


def _unusable(
    shard: ShardColumns, name: str, role: str | None, why: str, *, optional: bool
) -> InputProblem:
    shown, kind = printable(name), printable(str(shard.types[name]))
    if role is None:
        remedy = f"leave the column {shown} out, or cast it to text, when the shard is written"
        return InputProblem(shard.place, f"metadata column {shown} ({kind}) {why}", remedy)
    cast = f"cast it when the shard is written, for example {shown}::VARCHAR in DuckDB"
    if pt.is_binary(shard.types[name]) or pt.is_large_binary(shard.types[name]):
        cast = f"declare it as text, for example decode({shown}) in DuckDB"
    other = f", or keep it as metadata with --map {role}=" if optional else ""
    return InputProblem(shard.place, f"column {shown} ({kind}) for the {role} {why}", cast + other)


def _difference(
    first: Mapping[str, pa.DataType], other: Mapping[str, pa.DataType]
) -> tuple[str, ...]:
    lines = []
    for name, kind in first.items():
        if name not in other:
            lines.append(f"- {printable(name)}: {printable(str(kind))}")
        elif unify(kind, other[name]) is None:
            lines += [
                f"- {printable(name)}: {printable(str(kind))}",
                f"+ {printable(name)}: {other[name]}",
            ]
    lines += [
        f"+ {printable(name)}: {printable(str(other[name]))}" for name in other if name not in first
    ]
    return tuple(lines)


def _case_clashes(place: str, names: Sequence[str]) -> Iterator[InputProblem]:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            yield InputProblem(
                place,
                f"metadata columns {printable(other)} and {printable(name)} differ in case only, "
                "which DuckDB cannot tell apart",
                "rename one of them when the shard is written",
            )


def _leaves(footer: Footer, names: set[str]) -> Iterator[int]:
    for index in range(footer.metadata.num_columns):
        path = footer.metadata.schema.column(index).path
        if any(path == name or path.startswith(name + ".") for name in names):
            yield index


def _is_large_dictionary(footer: Footer, name: str, kind: pa.DataType) -> bool:
    if not pt.is_dictionary(kind):
        return False
    return any(
        group.chunks[leaf].unpacked > DICTIONARY_BYTES
        for leaf in _leaves(footer, {name})
        for group in footer.groups
    )


def text_bytes(footer: Footer, roles: Mapping[str, str]) -> int:
    """Uncompressed bytes of the columns with a role; an estimate, and as honest as the footer."""
    leaves = list(_leaves(footer, set(roles.values())))
    return sum(max(0, group.chunks[leaf].unpacked) for group in footer.groups for leaf in leaves)
