"""Rows of a query as CSV and Parquet, written as they come."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.store.durable import PARQUET
from steelyard.store.sql import Connection, Relation
from steelyard.store.verdicts.json_rows import distinct, json_rows

BATCH = 1 << 16
_QUOTED = frozenset('",\r\n')


def csv_lines(connection: Connection, relation: Relation) -> Iterator[str]:
    """Yield lines of CSV (RFC 4180) without their ends, the names of the columns first.

    NULL is an empty cell, an empty text `""`; booleans are true and false, bytes are hex, and
    lists and structs are JSON. All else is as in `json_rows`.
    """
    yield _line(distinct(relation.columns))
    for row in json_rows(connection, relation):
        yield _line(row.values())


def write_csv(connection: Connection, relation: Relation, out: BinaryIO) -> int:
    """Write CSV in UTF-8; return the number of rows."""
    count = -1  # not the names
    for line in csv_lines(connection, relation):
        out.write(line.encode() + b"\n")
        count += 1
    return count


def _line(values: Iterable[Any]) -> str:
    return ",".join(map(_cell, values))


def _cell(value: Any) -> str:  # noqa: ANN401 - a JSON value or bytes
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False, default=bytes.hex)
    text = str(value)
    if text and _QUOTED.isdisjoint(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def write_parquet(relation: Relation, out: BinaryIO) -> int:
    """Write Parquet in row groups of BATCH rows; return the number of rows."""
    names = distinct(relation.columns)
    reader = relation.to_arrow_reader(BATCH)
    schema = pa.schema(
        [field.with_name(name) for field, name in zip(reader.schema, names, strict=True)]
    )
    count = 0
    with pq.ParquetWriter(out, schema, **PARQUET) as writer:
        for batch in reader:
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
            count += len(batch)
    return count
