"""Builds what bad_input_cases.toml describes: a small vocabulary of files, damage and folders.

A case is a table:

    name     unique, says what is wrong
    about    shards (what `open_shards` and `stream` refuse), or config, run, sql, output
    make     steps, done in order in an empty folder; `do` names one of BUILDERS
    inputs   for `about = "shards"`: the inputs, relative to that folder ({dir} is the folder)
    options  for `about = "shards"`: further CLI options
    args     for the others: the whole command line, {dir} as above
    exit     expected exit code
    first    regular expression for the whole first line of the message
    rejects  for rows that are left out: reason -> number
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from support.shard_files import claim_rows, flip_byte, not_utf8, pairs

CASES_FILE = Path(__file__).with_name("bad_input_cases.toml")
NULL = "<null>"  # TOML has no null
TYPES: dict[str, pa.DataType] = {
    "null": pa.null(),
    "string": pa.string(),
    "binary": pa.binary(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "texts": pa.list_(pa.string()),
    "turns": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
    "struct_aA": pa.struct([("a", pa.int64()), ("A", pa.int64())]),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the file."""

    name: str
    about: str
    exit: int
    first: str = ""
    make: list[dict[str, Any]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    args: list[str] = field(default_factory=list)
    rejects: dict[str, int] = field(default_factory=dict)

    def build(self, folder: Path) -> None:
        """Make the files in an empty folder."""
        for step in self.make:
            settings = {name: value for name, value in step.items() if name not in ("do", "file")}
            BUILDERS[step["do"]](folder / step["file"], **settings)

    def option(self, name: str) -> list[str]:
        """All values given to a CLI option."""
        at = [i for i, option in enumerate(self.options) if option == name]
        return [self.options[i + 1] for i in at]


def load() -> tuple[list[Case], dict[str, list[str]]]:
    """The cases, and the command-line templates of the file's head."""
    with CASES_FILE.open("rb") as file:
        content = tomllib.load(file)
    return [Case(**case) for case in content["case"]], content["commands"]


def parquet(
    path: Path,
    rows: int = 3,
    columns: Mapping[str, list[Any]] | None = None,
    types: Mapping[str, str] | None = None,
    drop: list[str] | None = None,
    rename: list[str] | None = None,
    **options: Any,
) -> None:
    """A Parquet file of `rows` good pairs, with columns replaced, added, dropped or renamed.

    `<null>` stands for null and `hex:ff` for a text of these bytes; `options` go to pyarrow.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = {name: _values(x, (types or {}).get(name)) for name, x in (columns or {}).items()}
    table = pairs(rows, **made, **dict.fromkeys(drop or []))
    if rename:
        table = table.rename_columns(rename)
    pq.write_table(table, path, **options)


def _values(values: list[Any], kind: str | None) -> pa.Array:
    plain = [None if value == NULL else value for value in values]
    if any(isinstance(value, str) and value.startswith("hex:") for value in plain):
        return not_utf8([_bytes(value) for value in plain])
    if kind == "binary":
        plain = [_bytes(value) for value in plain]
    return pa.array(plain, TYPES[kind] if kind else None)


def _bytes(value: str | None) -> bytes | None:
    if value is None:
        return None
    return bytes.fromhex(value[4:]) if value.startswith("hex:") else value.encode()


def text(path: Path, content: str = "", repeat: int = 1) -> None:
    """A file of any kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content * repeat)


def truncate(path: Path, keep: int) -> None:
    """Only the first `keep` bytes stay, or all but the last -keep."""
    path.write_bytes(path.read_bytes()[:keep])


def overwrite(path: Path, at: int, hex: str) -> None:  # noqa: A002 (a word of the case file)
    """Other bytes at an offset, from the end if negative."""
    data, new = bytearray(path.read_bytes()), bytes.fromhex(hex)
    at = at % len(data)
    data[at : at + len(new)] = new
    path.write_bytes(data)


def folder(path: Path) -> None:
    """An empty folder."""
    path.mkdir(parents=True)


def link(path: Path, to: str) -> None:
    """A symbolic link."""
    path.symlink_to(to)


def lie(path: Path, rows: int) -> None:
    """The footer claims another number of rows; the file must have been made with 12,345."""
    claim_rows(path, rows)


def flip(path: Path, at: str) -> None:
    """One wrong bit in the page that holds this text, uncompressed."""
    flip_byte(path, at.encode())


def fifo(path: Path) -> None:
    """A named pipe that nobody writes to."""
    os.mkfifo(path)


BUILDERS: dict[str, Callable[..., None]] = {
    builder.__name__: builder
    for builder in (parquet, text, truncate, overwrite, folder, link, lie, flip, fifo)
}
