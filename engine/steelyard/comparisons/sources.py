"""What comparisons are read from, opened for SQL: a run, its database, Parquet of any tool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from steelyard.comparisons.from_scores import VERDICTS, comparisons_sql
from steelyard.errors import UsageError
from steelyard.input.sql_roles import quoted, resolve_sql
from steelyard.input.tables import ParquetTable, open_table
from steelyard.store.folder import Folder
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import Connection, open_file, open_memory
from steelyard.store.sql_faults import interruptible, raising_python_errors, refusing
from steelyard.store.verdicts.database import open_sql

SOURCE = "source_rows"


@dataclass(frozen=True, slots=True)
class OpenSource:
    """A source whose rows a locked connection shows as SOURCE."""

    connection: Connection
    names: dict[str, str]  # name -> SQL of the columns
    files: ParquetTable | None = None  # if it is Parquet
    run: RunSnapshot | None = None  # if it is a run

    def resolve(
        self,
        place: str,
        column_map: Mapping[str, str],
        need: Sequence[str],
        want: Sequence[str] = (),
    ) -> dict[str, str]:
        """Return the SQL of each role, as `resolve_sql` does; each file alone has to have the same.

        Raises:
            UsageError: an unknown role, no column for one that is needed, or a file lacks what an
                expression reads.
            InputRefused: a role is another column in some of several files.
        """
        roles = resolve_sql(place, self.names, column_map, need, want)
        if self.files is None:
            return roles

        def of_file(path: str, columns: Sequence[str]) -> dict[str, str]:
            inner = "metadata" in columns
            names = {
                name: sql
                for name, sql in self.names.items()
                if name in columns or (inner and sql != quoted(name))
            }
            own = resolve_sql(path, names, column_map, need, want)
            pair = resolve_sql(path, names, column_map, (), ["pair_id"]).get("pair_id")
            if own.get("instruction") == pair:  # the substitute where no column names it
                own.pop("instruction", None)
            return own

        self.files.require_same(roles, of_file, want)
        self.files.require_gold(roles.get("gold", "").strip('"'), ", or leave it out: --map gold=")
        self._try_expressions([sql for sql in roles.values() if sql in column_map.values()])
        return roles

    def _try_expressions(self, expressions: Sequence[str]) -> None:
        """Require that all files have the columns of these."""
        assert self.files is not None  # noqa: S101 - asked for only where there are
        for path, schema in self.files.schemas():
            if not expressions or len(schema) == len(self.files.names):
                continue

            def refusal(words: str, path: str = path) -> UsageError:
                cause = f"DuckDB cannot read the columns: {words}"
                remedy = "give all files the columns that --map reads"
                return UsageError(cause, place=path, remedy=remedy)

            self.connection.register("rows_of_one_file", schema.empty_table())
            with refusing(refusal):
                self.connection.execute(f"SELECT {', '.join(expressions)} FROM rows_of_one_file")  # noqa: S608


@contextmanager
def open_source(path: Path | RunSnapshot) -> Iterator[OpenSource]:
    """Open a source; SQL in its connection reaches nothing else.

    Raises:
        UsageError: it is not one.
        InputRefused: its files are not Parquet, or do not go together.
        IntegrityFault: a file of the run is damaged.
    """
    if isinstance(path, Path) and RunDir(path).is_begun:
        path = RunSnapshot.take(path)
    if isinstance(path, RunSnapshot):
        with open_sql(path) as connection:
            query, _ = comparisons_sql(connection, path)
            yield OpenSource(connection, _named(connection, query), run=path)
    else:
        files = None if path.suffix == ".duckdb" else open_table(path)
        connection = _database(path) if files is None else open_memory()
        with raising_python_errors(), closing(connection), interruptible(connection):
            if files is not None:
                connection.register("verdicts", files.data)
            yield OpenSource(connection, _named(connection, VERDICTS), files)


def _named(connection: Connection, query: str) -> dict[str, str]:
    """Give the query's rows the name SOURCE, and return the SQL of each column by its name.

    Fields of `metadata` are columns, too, as `metadata.name` where the name is taken.
    """
    connection.execute(f"CREATE TEMP VIEW {SOURCE} AS {query}")
    described = connection.execute(f"DESCRIBE {SOURCE}").fetchall()
    names = {row[0]: quoted(row[0]) for row in described}
    fields = next((row[1] for row in described if row[0] == "metadata"), "")
    if fields.startswith("STRUCT"):
        inner = connection.sql(f"SELECT metadata.* FROM {SOURCE} LIMIT 0").columns  # noqa: S608
        names |= {
            f"metadata.{name}" if name in names else name: f"metadata.{quoted(name)}"
            for name in inner
        }
    return names


def _database(path: Path) -> Connection:
    def refusal(words: str) -> UsageError:
        return UsageError(
            f"this is not a database with verdicts: {words}",
            place=str(path),
            remedy="name a file that `steelyard score` or `steelyard compact` wrote",
        )

    file = path.resolve()
    if not file.is_file():
        raise refusal("the file does not exist")
    # Through the handle of its folder: DuckDB reads parts of some names as something else.
    folder = Folder(file.parent)
    with refusing(refusal):
        connection = open_file(folder.library_path(file.name))
        connection.execute("SELECT * FROM verdicts LIMIT 0")
    return connection
