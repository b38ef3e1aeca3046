from __future__ import annotations

import datetime
import uuid
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from steelyard.errors import InputRefused, SteelyardError, UsageError
from steelyard.input import open_shards
from support.shard_files import pairs, read, write

UUIDS = pa.StructArray.from_arrays([pa.array([bytes(16)] * 3, pa.uuid())], ["id"])


def roles(tmp_path: Path, column_map: dict[str, str] | None = None, **columns) -> dict[str, str]:
    return dict(open_shards([write(tmp_path / "p.parquet", pairs(**columns))], column_map).roles)


def refused(tmp_path: Path, column_map: dict[str, str] | None = None, **columns) -> SteelyardError:
    with pytest.raises((InputRefused, UsageError)) as error:
        roles(tmp_path, column_map, **columns)
    return error.value


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)
def test_layouts_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    plain = pairs()
    table = pa.table({name: plain[name].cast(kind) for name in plain.column_names})
    good, bad = read(open_shards([write(tmp_path / "p.parquet", table)]))
    assert [row["response_b"] for row in good] == plain["response_b"].to_pylist()
    assert not bad


def test_shards_may_differ_in_the_layout_of_text(tmp_path: Path) -> None:
    plain = pairs(source=["x", None, "z"])
    write(tmp_path / "1.parquet", plain)
    coded = {name: plain[name].dictionary_encode() for name in plain.column_names}
    write(tmp_path / "2.parquet", pa.table(coded))
    good, _ = read(open_shards([tmp_path]))
    assert [row["metadata"]["source"] for row in good] == ["x", None, "z"] * 2


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([1, None, 3]), ["1", None, "3"]),
        (pa.array([1, 2, 2**64 - 1], pa.uint64()), ["1", "2", str(2**64 - 1)]),
        (pa.array(["a", "b", "c"]), ["a", "b", "c"]),
    ],
)
def test_pair_ids(tmp_path: Path, ids: pa.Array, expected: list[str | None]) -> None:
    good, _ = read(open_shards([write(tmp_path / "p.parquet", pairs(pair_id=ids))]))
    assert [row["pair_id"] for row in good] == expected


@pytest.mark.parametrize(
    ("column", "values", "cause"),
    [
        ("response_a", [1, 2, 3], "response_a (int64) for response_a has to be text"),
        ("response_a", [b"x"] * 3, "(binary) for response_a holds bytes that are not declared"),
        ("response_a", [["x"]] * 3, "has to be text"),
        ("response_a", pa.nulls(3), "has no value in any row"),
        ("reference", [["x"]] * 3, "column reference (list"),
        ("pair_id", [1.5] * 3, "has to be text or an integer"),
        ("turns", ["hello"] * 3, "has to be a list of structs"),
        ("turns", [[{"from": "human", "value": "x"}]] * 3, "has to be a list"),
        ("gold", [1, 0, 1], "is ambiguous"),
        ("gold", [True] * 3, "is ambiguous"),
        ("gold", [{"a": "x", "b": "y"}] * 3, "has to be a label"),
        ("m", UUIDS, "has the extension type arrow.uuid inside of another"),
        ("m", [{"a": 1, "A": 2}] * 3, "differ in case only"),
    ],
)
def test_types_that_cannot_be_used_are_refused(tmp_path: Path, column, values, cause) -> None:
    error = refused(tmp_path, **{column: values})
    assert cause in error.cause
    assert error.place == "p.parquet"
    assert "--map" in error.remedy or column in {"response_a", "m"}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.nulls(3), pa.string()),
        (pa.array(["x"] * 3).dictionary_encode(), pa.string()),
        (pa.array(["x"] * 3, pa.large_string()), pa.string()),
        (pa.array([b"x"] * 3, pa.large_binary()), pa.binary()),
        (pa.array([[None]] * 3, pa.list_(pa.null())), pa.list_(pa.string())),
        (pa.array([["x"]] * 3, pa.large_list(pa.string_view())), pa.list_(pa.string())),
        (pa.array([[1, 2]] * 3, pa.list_(pa.int8(), 2)), pa.list_(pa.int8())),
        (pa.array([5] * 3, pa.duration("s")), pa.int64()),
        (pa.array([np.float16(1.5)] * 3, pa.float16()), pa.float32()),
        (pa.array([[("k", "v")]] * 3, pa.map_(pa.string(), pa.string())), None),
        (pa.array([datetime.datetime(2026, 1, 1)] * 3, pa.timestamp("us", "UTC")), None),
    ],
    ids=lambda x: str(getattr(x, "type", ""))[:40],
)
def test_metadata_is_brought_to_what_duckdb_keeps(tmp_path: Path, values, kind) -> None:
    from steelyard.input import stream

    shards = open_shards([write(tmp_path / "p.parquet", pairs(m=values))])
    assert kind is None or shards.metadata.field("m").type == kind
    rows = pa.Table.from_batches([rows for rows, _ in stream(shards)], shards.schema)
    assert rows.num_rows == 3
    write(tmp_path / "out.parquet", rows)
    written = duckdb.sql(f"select metadata.m::varchar from '{tmp_path}/out.parquet'").fetchall()
    assert len(written) == 3


@pytest.mark.skipif(not hasattr(pa, "uuid"), reason="this pyarrow reads UUIDs as plain bytes")
def test_uuids_become_their_usual_spelling(tmp_path: Path) -> None:
    ids = pa.array([uuid.UUID(int=i).bytes if i else None for i in range(3)], pa.uuid())
    good, _ = read(open_shards([write(tmp_path / "p.parquet", pairs(pair_id=ids, meta=ids))]))
    expected = [None, str(uuid.UUID(int=1)), str(uuid.UUID(int=2))]
    assert [row["pair_id"] for row in good] == expected
    assert [row["metadata"]["meta"] for row in good] == expected


@pytest.mark.skipif(not hasattr(pa, "json_"), reason="this pyarrow reads JSON as text")
def test_json_becomes_text(tmp_path: Path) -> None:
    values = pa.array(['{"a": 1}', None, "[]"], pa.json_())
    good, _ = read(open_shards([write(tmp_path / "p.parquet", pairs(meta=values))]))
    assert [row["metadata"]["meta"] for row in good] == ['{"a": 1}', None, "[]"]


def test_metadata_names_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, source=["x"] * 3, Source=["y"] * 3)
    assert "source and Source differ in case only" in error.cause


def test_a_column_twice_and_a_column_without_a_name_are_refused(tmp_path: Path) -> None:
    table = pairs(x=["1"] * 3, y=["2"] * 3)
    names = ["instruction", "response_a", "response_b"]
    write(tmp_path / "p.parquet", table.rename_columns([*names, "x", "x"]))
    with pytest.raises(InputRefused, match="column x is there twice"):
        open_shards([tmp_path])
    write(tmp_path / "p.parquet", table.rename_columns([*names, "x", ""]))
    with pytest.raises(InputRefused, match="a column has no name"):
        open_shards([tmp_path])
