"""The only module that connects to DuckDB: databases, their limits and locks.

Every connection is locked before it is handed out: its SQL reaches what was opened for it and no
other file, extension, setting or Python variable, whatever the text of a statement was made from.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from steelyard.core.arrow import duckdb_type, is_wide_decimal
from steelyard.core.files import make_temporary_folder, temporary_folder
from steelyard.errors import InputRefused, UsageError, did_you_mean, escape
from steelyard.input.arrow_rows import Batches, storable
from steelyard.input.convert import database_readers
from steelyard.store.folder import Folder
from steelyard.store.sql_faults import interruptible, raising_python_errors

Connection: TypeAlias = duckdb.DuckDBPyConnection
Relation: TypeAlias = duckdb.DuckDBPyRelation
Type: TypeAlias = duckdb.sqltypes.DuckDBPyType
DuckDBError = duckdb.Error
MEMORY_LIMIT = 768_000_000  # bytes of scratch databases, which spill to the disk beyond them
LEAST_MEMORY = 1 << 30  # of queries, which get a quarter of the machine's
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
_ROWS = 4096  # of a table that are read at a time
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


def read_table(path: Path, table: str) -> Batches:
    """Return the columns and rows of a database's table or view, `schema.table` if not in main.

    Raises:
        InputRefused: it cannot be read, or there is no such table; it names those that are there.
    """
    names: list[str] = []
    folder = Folder(path.resolve().parent)
    try:
        connection = open_file(folder.library_path(path.resolve().name))
        tables = connection.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ?"
            " UNION SELECT schema_name, view_name FROM duckdb_views()"
            " WHERE database_name = ? AND NOT internal ORDER BY ALL",
            [HANDED_OFF, HANDED_OFF],
        ).fetchall()
        names = [name if schema == "main" else f"{schema}.{name}" for schema, name in tables]
        parts = table.split(".", 1) if table in names and "." in table else [table]
        quoted = ".".join('"' + part.replace('"', '""') + '"' for part in parts)
        rows = connection.sql(f"SELECT * FROM {quoted}").to_arrow_reader(_ROWS)  # noqa: S608
    except (DuckDBError, OSError) as error:
        cause = f"the table cannot be read: {escape(str(error).partition(chr(10))[0], 200)}"
        remedy = "check that this is a DuckDB database that no other program is writing"
        if names:
            remedy = did_you_mean(table, names, f"its tables are {', '.join(names[:12])}")
        raise InputRefused(cause, place=f"{path}::{escape(table, 100)}", remedy=remedy) from None

    def batches() -> Iterator[pa.RecordBatch]:
        with connection:
            yield from rows

    return storable(rows.schema), batches()


database_readers.append(read_table)


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
        with (
            raising_python_errors(),
            _open(settings, None if file is None else folder.new_path(file)) as connection,
        ):
            if reads:
                connection.execute(f"SET allowed_paths = {sql_list(reads)}")
            if result is not None:
                storage = f"(STORAGE_VERSION {sql_text(STORAGE_VERSION)})"
                connection.execute(f"ATTACH {sql_text(result)} AS result {storage}")
            with interruptible(_locked(connection)):
                yield connection
    finally:
        with suppress(OSError):
            folder.remove_tree(spill)


def _open(settings: dict[str, Any], file: str | None = None) -> Connection:
    connection = duckdb.connect(file or ":memory:", config=_SETTINGS | settings)
    # It would print into results on stdout. In a notebook without ipywidgets DuckDB has no bar, and
    # refuses to set that.
    with suppress(duckdb.InvalidInputException):
        connection.execute("SET enable_progress_bar = false")
    return connection


def _locked(connection: Connection) -> Connection:
    for setting in _LOCKS:
        connection.execute(f"SET {setting}")
    return connection


def _query_limits() -> dict[str, Any]:
    folder = _spill_folder()
    # Each database needs its own folder, which DuckDB makes when it needs it, and removes.
    spill = "" if folder is None else str(folder / str(next(_numbers)))
    memory = max(LEAST_MEMORY, machine_memory() // 4)
    return {"temp_directory": spill, "memory_limit": f"{memory >> 20}MiB"}


@cache
def _spill_folder() -> Path | None:
    """Make a private folder for what queries spill until this process ends; None: no room."""
    try:
        folder = make_temporary_folder("steelyard-")
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
    with temporary_folder("steelyard-") as elsewhere:
        yield Folder(elsewhere)


def machine_memory() -> int:
    """Return the bytes of memory that this process may use: of the machine, or of its container."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # not in a container, or `max`
        return total


def readable(dataset: ds.FileSystemDataset) -> ds.Dataset:
    """Return a dataset with types that DuckDB takes from Arrow."""
    schema = pa.schema([field.with_type(duckdb_type(field.type)) for field in dataset.schema])
    if schema.equals(dataset.schema):
        return dataset
    return ds.dataset(
        dataset.files, format=dataset.format, filesystem=dataset.filesystem, schema=schema
    )


def register_parquet(
    connection: Connection, name: str, files: Sequence[str], schema: pa.Schema
) -> None:
    """Show Parquet files under a name through Arrow, so that SQL needs no right to open files.

    Without files, it is an empty table of the schema.
    """
    source = schema.empty_table()
    if files:
        source = readable(ds.dataset(list(files), format="parquet"))
    connection.register(name, source)


def view_parquet(
    connection: Connection, name: str, files: Sequence[str], schema: pa.Schema
) -> None:
    """Show Parquet files of one schema under a name natively, with bounded memory.

    Without files, it is an empty table. Through Arrow go those of earlier versions with decimals
    of more than 38 digits, of which DuckDB 1.5 makes other numbers.
    """
    types = [field.type for field in pq.read_schema(files[0])] if files else []
    if types and not any(map(is_wide_decimal, types)):
        connection.execute(
            f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet({sql_list(files)})"  # noqa: S608
        )
    else:
        register_parquet(connection, name, files, schema)


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


def describe_text(connection: Connection, table: str, columns: Mapping[str, str]) -> str:
    """Describe the first column of a table that does not hold numbers; empty if all of them do.

    Args:
        connection: where the table is.
        table: its name.
        columns: what a column is for -> its SQL.
    """
    for name, sql in columns.items():
        with suppress(duckdb.Error):
            (kind,) = connection.sql(f"SELECT {sql} FROM {table} LIMIT 0").types  # noqa: S608
            wrong = "" if kind.id == "blob" else f"AND TRY_CAST({sql} AS DOUBLE) IS NULL"
            rows = connection.execute(
                f"SELECT {sql} FROM {table} WHERE {sql} IS NOT NULL {wrong} LIMIT 1"  # noqa: S608
            ).fetchall()
            if rows:
                column = sql.strip('"').replace('""', '"')
                return (
                    f"column {escape(column)} ({kind}) for {name} does not hold numbers:"
                    f" {escape(repr(rows[0][0]))}"
                )
    return ""


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
