"""The scratch database in which verdicts become the rows of a dataset.

It holds what was seen of the texts, never the texts themselves but those of rows that take them
from several places. What is decided there stands in `export.filters` and `export.items`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from steelyard.core.schemas import Int64
from steelyard.errors import EnvironmentFault, IntegrityFault, UsageError
from steelyard.export import filters, items
from steelyard.export.options import ExportOptions
from steelyard.export.pairing import CHOSEN, VerdictColumns, choose
from steelyard.store.rundir import RunDir
from steelyard.store.sql import MACHINE_FAULTS, Connection, one_row, open_scratch, refusing
from steelyard.store.verdicts.database import open_sql

BATCH = 1 << 16

# What is known of the texts of a pair. References number responses in the order in which they
# will be read again.
SEEN = pa.schema(
    [
        ("n", pa.int64()),  # place of the pair in the input
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("instruction", pa.uint64()),  # digest, with the system message and the turns before it
        ("leader", pa.uint64()),  # digest of the first instruction that is nearly the same
        ("spread", pa.float64()),  # in [0, 1): decides the split
        ("response_a", pa.uint64()),
        ("response_b", pa.uint64()),
        ("ref_a", pa.int64()),
        ("ref_b", pa.int64()),
        ("length_a", pa.int64()),
        ("length_b", pa.int64()),
        ("problem", pa.string()),  # a reason why these texts cannot be used
    ]
)

CHOSEN_AT_ONCE = 1 << 20  # verdicts
_BY_INSTRUCTION = """
SELECT n, instruction, response_a, response_b, preference, raw FROM candidates
ORDER BY instruction, n"""
_VERDICTS = """
SELECT shard, "row", pair_id, model_a, model_b, status, winner, gold, consistent, trusted,
  length_b IS NULL AND raw_preference IS NULL AS alone, instruction_id,
  raw_preference, calibrated_preference, least(label_mass_ab, label_mass_ba) AS label_mass,
  {where} AS wanted
FROM verdicts"""


@dataclass(slots=True)
class Counts:
    """What became of the verdicts, and the rows of the dataset."""

    verdicts: int = 0
    removed: dict[str, int] = field(default_factory=dict)  # reason -> verdicts
    exported: int = 0  # verdicts
    rows: dict[str, int] = field(default_factory=dict)  # split -> rows
    instructions: dict[str, int] = field(default_factory=dict)  # split -> different ones

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class AvailableColumns:
    """Which columns of the verdicts have values."""

    calibrated: bool
    gold: bool
    consistent: bool
    label_mass: bool
    trusted: bool


class Selection:
    """Verdicts on their way into a dataset; see `open_selection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.counts = Counts()
        self._waiting: list[pa.Table] = []

    def take_verdicts(self, run: RunDir, where: str | None) -> AvailableColumns:
        """Copy the verdicts of a run.

        Raises:
            UsageError: DuckDB refuses `where`.
        """
        # The line's end keeps a comment from swallowing the parenthesis.
        wanted = "true" if where is None else f"coalesce(CAST(({where}\n) AS BOOLEAN), false)"
        with open_sql(run) as locked:
            _require_settled(locked, where or "")
            with refusing(_wrong_condition):
                reader = locked.sql(_VERDICTS.format(where=wanted)).to_arrow_reader(BATCH)
                self.execute("CREATE TABLE verdicts AS SELECT * FROM reader", reader=reader)
        found = one_row(
            self._connection,
            "SELECT count(*), count(calibrated_preference), count(gold), count(consistent),"
            " count(label_mass), count(trusted) FROM verdicts",
        )
        self.counts.verdicts = found[0]
        return AvailableColumns(*(count > 0 for count in found[1:]))

    def execute(self, sql: str, **tables: pa.Table | pa.RecordBatchReader) -> Connection:
        """Run a statement of ours, which may name Arrow tables."""
        for name, table in tables.items():
            self._connection.register(name, table)
        try:
            return self._connection.execute(sql)
        finally:
            for name in tables:
                self._connection.unregister(name)

    def saw(self, seen: pa.Table) -> None:
        """Take what is known of some texts: rows of SEEN."""
        self._waiting.append(seen)
        if sum(map(len, self._waiting)) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            seen, self._waiting = pa.concat_tables(self._waiting), []
            self.execute("INSERT INTO seen SELECT * FROM batch", batch=seen)

    def settle(self, options: ExportOptions, *, calibrated: bool, in_shards: bool) -> Counts:
        """Decide about every verdict.

        Args:
            options: filters and format.
            calibrated: whether calibrated preferences are exported, or raw ones.
            in_shards: whether references are rows of shards, two a row.

        Raises:
            IntegrityFault: the books do not close.
        """
        preference = "calibrated_preference" if calibrated else "raw_preference"
        self._flush()
        execute = self._connection.execute
        execute(filters.candidates_sql(options, preference))
        execute("DROP TABLE verdicts; DROP TABLE seen")
        for reason, verdicts in execute(
            "SELECT reason, count(*) FROM candidates WHERE reason IS NOT NULL GROUP BY 1"
        ).fetchall():
            self.counts.removed[reason] = verdicts
        execute("DELETE FROM candidates WHERE reason IS NOT NULL")
        for reason, query in filters.candidate_filters(options).items():
            self._leave_out("candidates", reason, query, "count(*)")
        if options.selection == "all":
            execute(items.pairs_sql(options))
        else:
            self._choose(options.selection)
        execute("DROP TABLE candidates")
        queries = filters.pair_filters(options)
        if options.format == "sft":
            queries["repeated"] = items.REPEATED
        for reason, query in queries.items():
            self._leave_out("pairs", reason, query, "count(*) + count(other)")
        if options.format == "kto":
            execute(items.COMPLETIONS)
            execute(items.items_sql(options, in_shards=in_shards))
            self._leave_out("pairs", "undecided", items.UNDECIDED, "count(*) + count(other)")
        else:
            execute(items.items_sql(options, in_shards=in_shards))
        return self._close()

    def items(self) -> pa.RecordBatchReader:
        """Rows to be whose texts stand in one row of the shards, in its order."""
        return self.stream("SELECT * FROM items WHERE direct ORDER BY ref, item")

    def references(self) -> Int64:
        """The responses that rows need from elsewhere, ascending."""
        table = self._connection.sql(
            "SELECT DISTINCT unnest([ref, second_ref]) AS ref FROM items WHERE NOT direct"
            " ORDER BY ref"
        ).to_arrow_table()
        found: Int64 = table["ref"].drop_null().to_numpy()
        return found

    def stream(self, query: str) -> pa.RecordBatchReader:
        """The rows of a query of ours."""
        return self._connection.cursor().sql(query).to_arrow_reader(BATCH)

    def _leave_out(self, table: str, reason: str, query: str, verdicts: str) -> None:
        """Delete rows of a table by their numbers n, and count the verdicts they stand for."""
        execute = self._connection.execute
        execute(f"CREATE OR REPLACE TABLE gone AS {query}")
        (self.counts.removed[reason],) = one_row(
            self._connection,
            f"SELECT {verdicts} FROM {table} WHERE n IN (FROM gone)",  # noqa: S608 - our own names
        )
        execute(f"DELETE FROM {table} WHERE n IN (FROM gone)")  # noqa: S608

    def _choose(self, selection: str) -> None:
        """The table `pairs`: one of each instruction; the other verdicts are not selected."""
        self.execute("CREATE TABLE chosen AS SELECT * FROM none", none=CHOSEN.empty_table())
        unconnected = 0
        for rows in self._by_instruction():
            columns = [rows[name].to_numpy() for name in rows.column_names[1:]]
            found = choose(VerdictColumns(*columns), selection)
            batch = found.to_table(rows["n"].to_numpy())
            self.execute("INSERT INTO chosen SELECT * FROM batch", batch=batch)
            unconnected += found.unconnected
        self.execute(items.CHOSEN_PAIRS)
        everything, taken = one_row(
            self._connection,
            "SELECT (SELECT count(*) FROM candidates), (SELECT count(*) + count(other) FROM pairs)",
        )
        self.counts.removed["unconnected"] = unconnected
        self.counts.removed["not_selected"] = everything - taken - unconnected

    def _by_instruction(self) -> Iterator[pa.Table]:
        """Candidates, those of an instruction side by side and in one table, some 100 MB each."""
        rest: pa.Table | None = None
        for batch in self.stream(_BY_INSTRUCTION):
            rows = pa.Table.from_batches([batch])
            rest = rows if rest is None else pa.concat_tables([rest, rows])
            if len(rest) < CHOSEN_AT_ONCE:
                continue
            last = rest["instruction"].to_numpy()
            end = int(np.flatnonzero(last != last[-1])[-1] + 1) if last[0] != last[-1] else 0
            if end:
                yield rest.slice(0, end)
                rest = rest.slice(end)
        if rest is not None and len(rest):
            yield rest

    def _close(self) -> Counts:
        counts = self.counts
        for split, rows, instructions in self._connection.execute(
            "SELECT split, count(*), count(DISTINCT instruction) FROM items GROUP BY 1 ORDER BY 1"
        ).fetchall():
            counts.rows[split], counts.instructions[split] = rows, instructions
        counts.exported = one_row(
            self._connection,
            "SELECT count(DISTINCT one) FROM (SELECT n AS one FROM pairs UNION ALL"
            " SELECT other FROM pairs)",
        )[0]
        known = {name: counts.removed.pop(name, 0) for name in filters.REASONS}
        if counts.removed or counts.exported + sum(known.values()) != counts.verdicts:
            raise IntegrityFault(
                f"{counts.verdicts:,} verdicts are not {counts.exported:,} exported and"
                f" {sum(known.values()):,} removed",
                effect="nothing was written",
                remedy="report this with the command that was given",
            )
        counts.removed = {name: verdicts for name, verdicts in known.items() if verdicts}
        return counts


def _require_settled(connection: Connection, where: str) -> None:
    """Refuse a condition that may hold now and not the next time.

    Raises:
        UsageError: it calls a function such as random() or now().
    """
    words = set(re.findall(r"[a-z_0-9]+", where.lower()))
    found = connection.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
    ).fetchall()
    called = {name for (name,) in found if re.search(rf"\b{re.escape(name)}\s*\(", where.lower())}
    called |= words & {"current_date", "current_time", "current_timestamp", "localtimestamp"}
    if called:
        raise UsageError(
            f"--where calls {', '.join(sorted(called))}, which is another one each time",
            effect="the same command would not make the same dataset",
            remedy="for a random part use hash(pair_id) % 100 < 50, or --per-instruction, --test",
        )


def _wrong_condition(words: str) -> UsageError:
    return UsageError(
        f"DuckDB refuses --where: {words}",
        remedy="give a condition on the columns of verdicts (docs/sql.md), such as"
        " --where \"model_a <> 'x' AND length_a < 4000\"",
    )


@contextmanager
def open_selection(folder: Path) -> Iterator[Selection]:
    """A selection whose files lie in a folder, which the caller removes."""

    def fault(words: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"the scratch database failed: {words}",
            place=str(folder),
            effect="nothing was written",
            remedy="free space where --out is to be, then export again",
        )

    file, spill = folder / "selection.duckdb", folder / "spill"
    with (
        refusing(fault, MACHINE_FAULTS),
        open_scratch(spill, file, keep_order=False) as connection,  # all queries have an ORDER BY
    ):
        selection = Selection(connection)
        selection.execute("CREATE TABLE seen AS SELECT * FROM none", none=SEEN.empty_table())
        yield selection
