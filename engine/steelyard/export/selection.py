"""The scratch database in which verdicts become the rows of a dataset.

It holds features of the texts. It holds texts themselves only for rows that combine those of
several places. The statements are in `export.filters` and `export.items`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from steelyard.comparisons.from_scores import comparisons_sql
from steelyard.comparisons.pair_texts import are_paired
from steelyard.core.arrow import to_ints
from steelyard.core.schemas import Int64
from steelyard.errors import IntegrityFault, UsageError, check_keys
from steelyard.export import filters, items, traces
from steelyard.export.options import ExportOptions
from steelyard.export.pairing import NOTHING, VerdictColumns, choose, measure_noise
from steelyard.export.shrinkage import NoiseSums, estimate_noise
from steelyard.protocols.protocol import Protocol
from steelyard.store.durable import writing
from steelyard.store.folder import Folder
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import Connection, folder_for_files, one_row, open_scratch
from steelyard.store.sql_faults import refusing
from steelyard.store.verdicts.database import open_sql

BATCH = 1 << 16
CHOOSE_FROM = 1 << 20  # verdicts in memory at a time

# Features of the texts of a pair. References number responses in the order in which they will be
# read again.
PAIR_TEXTS = pa.schema(
    [
        ("n", pa.int64()),  # index of the pair in the input
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("instruction", pa.uint64()),  # digest, with the system message and the turns before it
        ("cluster_leader", pa.uint64()),  # digest of the first instruction that is nearly the same
        ("split_hash", pa.float64()),  # in [0, 1): decides the split
        ("response_a", pa.uint64()),
        ("response_b", pa.uint64()),
        ("ref_a", pa.int64()),
        ("ref_b", pa.int64()),
        ("length_a", pa.int64()),
        ("length_b", pa.int64()),
        ("problem", pa.string()),  # a reason why these texts cannot be used
    ]
)
_BY_INSTRUCTION = """
SELECT n, instruction, response_a, response_b, preference, raw, coalesce(gap, 'nan') AS gap
FROM candidates
ORDER BY instruction, n"""
_VERDICTS_OF_PAIRS = "count(*) + count(other)"  # a pair of two verdicts has another


@dataclass(slots=True)
class Counts:
    """What became of the verdicts, and the rows of the dataset."""

    verdicts: int = 0
    removed: dict[str, int] = field(default_factory=dict)  # reason -> verdicts
    exported: int = 0  # verdicts
    rows: dict[str, int] = field(default_factory=dict)  # split -> rows
    instructions: dict[str, int] = field(default_factory=dict)  # split -> distinct instructions


@dataclass(frozen=True, slots=True)
class AvailableColumns:
    """Which columns of the verdicts have values."""

    calibrated: bool
    gold: bool
    consistent: bool
    label_mass: bool
    trusted: bool


class Selection:
    """Verdicts on their way into a dataset (`open_selection` makes it)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.counts = Counts()
        self.by_response = False  # whether the texts of a verdict are in a row per response
        self.accuracy: dict[str, Any] | None = None  # of selected pairs; None: all are taken
        self._waiting: list[pa.Table] = []

    def load_verdicts(self, run: RunSnapshot, where: str | None) -> AvailableColumns:
        """Copy the verdicts of a run.

        Raises:
            UsageError: DuckDB refuses `where`.
        """
        # The line's end keeps a comment from swallowing the parenthesis.
        wanted = "true" if where is None else f"coalesce(CAST(({where}\n) AS BOOLEAN), false)"
        with open_sql(run) as locked:
            filters.require_repeatable(locked, where or "")
            source, scored = comparisons_sql(locked, run)
            self.by_response = scored or are_paired(run.record)
            query = filters.verdicts_sql(source, wanted, by_response=self.by_response)
            with refusing(_wrong_condition):
                self.create("verdicts", locked.sql(query).to_arrow_reader(BATCH))
        self.counts.verdicts, *values = one_row(
            self._connection,
            "SELECT count(*), count(calibrated_preference), count(gold), count(consistent),"
            " count(label_mass), count(trusted) FROM verdicts",
        )
        return AvailableColumns(*(count > 0 for count in values))

    def require_models(self, names: Sequence[str]) -> None:
        """Raise UsageError for a name that is not the model of any response."""
        query = "SELECT DISTINCT unnest([model_a, model_b]) FROM verdicts"
        known = sorted(name for (name,) in self.execute(query).fetchall() if name) if names else ()
        check_keys(names, known, "--chosen-model, --rejected-model")

    def load_outputs(self, run: RunSnapshot) -> Protocol:
        """Copy what a run's judge wrote, for the format `trace`; return the protocol."""
        protocol = traces.traced_protocol(run.record)
        with open_sql(run) as locked:
            outputs = locked.sql(traces.outputs_sql(protocol))
            self.create("outputs", outputs.to_arrow_reader(BATCH))
        return protocol

    def execute(self, sql: str) -> Connection:
        """Run a statement of ours."""
        return self._connection.execute(sql)

    def create(self, table: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Create a table of these rows."""
        self._connection.from_arrow(rows).create(table)

    def insert(self, table: str, rows: pa.Table) -> None:
        """Append rows to a table."""
        self._connection.from_arrow(rows).insert_into(table)

    def stream(self, query: str) -> pa.RecordBatchReader:
        """Stream the rows of a query of ours."""
        return self._connection.cursor().sql(query).to_arrow_reader(BATCH)

    def add_texts(self, features: pa.Table) -> None:
        """Add features of the texts of some pairs, rows of PAIR_TEXTS."""
        self._waiting.append(features)
        if sum(map(len, self._waiting)) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            batch, self._waiting = pa.concat_tables(self._waiting), []
            self.insert("pair_texts", batch)

    def decide(self, options: ExportOptions, *, calibrated: bool, in_shards: bool) -> Counts:
        """Decide which verdicts become rows of the dataset, and count the others by reason.

        Calibrated preferences are exported, or raw ones; `in_shards` says whether references are
        rows of shards, two per row.

        Raises:
            IntegrityFault: the counts do not add up.
        """
        self._flush()
        self._make_candidates(options, calibrated=calibrated)
        for reason, query in filters.candidate_filters(options).items():
            self._drop("candidates", reason, query, "count(*)")
        if options.selection == "all":
            self.execute(items.pairs_sql(options))
        else:
            self._choose(options.selection, calibrated=calibrated)
        self.execute("DROP TABLE candidates")
        queries = filters.pair_filters(options)
        if options.format == "sft":
            queries["repeated"] = items.REPEATED
        for reason, query in queries.items():
            self._drop("pairs", reason, query, _VERDICTS_OF_PAIRS)
        if options.format == "kto":
            self.execute(items.COMPLETIONS)
        self.execute(items.items_sql(options, in_shards=in_shards))
        if options.format == "kto":
            self._drop("pairs", "undecided", items.UNDECIDED, _VERDICTS_OF_PAIRS)
        return self._count_rows()

    def items(self) -> pa.RecordBatchReader:
        """Stream the output rows whose texts come from a single shard row, in shard order."""
        return self.stream("SELECT * FROM items WHERE direct ORDER BY ref, item")

    def references(self) -> Int64:
        """Return the responses that other output rows need, ascending."""
        query = "SELECT DISTINCT unnest([ref, second_ref]) AS ref FROM items WHERE NOT direct"
        table = self._connection.sql(f"{query} ORDER BY ref").to_arrow_table()
        return to_ints(table["ref"].drop_null())

    def _make_candidates(self, options: ExportOptions, *, calibrated: bool) -> None:
        preference = "calibrated_preference" if calibrated else "raw_preference"
        self.execute(filters.candidates_sql(options, preference))
        if options.format == "trace":
            self.execute(traces.traces_sql(options))
        self.execute("DROP TABLE verdicts; DROP TABLE pair_texts")
        reasons = "SELECT reason, count(*) FROM candidates WHERE reason IS NOT NULL GROUP BY 1"
        self.counts.removed.update(self.execute(reasons).fetchall())
        self.execute("DELETE FROM candidates WHERE reason IS NOT NULL")

    def _drop(self, table: str, reason: str, query: str, verdicts: str) -> None:
        """Delete rows of a table by their numbers n, and count their verdicts."""
        self.execute(f"CREATE OR REPLACE TABLE gone AS {query}")
        (self.counts.removed[reason],) = one_row(
            self._connection,
            f"SELECT {verdicts} FROM {table} WHERE n IN (FROM gone)",  # noqa: S608 - our own names
        )
        self.execute(f"DELETE FROM {table} WHERE n IN (FROM gone)")  # noqa: S608

    def _choose(self, selection: str, *, calibrated: bool) -> None:
        """Create `pairs` with one pair per instruction; other verdicts are not selected."""
        self.create("chosen", NOTHING.to_table(np.zeros(0, dtype=np.int64)))
        sums = NoiseSums()
        for rows in self._by_instruction():
            measure_noise(_columns(rows), sums)
        shrinkage, unconnected = estimate_noise(sums, calibrated=calibrated), 0
        self.accuracy = {
            "noise_share": None if shrinkage is None else round(1 - shrinkage.signal, 6),
            "noise_from": None if shrinkage is None else shrinkage.source,
        }
        for rows in self._by_instruction():
            chosen = choose(_columns(rows), selection, shrinkage)
            self.insert("chosen", chosen.to_table(rows["n"].to_numpy()))
            unconnected += chosen.unconnected
        self.execute(items.CHOSEN_PAIRS)
        candidates, selected = one_row(
            self._connection,
            f"SELECT (SELECT count(*) FROM candidates), {_VERDICTS_OF_PAIRS} FROM pairs",  # noqa: S608
        )
        self.counts.removed["unconnected"] = unconnected
        self.counts.removed["not_selected"] = candidates - selected - unconnected

    def _by_instruction(self) -> Iterator[pa.Table]:
        """Yield tables of candidates, some 100 MB each; an instruction is in one table only."""
        rest: pa.Table | None = None
        for batch in self.stream(_BY_INSTRUCTION):
            rows = pa.Table.from_batches([batch])
            rest = rows if rest is None else pa.concat_tables([rest, rows])
            if len(rest) < CHOOSE_FROM:
                continue
            instruction = rest["instruction"].to_numpy()
            if end := int(np.searchsorted(instruction, instruction[-1])):
                yield rest.slice(0, end)
                rest = rest.slice(end)
        if rest is not None and len(rest):
            yield rest

    def _count_rows(self) -> Counts:
        counts = self.counts
        if self.accuracy is not None:
            query = "SELECT round(avg(claimed), 6), round(avg(probability), 6) FROM pairs"
            claimed, expected = one_row(self._connection, query)
            known = self.accuracy["noise_share"] is not None
            self.accuracy |= {"claimed": claimed, "expected": expected if known else None}
        for split, rows, instructions in self.execute(
            "SELECT split, count(*), count(DISTINCT instruction) FROM items GROUP BY 1 ORDER BY 1"
        ).fetchall():
            counts.rows[split], counts.instructions[split] = rows, instructions
        (counts.exported,) = one_row(
            self._connection,
            "SELECT count(DISTINCT verdict) FROM (SELECT n AS verdict FROM pairs UNION ALL"
            " SELECT other FROM pairs)",
        )
        removed = {reason: counts.removed.pop(reason, 0) for reason in filters.REASONS}
        if counts.removed or counts.exported + sum(removed.values()) != counts.verdicts:
            raise IntegrityFault(
                f"{counts.verdicts:,} verdicts are not {counts.exported:,} exported and"
                f" {sum(removed.values()):,} removed",
                effect="nothing was written",
                remedy="report this with the command that was given",
            )
        counts.removed = {reason: count for reason, count in removed.items() if count}
        return counts


def _columns(rows: pa.Table) -> VerdictColumns:
    return VerdictColumns(*(rows[name].to_numpy() for name in rows.column_names[1:]))


def _wrong_condition(words: str) -> UsageError:
    return UsageError(
        f"DuckDB refuses --where: {words}",
        remedy="give a condition on the columns of verdicts (docs/sql.md), such as"
        " --where \"model_a <> 'x' AND length_a < 4000\"",
    )


@contextmanager
def open_selection(folder: Path) -> Iterator[Selection]:
    """Open a selection whose files are in a folder, which the caller removes."""
    with (
        writing(folder, "nothing was written", "export again"),
        folder_for_files(Folder(folder)) as place,
        # All queries have an ORDER BY.
        open_scratch(place, "spill", "selection.duckdb", keep_order=False) as connection,
    ):
        selection = Selection(connection)
        selection.create("pair_texts", PAIR_TEXTS.empty_table())
        yield selection
