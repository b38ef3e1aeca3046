"""Verdicts of pairs and reads that stand in no run directory."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from steelyard.store.database import lock
from steelyard.store.views import Spec, verdict_sql


def verdicts_of(spec: Spec, pairs: pa.Table, reads: pa.Table) -> pa.Table:
    """The verdicts of these pairs, in the order of their rows.

    Args:
        spec: what is asked, without metadata.
        pairs: PAIRS without the bucket.
        reads: READS of all their prompts.
    """
    with duckdb.connect(":memory:") as connection:
        connection.register("pairs_raw", pairs)
        connection.register("reads", reads)
        lock(connection)
        return connection.sql(f'FROM ({verdict_sql(spec)}) ORDER BY "row"').to_arrow_table()
