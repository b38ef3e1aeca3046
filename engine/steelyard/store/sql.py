"""The only module that connects to DuckDB: databases, their limits and locks, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from steelyard.errors import SteelyardError, escape
from steelyard.store.folder import Folder

Connection: TypeAlias = duckdb.DuckDBPyConnection
DuckDBError = duckdb.Error
# What a statement of ours fails with where the machine lacks room, memory or permission.
MACHINE_FAULTS = (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.TransactionException)

MEMORY_LIMIT = "768MB"  # of scratch databases, which spill to the disk beyond it
_LOCKS = (
    "enable_progress_bar = false",  # it would print into the results on stdout
    "autoinstall_known_extensions = false",
    "autoload_known_extensions = false",
    "allow_community_extensions = false",
    "python_enable_replacements = false",
    "enable_external_access = false",
    "lock_configuration = true",
)


def open_memory() -> Connection:
    """Open an empty database in memory."""
    return duckdb.connect(":memory:")


def open_file(path: Path | str) -> Connection:
    """Open a database file for reading.

    Raises:
        DuckDBError: it is not there, or not a database that this DuckDB can read.
    """
    return duckdb.connect(str(path), read_only=True)


@contextmanager
def open_scratch(
    folder: Folder, spill: str, file: str | None = None, *, keep_order: bool = True
) -> Iterator[Connection]:
    """Open a database for statements of ours, with bounded memory.

    Args:
        folder: where its files are.
        spill: name of a folder in it for what does not fit into the memory; removed afterwards.
        file: name of the database's file, which stays; None: it is in memory.
        keep_order: whether queries without ORDER BY keep the order of their sources.
    """
    settings = {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": folder.new_path(spill),
        "preserve_insertion_order": keep_order,
    }
    folder.remove_tree(spill)
    try:
        place = ":memory:" if file is None else folder.new_path(file)
        with duckdb.connect(place, config=settings) as connection:
            connection.execute("SET enable_progress_bar = false")
            yield connection
    finally:
        with suppress(OSError):
            folder.remove_tree(spill)


def lock(connection: Connection) -> None:
    """Leave a connection no file, extension, Python variable or setting that SQL could reach."""
    for setting in _LOCKS:
        connection.execute(f"SET {setting}")


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
        listing = ", ".join(map(sql_text, files))
        connection.execute(
            f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet([{listing}])"  # noqa: S608
        )
    else:
        connection.register(name, schema.empty_table())


def one_row(connection: Connection, query: str) -> tuple[Any, ...]:
    """Return the only row of a query of ours."""
    (row,) = connection.execute(query).fetchall()
    return tuple(row)


def sql_text(value: object) -> str:
    """Return a SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"


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
        words = str(error).split("\n\n", maxsplit=1)[0].split()
        raise refusal(escape(" ".join(words), 300)) from None


@contextmanager
def raising_os_errors() -> Iterator[None]:
    """Raise DuckDB's errors of input and output as OSError, which `durable.writing` explains."""
    try:
        yield
    except duckdb.IOException as error:
        raise OSError(str(error)) from error
