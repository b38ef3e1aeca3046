"""The texts of a run's pairs as a table for SQL, read from its shards when a query scans it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pyarrow as pa

from steelyard.core.schemas import INTAKE, READ_FROM
from steelyard.errors import SteelyardError
from steelyard.input import stream
from steelyard.store.run_input import reopen_input
from steelyard.store.run_record import RunRecord, ScoredRecord
from steelyard.store.sql import Connection

TEXTS = "texts"  # the table's name
COLUMNS = (
    "shard", "row", "item", "instruction", "response_a", "response_b", "system", "turns", "turns_a",
    "turns_b", "reference",
)  # fmt: skip
SCHEMA = pa.schema([INTAKE.field(name) for name in COLUMNS])

_OF_RESPONSES = "texts_of_responses"
# Of pairs, whose own rows hold the texts.
_BY_ROW = f"SELECT * EXCLUDE (item) FROM {_OF_RESPONSES}"  # noqa: S608 - constants
# Of pairs that were made of two rows, or of two items of their lists.
_BY_RESPONSE = f"""
SELECT v.shard, v."row", a.instruction, a.response_a, b.response_a AS response_b, a.system, a.turns,
  a.turns_a, b.turns_a AS turns_b, a.reference
FROM verdicts v
JOIN {_OF_RESPONSES} a ON {{a}} LEFT JOIN {_OF_RESPONSES} b ON {{b}}"""  # noqa: S608 - constants
_AT = """{side}.shard = v.metadata.{field}.shard AND {side}."row" = v.metadata.{field}."row"
  AND {side}.item IS NOT DISTINCT FROM v.metadata.{field}.item"""


class TextTable:
    """Texts by shard and row, as DuckDB reads them: through Arrow's interface of streams.

    Each scan passes over the shards once, with a few batches in memory. DuckDB shows what Python
    raises in its own words; `raising` raises it as it was.
    """

    def __init__(self, record: RunRecord, *, remote: bool = False) -> None:
        self._record, self._remote = record, remote
        self._fault: SteelyardError | None = None

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Raise the error that ended a scan.

        Raises:
            UsageError: the run has no texts, or they may not be fetched.
            InputRefused: the shards are missing or have changed.
        """
        try:
            yield
        except Exception:  # of any type that DuckDB makes of it; one is always raised
            if self._fault is not None:
                raise self._fault from None
            raise

    def create(self, connection: Connection) -> None:
        """Create the view TEXTS, with a row per pair."""
        connection.register(_OF_RESPONSES, self)
        sides = {
            side: _AT.format(side=side, field=field)
            for side, field in zip("ab", READ_FROM, strict=True)
        }
        record = self._record
        paired = isinstance(record, ScoredRecord) and record.config.pairs is not None
        sql = _BY_RESPONSE.format_map(sides) if paired else _BY_ROW
        connection.execute(f"CREATE TEMP VIEW {TEXTS} AS {sql}")

    def __arrow_c_schema__(self) -> object:
        return SCHEMA.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        batches = pa.RecordBatchReader.from_batches(SCHEMA, self._batches())
        return batches.__arrow_c_stream__(requested_schema)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            shards, limits = reopen_input(
                self._record,
                otherwise="leave the table texts out of the query",
                remote=self._remote,
            )
            with closing(stream(shards, limits)) as batches:
                for rows, _ in batches:
                    yield rows.select(COLUMNS).cast(SCHEMA)
        except SteelyardError as error:
            self._fault = error
            raise
