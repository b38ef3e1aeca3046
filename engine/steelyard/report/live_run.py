"""A run that is looked at while it may be written: each answer is of the newest state."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from steelyard.comparisons.pair_texts import addresses_of, pair_texts
from steelyard.errors import SteelyardError, UsageError
from steelyard.report import aggregates
from steelyard.report.browse import Filter, matching
from steelyard.report.charts import charts
from steelyard.report.samples import add_written
from steelyard.scoring.status import run_status
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import Connection
from steelyard.store.sql_faults import limited
from steelyard.store.verdicts import database, user_queries

OLD = 2.0  # seconds after which a newer state is looked for
SECONDS = 20.0  # of a question
MOST_ROWS = 500  # of the answer to a query


class LiveRun:
    """Answers questions about a run from several threads; it holds one connection to its state."""

    def __init__(self, root: Path, *, remote: bool = False) -> None:
        self._root, self._remote = root, remote
        self._lock = threading.Lock()  # of the connection
        self._open = ExitStack()
        self._snapshot: RunSnapshot | None = None
        self._connection: Connection | None = None
        self._looked = 0.0
        self._summary: tuple[dict[str, str], dict[str, Any]] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the status of the run, a summary of its verdicts, and their drawings."""
        status = run_status(self._root)
        with self._current() as (snapshot, connection):
            if self._summary is None or self._summary[0] != snapshot.state:
                with limited(connection, SECONDS):
                    summary = aggregates.summarise(connection, snapshot)
                self._summary = snapshot.state, summary
            summary = self._summary[1]
        drawn = charts({"verdicts": summary, "status": status, "ranking": None, "evaluation": None})
        return {
            "name": self._root.resolve().name, "status": status, "verdicts": summary,
            "charts": drawn,
        }  # fmt: skip

    def pairs(self, given: dict[str, str]) -> dict[str, Any]:
        """Return the pairs that match a filter, given as texts by the fields of `Filter`.

        Raises:
            msgspec.ValidationError: a value cannot be one of that field.
        """
        wanted = msgspec.convert(given, Filter, strict=False)
        with self._current() as (snapshot, connection), limited(connection, SECONDS):
            return matching(connection, snapshot, wanted)

    def pair(self, given: dict[str, str]) -> dict[str, Any]:
        """Return the texts of a pair, and what the judge wrote.

        Raises:
            UsageError: shard and row are missing.
        """
        try:
            place = given["shard"], int(given["row"])
        except (KeyError, ValueError):
            raise UsageError("no pair is named", remedy="give its shard and row") from None
        pair: dict[str, Any] = {"shard": place[0], "row": place[1]}
        with self._current() as (snapshot, connection), limited(connection, SECONDS):
            add_written(connection, snapshot.record, [pair])
            addresses = addresses_of(connection, snapshot.record, [place])
        try:
            texts = pair_texts(snapshot.record, addresses, remote=self._remote).get(place, {})
        except SteelyardError as error:
            return {**pair, "texts": {}, "missing": error.cause}
        return {**pair, "texts": {role: text for role, text in texts.items() if text}}

    def sql(self, given: dict[str, str]) -> dict[str, Any]:
        """Return the first rows of a query.

        Raises:
            UsageError: DuckDB refuses it.
        """
        with self._current() as (snapshot, _):
            pass
        query = given.get("query", "")
        answer = user_queries.rows(snapshot, query, SECONDS, remote=self._remote)
        rows = list(islice(answer, MOST_ROWS + 1))
        return {"rows": rows[:MOST_ROWS], "more": len(rows) > MOST_ROWS}

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._open.close()

    @contextmanager
    def _current(self) -> Iterator[tuple[RunSnapshot, Connection]]:
        """Give the newest state and a connection to it, to one thread at a time."""
        with self._lock:
            if self._connection is None or time.monotonic() - self._looked > OLD:
                snapshot = RunSnapshot.take(self._root)
                if self._snapshot is None or snapshot.state != self._snapshot.state:
                    self._open.close()
                    self._connection = self._open.enter_context(database.open_sql(snapshot))
                    self._snapshot = snapshot
                self._looked = time.monotonic()
            assert self._snapshot is not None  # noqa: S101 - it was just taken
            assert self._connection is not None  # noqa: S101 - it was just opened
            yield self._snapshot, self._connection
