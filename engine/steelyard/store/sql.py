"""The only module that connects to DuckDB: databases, their limits and locks, and their errors.

Every connection is locked before it is handed out: its SQL reaches what was opened for it and no
other file, extension, setting or Python variable, whatever the text of a statement was made from.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from steelyard.errors import SteelyardError, UsageError, escape
from steelyard.store.folder import Folder

Connection: TypeAlias = duckdb.DuckDBPyConnection
DuckDBError = duckdb.Error
# What a statement of ours fails with where the machine lacks room, memory or permission.
MACHINE_FAULTS = (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.TransactionException)

MEMORY_LIMIT = 768_000_000  # bytes of scratch databases, which spill to the disk beyond them
HANDED_OFF = "verdicts"  # the catalog of a database file
# The oldest DuckDB that has to read the hand-off file.
STORAGE_VERSION = "v1.5.0"
# Set when a database is opened, the last ones when all of its files are open.
_SETTINGS = {
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}
_LOCKS = ("enable_external_access = false", "lock_configuration = true")
# Statements that can name a file, or hold one that does.
_WITH_FILES = {"ATTACH", "COPY", "DETACH", "EXECUTE", "EXPORT", "LOAD", "PREPARE"}
_numbers = count()


def open_memory() -> Connection:
    """Open an empty database in memory, with the limits of queries."""
    return _locked(_open(_query_limits()))


def open_file(path: Path | str) -> Connection:
    """Open a database file for reading, with the limits of queries.

    Raises:
        DuckDBError: it is not there, or not a database that this DuckDB can read.
    """
    connection = _open(_query_limits())
    try:
        connection.execute(f"ATTACH {sql_text(path)} AS {HANDED_OFF} (READ_ONLY)")
        connection.execute(f"USE {HANDED_OFF}")
        return _locked(connection)
    except BaseException:
        connection.close()
        raise


@contextmanager
def open_scratch(
    folder: Folder,
    spill: str,
    file: str | None = None,
    *,
    reads: Sequence[str] = (),
    result: str | None = None,
    keep_order: bool = True,
    memory: int = MEMORY_LIMIT,
) -> Iterator[Connection]:
    """Open a database for statements of ours, with bounded memory.

    Args:
        folder: where its files are.
        spill: name of a folder in it for what does not fit into the memory; removed afterwards.
        file: name of the database's file, which stays; None: it is in memory.
        reads: paths of files that its SQL may open.
        result: path of a database file, new or not, that is attached as `result`.
        keep_order: whether queries without ORDER BY keep the order of their sources.
        memory: bytes that it may take.
    """
    settings = {
        "memory_limit": f"{memory}B",
        "temp_directory": folder.new_path(spill),
        "preserve_insertion_order": keep_order,
    }
    folder.remove_tree(spill)
    try:
        with _open(settings, None if file is None else folder.new_path(file)) as connection:
            if reads:
                connection.execute(f"SET allowed_paths = {sql_list(reads)}")
            if result is not None:
                storage = f"(STORAGE_VERSION {sql_text(STORAGE_VERSION)})"
                connection.execute(f"ATTACH {sql_text(result)} AS result {storage}")
            yield _locked(connection)
    finally:
        with suppress(OSError):
            folder.remove_tree(spill)


def _open(settings: dict[str, Any], file: str | None = None) -> Connection:
    connection = duckdb.connect(file or ":memory:", config=_SETTINGS | settings)
    connection.execute("SET enable_progress_bar = false")  # it would print into results on stdout
    return connection


def _locked(connection: Connection) -> Connection:
    for setting in _LOCKS:
        connection.execute(f"SET {setting}")
    return connection


def _query_limits() -> dict[str, Any]:
    folder = _spill_folder()
    # Each database needs its own folder, which DuckDB makes when it needs it, and removes.
    spill = "" if folder is None else str(folder / str(next(_numbers)))
    return {"temp_directory": spill}


@cache
def _spill_folder() -> Path | None:
    """Make a private folder for what queries spill until this process ends; None: no room."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="steelyard-"))
    except OSError:
        return None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def folder_for_files(folder: Folder) -> Iterator[Folder]:
    """Yield where DuckDB can write database files: elsewhere if it takes the path for more.

    It resolves every path, and reads what follows a `?` as options and a backslash as a slash.
    """
    if not {"?", "\\"} & set(os.path.realpath(folder.path)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="steelyard-") as elsewhere:
        yield Folder(Path(elsewhere))


def register_parquet(
    connection: Connection, name: str, files: Sequence[str], schema: pa.Schema
) -> None:
    """Show Parquet files under a name through Arrow, so that SQL needs no right to open files.

    Without files, it is an empty table of the schema.
    """
    source = ds.dataset(list(files), format="parquet") if files else schema.empty_table()
    connection.register(name, source)


def view_parquet(
    connection: Connection, name: str, files: Sequence[str], schema: pa.Schema
) -> None:
    """Show Parquet files under a name natively, with bounded memory; an empty table for none."""
    if files:
        connection.execute(
            f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet({sql_list(files)})"  # noqa: S608
        )
    else:
        connection.register(name, schema.empty_table())


def check_reading(connection: Connection, query: str) -> None:
    """Check that a user's query names no file: DuckDB 1.5 lets it replace a database's log.

    Raises:
        UsageError: it has such a statement.
        DuckDBError: it is not SQL.
    """
    kinds = {statement.type.name for statement in connection.extract_statements(query)}
    if "EXPLAIN" in kinds:  # EXPLAIN ANALYZE carries a statement out
        kinds |= set(re.findall(r"\w+", query.upper()))
    for kind in sorted(kinds & _WITH_FILES):
        raise UsageError(
            f"a query cannot {kind}: it reads the tables of the run and opens no file",
            remedy="write SELECT, and save what it prints",
        )


def one_row(connection: Connection, query: str) -> tuple[Any, ...]:
    """Return the only row of a query of ours."""
    (row,) = connection.execute(query).fetchall()
    return tuple(row)


def sql_text(value: object) -> str:
    """Return a SQL string literal; DuckDB 1 would end the statement at a NUL."""
    quoted = "'" + utf8_text(str(value)).replace("'", "''") + "'"
    return quoted if "\0" not in quoted else "(" + quoted.replace("\0", "' || chr(0) || '") + ")"


def utf8_text(text: str) -> str:
    r"""Return a text that UTF-8 can hold: names of files may be any bytes, shown as `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()


def sql_list(values: Iterable[object]) -> str:
    """Return a SQL list of string literals."""
    return "[" + ", ".join(map(sql_text, values)) + "]"


def is_corrupt(error: Exception) -> bool:
    """Return whether DuckDB has found a database file damaged, by the checksum of a block."""
    return isinstance(error, duckdb.Error) and "Corrupt database file" in str(error)


def is_foreign(error: duckdb.Error) -> bool:
    """Return whether a statement of ours fails because a database is not what we wrote."""
    elsewhere = (*MACHINE_FAULTS, duckdb.InterruptException)
    return is_corrupt(error) or not isinstance(error, elsewhere)


@contextmanager
def refusing(
    refusal: Callable[[str], SteelyardError],
    errors: tuple[type[Exception], ...] = (duckdb.Error, pa.ArrowException),
) -> Iterator[None]:
    """Raise an error of ours where DuckDB refuses a statement.

    Args:
        refusal: makes our error from DuckDB's words, on one line.
        errors: which of DuckDB's errors are meant; Arrow's are those of its readers.
    """
    try:
        yield
    except errors as error:
        if is_corrupt(error):
            raise
        words = str(error).split("\n\n", maxsplit=1)[0].split()
        raise refusal(escape(" ".join(words), 300)) from None


@contextmanager
def raising_os_errors() -> Iterator[None]:
    """Raise DuckDB's errors of input and output as OSError, which `durable.writing` explains."""
    try:
        yield
    except duckdb.IOException as error:
        raise OSError(str(error)) from error
