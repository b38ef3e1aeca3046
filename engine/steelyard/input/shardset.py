"""The inputs of a run as one checked, frozen record."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt
import xxhash

from steelyard.core.schemas import INTAKE
from steelyard.errors import InputRefused
from steelyard.input.conversations import fields_left_out, is_transcript
from steelyard.input.convert import Staging, convert_all
from steelyard.input.discover import Source, discover
from steelyard.input.filesystem import open_file, protocol
from steelyard.input.footer import read_footer
from steelyard.input.problems import attempt_each, printable, refusal
from steelyard.input.role_types import SAID
from steelyard.input.roles import CONVERSATIONS, PAIRS, REQUIRED, Roles, check_map, resolve
from steelyard.input.schema import ShardColumns, agree, chunk_bytes, shard_columns
from steelyard.input.types import is_text


@dataclass(frozen=True, slots=True)
class Shard:
    """One input file with a footer that was read and is good."""

    source: Source
    size: int  # bytes of the file
    rows: int
    text_bytes: int  # uncompressed, of the columns with a role, as the footer estimates
    digest: bytes  # of size and footer: differs for a file that was written again
    partitions: tuple[tuple[str, str | None], ...]  # from folders such as source=web/

    @property
    def name(self) -> str:
        """The shard's name in messages and in the column `shard`."""
        return self.source.name


@dataclass(frozen=True, slots=True)
class ShardSet:
    """The inputs of a run: they exist, agree with each other and have all required columns."""

    shards: tuple[Shard, ...]  # ordered by name
    roles: Mapping[str, str]  # role -> column of the files (or partition)
    metadata: pa.Schema  # the other columns, in the first shard's order; may be empty
    fingerprint: str  # 32 hexadecimal digits over names, sizes and footers
    required: tuple[str, ...] = REQUIRED  # roles that no row may leave empty
    notes: tuple[str, ...] = ()  # what users should know about columns that are read
    messages: bool = False  # whether texts are messages, which may hold earlier turns

    @property
    def sources(self) -> tuple[Source, ...]:
        """Names and paths of the files."""
        return tuple(shard.source for shard in self.shards)

    @property
    def rows(self) -> int:
        """Rows of all shards, accepted or not."""
        return sum(shard.rows for shard in self.shards)

    @property
    def local(self) -> bool:
        """Whether all shards are on this machine, where reading them again costs little."""
        return not any(protocol(shard.source.path) for shard in self.shards)

    @property
    def text_bytes(self) -> int:
        """Uncompressed bytes of the texts, as the footers estimate (repeated texts count once)."""
        return sum(shard.text_bytes for shard in self.shards)

    @property
    def schema(self) -> pa.Schema:
        """What `stream` yields: INTAKE, then the struct `metadata` if there are such columns."""
        if not len(self.metadata):
            return INTAKE
        return INTAKE.append(pa.field("metadata", pa.struct(list(self.metadata))))


def open_shards(
    inputs: Sequence[str | os.PathLike[str]],
    column_map: Mapping[str, str] | None = None,
    known: Roles = PAIRS,
    staging: Staging | None = None,
) -> ShardSet:
    """Find the inputs, read their footers and resolve which column plays which role.

    `column_map` gives role -> column; an empty column leaves an optional role unfilled. Files that
    are not Parquet are converted; `staging` None: into a folder that lasts as long as this process.

    Raises:
        UsageError: the map itself is wrong.
        InputRefused: something is wrong with the shards; all of it in one message.
        EnvironmentFault: a driver is missing, or the disk or the network failed.
    """
    wanted = dict(column_map or {})
    check_map(wanted, known)
    problems: list[InputRefused] = []
    sources = convert_all(discover(inputs), (staging or Staging()).mapped(wanted), problems)
    return open_sources(sources, wanted, known, problems)


def open_sources(
    sources: Sequence[Source],
    wanted: Mapping[str, str],
    known: Roles,
    problems: list[InputRefused] | None = None,
) -> ShardSet:
    """Open Parquet files, the sources of `open_shards`, which raises the same.

    `problems` are those of other sources.
    """
    problems = problems or []
    footers = attempt_each(read_footer, sources, problems)
    shards = attempt_each(shard_columns, footers, problems)
    if not shards:
        raise refusal(problems)
    roles: dict[str, str] = {}
    metadata = pa.schema([])
    try:
        roles = _resolve(shards, wanted, known)
        metadata = agree(shards, roles, problems, known.required)
    except InputRefused as refused:
        problems.append(refused)
    if problems:
        raise refusal(problems)
    if not any(shard.footer.rows for shard in shards):
        cause = f"the input has no rows ({len(shards)} file{'s'[: len(shards) > 1]})"
        raise shards[0].refused(cause, "check what wrote these files")
    opened = tuple(_shard(shard, roles) for shard in shards)
    notes = tuple(_notes(shards, roles))
    texts = (shards[0].types[roles[role]] for role in SAID if role in roles)
    messages = "instruction" not in roles or any(map(pt.is_nested, texts))
    return ShardSet(opened, roles, metadata, _fingerprint(shards), known.required, notes, messages)


def _resolve(
    shards: Sequence[ShardColumns], wanted: Mapping[str, str], known: Roles
) -> dict[str, str]:
    """Resolve the roles; the instruction may be in the responses, if they are conversations."""
    first = shards[0]
    try:
        return resolve(first.place, first.types, wanted, known)
    except InputRefused as refused:
        others = tuple(role for role in known.required if role != "instruction")
        if wanted.get("instruction") or not {"response_a", *others} <= known.names.keys():
            raise
        try:
            roles = resolve(first.place, first.types, wanted, replace(known, required=others))
        except InputRefused:
            raise refused from None
        if "instruction" in roles or not _are_conversations(first, roles):
            raise
        return roles


def _are_conversations(shard: ShardColumns, roles: Mapping[str, str]) -> bool:
    """Return whether the first response holds messages, or its first text is a transcript."""
    column = roles.get("response_a", "")
    kind = shard.types.get(column, pa.null())
    if not is_text(kind):
        return bool(pt.is_nested(kind))
    with open_file(shard.footer.source.path) as file:
        rows = next(pq.ParquetFile(file).iter_batches(1, columns=[column]), None)
    return rows is not None and len(rows) > 0 and is_transcript(rows.column(0)[0].as_py())


def _notes(shards: Sequence[ShardColumns], roles: Mapping[str, str]) -> Iterator[str]:
    for role in (*CONVERSATIONS, *SAID):
        if column := roles.get(role):
            names = (x for shard in shards for x in fields_left_out(shard.types[column]))
            if fields := list(dict.fromkeys(names)):
                shown = (
                    f"{' and '.join(map(printable, fields))} {'is' if len(fields) == 1 else 'are'}"
                )
                yield f"of the messages in {printable(column)}, {shown} not shown to the judge"


def _shard(columns: ShardColumns, roles: Mapping[str, str]) -> Shard:
    footer = columns.footer
    texts = sum(chunk_bytes(footer, set(roles.values())))
    partitions = tuple(columns.partitions.items())
    return Shard(footer.source, footer.size, footer.rows, texts, footer.digest, partitions)


def _fingerprint(shards: Sequence[ShardColumns]) -> str:
    whole = xxhash.xxh3_128()
    for footer in (shard.footer for shard in shards):
        name = footer.source.name.encode()
        whole.update(len(name).to_bytes(4, "little") + name + footer.digest)
    return whole.hexdigest()
