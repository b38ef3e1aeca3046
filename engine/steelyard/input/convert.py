"""Files of any format -> Parquet that is read in their place.

A file that is not Parquet is written as Parquet once, into a folder of the run or one that lasts as
long as this process. What is made of it depends on its bytes alone, and has their digest in its
name and its footer: the same file is not converted again, and one that has changed is another.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from steelyard.core.files import make_temporary_folder
from steelyard.errors import InputRefused, escape
from steelyard.input.arrow_rows import Batches, read_arrow
from steelyard.input.columns import JsonTyping, Piece, TextTyping, Typing
from steelyard.input.csv_rows import read_csv
from steelyard.input.discover import Source, table_refused
from steelyard.input.filesystem import disk_fault, driver, protocol, remote_fault
from steelyard.input.footer import CONVERTED, MAGIC
from steelyard.input.formats import AS_PARQUET, PARQUET, Format
from steelyard.input.json_rows import read_json
from steelyard.input.lake import DeltaRows
from steelyard.input.packed import unpacked
from steelyard.input.parquet_writer import write_batches, write_chunks
from steelyard.input.problems import printable
from steelyard.input.roles import NOT_TEXT, RESPONSE_NAMES, TEXT_NAMES

_VERSION = 1  # of what is made of the same bytes
_BLOCK = 8 << 20
_AGAIN = "write the file again, or leave it out"


@dataclass(frozen=True, slots=True)
class Staging:
    """Where files are converted, and how."""

    folder: Path | None = None  # None: one that lasts as long as this process
    texts: frozenset[str] = TEXT_NAMES  # columns of CSV that are texts, whatever they hold

    def mapped(self, column_map: Mapping[str, str]) -> Staging:
        """Return the same for a table whose columns are mapped: role -> column."""
        texts = {column for role, column in column_map.items() if role not in NOT_TEXT}
        return replace(self, texts=self.texts | texts)


# Reads a table of a database file: path and table -> its rows. `store.sql`, which alone connects to
# DuckDB, enters itself here.
database_readers: list[Callable[[Path, str], Batches]] = []


@cache
def _scratch_folder() -> Path:
    folder = make_temporary_folder("steelyard-inputs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def converted(source: Source, staging: Staging) -> Source:
    """Return a source as Parquet: itself, or a file in the folder that was made of it.

    Raises:
        InputRefused: it cannot be read in the format that its name says.
        EnvironmentFault: the disk or the network fails.
    """
    if source.format.kind == PARQUET:
        folder = staging.folder and staging.folder.absolute()
        held = folder in Path(source.path).parents  # rows of a Python program
        return replace(source, origin=source.path) if held else source
    folder = staging.folder or _scratch_folder()
    try:
        with _on_disk(source, folder) as path:
            if source.format.kind == "delta":
                target = _convert_delta(source, folder)
            elif source.format.packing is None and _begins_as_parquet(path):
                return replace(source, format=AS_PARQUET)
            else:
                digest = _digest(path, source.format, staging.texts)
                target = folder / f"{digest}.parquet"
                if not _is_whole(target, digest):
                    _convert(path, source, target, digest, staging.texts)
    except OSError as error:
        raise disk_fault(printable(source.name), error) or _refused(source, error) from None
    table = source.format.table
    origin = f"{source.path}::{table}" if table else source.path
    return replace(source, path=str(target), format=AS_PARQUET, origin=origin)


def _refused(source: Source, error: Exception) -> InputRefused:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    cause = f"the file cannot be read: {escape(reason, 200)}"
    return InputRefused(cause, place=printable(source.name), remedy=_AGAIN)


@contextmanager
def _on_disk(source: Source, folder: Path) -> Iterator[str]:
    """Yield the path of a file on this machine; one of the network is fetched for as long."""
    name = protocol(source.path)
    folder.mkdir(parents=True, exist_ok=True)
    if not name:
        yield source.path
        return
    handle, path = tempfile.mkstemp(dir=folder, prefix=".fetched-")
    os.close(handle)
    try:
        try:
            driver(name).get_file(source.path, path)
        except Exception as error:  # drivers raise what their client libraries raise
            raise remote_fault(printable(source.name), error) from error
        yield path
    finally:
        with suppress(OSError):
            Path(path).unlink()


def _begins_as_parquet(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _digest(path: str, form: Format, texts: frozenset[str]) -> str:
    """Return 32 hexadecimal digits over a file's bytes and all else that decides its rows."""
    whole = xxhash.xxh3_128()
    files = [path, f"{path}.wal"] if form.kind == "duckdb" else [path]
    for file in files:
        with suppress(FileNotFoundError), Path(file).open("rb") as opened:
            while block := opened.read(_BLOCK):
                whole.update(block)
    how = (_VERSION, *form, *(sorted(texts) if form.kind == "csv" else ()))
    whole.update(repr(how).encode("utf-8", "backslashreplace"))
    return whole.hexdigest()


def _convert_delta(source: Source, folder: Path) -> Path:
    rows = DeltaRows(source.path, table_refused(source.path, "Delta Lake"))
    digest = xxhash.xxh3_128_hexdigest(f"{_VERSION} {rows.state}".encode())
    target = folder / f"{digest}.parquet"
    if not _is_whole(target, digest):
        write_batches(rows.batches(), target, digest, source.name)
    return target


def _is_whole(target: Path, digest: str) -> bool:
    try:
        stored = pq.read_metadata(target).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    return bool(stored.get(CONVERTED) == digest.encode())


def _convert(path: str, source: Source, target: Path, digest: str, texts: frozenset[str]) -> None:
    form = source.format
    if form.kind == "arrow":
        write_batches(read_arrow(path, source.name), target, digest, source.name)
    elif form.kind == "duckdb":
        write_batches(database_readers[0](Path(path), form.table), target, digest, source.name)
    else:
        typing: Typing = JsonTyping() if form.kind == "json" else TextTyping(texts)
        write_chunks(partial(_chunks, path, source), typing, target, digest, source.name)


def _chunks(path: str, source: Source) -> Iterator[Piece]:
    with unpacked(path, source.format.packing) as (reader, encoding):
        if not reader.peek(1):
            cause = "the file is empty (0 bytes)"
            raise InputRefused(cause, place=printable(source.name), remedy=_AGAIN)
        if source.format.kind == "json":
            yield from read_json(reader, encoding, source.name)
        else:
            yield from read_csv(reader, encoding, source.name, RESPONSE_NAMES)


def convert_all(
    sources: Sequence[Source], staging: Staging, problems: list[InputRefused]
) -> list[Source]:
    """Return all sources as Parquet, one after the other; what is refused goes to `problems`."""
    results = []
    for source in sources:
        try:
            results.append(converted(source, staging))
        except InputRefused as refused:
            problems.append(refused)
    return results
