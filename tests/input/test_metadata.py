"""Every type that Parquet can hold as metadata: read back live, from the hand-off file and a copy.

Expected texts are those of DuckDB for the value that was written, or for its documented conversion.

Kind of fault: values that a type cannot hold.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import steelyard
from steelyard.input import open_shards
from support.helpers import command
from support.shard_files import not_utf8, pairs, read, write

LAST = 2**63 - 1


def stamps(unit: str, *values: int | None, zone: str | None = None) -> pa.Array:
    return pa.array(values, pa.int64()).cast(pa.timestamp(unit, zone))


def times(unit: str, *values: int | None) -> pa.Array:
    width = pa.int32() if unit in {"s", "ms"} else pa.int64()
    kind = pa.time32(unit) if unit in {"s", "ms"} else pa.time64(unit)
    return pa.array(values, width).view(kind)


def coded(values: pa.Array) -> pa.Array:
    return values.dictionary_encode()


# Name -> two values, DuckDB's type of the column, and what it shows of the values.
CASES = {
    "null": (pa.nulls(2), "VARCHAR", [None, None]),
    "boolean": (pa.array([True, None]), "BOOLEAN", ["true", None]),
    "int8": (pa.array([-128, None], pa.int8()), "TINYINT", ["-128", None]),
    "uint64": (pa.array([2**64 - 1, 0], pa.uint64()), "UBIGINT", [str(2**64 - 1), "0"]),
    "half": (pa.array(np.array([1.5, 65504], np.float16)), "FLOAT", ["1.5", "65504.0"]),
    "float": (pa.array([1.5, np.inf], pa.float32()), "FLOAT", ["1.5", "inf"]),
    "double": (pa.array([-np.inf, np.nan]), "DOUBLE", ["-inf", "nan"]),
    "decimal": (pa.array([Decimal("1.25"), None]), "DECIMAL(3,2)", ["1.25", None]),
    "decimal32": (pa.array([Decimal("-1.25")] * 2, pa.decimal32(7, 2)), None, ["-1.25"] * 2),
    "decimal256": (
        pa.array([Decimal("9" * 28 + ".75"), None], pa.decimal256(30, 2)),
        "DECIMAL(30,2)",
        ["9" * 28 + ".75", None],
    ),
    "decimal of 60 digits": (
        pa.array([Decimal("9" * 58 + ".75"), None], pa.decimal256(60, 2)),
        "VARCHAR",
        ["9" * 58 + ".75", None],
    ),
    "text": (pa.array(["a\0b", "€"]), "VARCHAR", ["a\0b", "€"]),
    "large text": (pa.array(["a", None], pa.large_string()), "VARCHAR", ["a", None]),
    "text view": (pa.array(["a", None], pa.string_view()), "VARCHAR", ["a", None]),
    "bytes": (pa.array([b"\xff\0a", None]), "BLOB", ["\\xFF\\x00a", None]),
    "large bytes": (pa.array([b"ab", None], pa.large_binary()), "BLOB", ["ab", None]),
    "bytes view": (pa.array([b"ab", None], pa.binary_view()), "BLOB", ["ab", None]),
    "fixed bytes": (pa.array([b"abc", None], pa.binary(3)), "BLOB", ["abc", None]),
    "date": (
        pa.array([2932897, -719528], pa.int32()).cast(pa.date32()),
        "DATE",
        ["10000-01-01", "0001-01-01 (BC)"],
    ),
    "endless date": (
        pa.array([2**31 - 1, -(2**31) + 1], pa.int32()).cast(pa.date32()),
        "DATE",
        ["infinity", "-infinity"],
    ),
    "date in ms": (pa.array([86_400_000, None], pa.date64()), "DATE", ["1970-01-02", None]),
    "seconds": (stamps("s", 253402300800, None), None, ["10000-01-01 00:00:00", None]),
    "milliseconds": (
        stamps("ms", 253402300800001, -1),
        "TIMESTAMP",
        ["10000-01-01 00:00:00.001", "1969-12-31 23:59:59.999"],
    ),
    "microseconds": (stamps("us", LAST, -LAST), "TIMESTAMP", ["infinity", "-infinity"]),
    "nanoseconds": (
        stamps("ns", 1, 10**18 + 1),
        "TIMESTAMP_NS",
        ["1970-01-01 00:00:00.000000001", "2001-09-09 01:46:40.000000001"],
    ),
    "UTC": (
        stamps("us", 1, 0, zone="Europe/Berlin"),
        "TIMESTAMP WITH TIME ZONE",
        ["1970-01-01 00:00:00.000001+00", "1970-01-01 00:00:00+00"],
    ),
    "UTC in ns": (  # cut: DuckDB 1.5 has no such type
        stamps("ns", 1999, 1000, zone="UTC"),
        "TIMESTAMP WITH TIME ZONE",
        ["1970-01-01 00:00:00.000001+00"] * 2,
    ),
    "time in s": (times("s", 0, 86399), "TIME", ["00:00:00", "23:59:59"]),
    "time in ms": (times("ms", 1, 86399999), "TIME", ["00:00:00.001", "23:59:59.999"]),
    "time in us": (times("us", 1, None), "TIME", ["00:00:00.000001", None]),
    "time in ns": (times("ns", 1999, 1000), "TIME", ["00:00:00.000001"] * 2),  # cut, too
    "duration": (pa.array([-5, 7], pa.duration("ns")), "BIGINT", ["-5", "7"]),
    "list": (pa.array([[1, None], []]), "BIGINT[]", ["[1, NULL]", "[]"]),
    "large list": (pa.array([["a"], None], pa.large_list(pa.string())), "VARCHAR[]", ["[a]", None]),
    "list view": (pa.array([["a"], None], pa.list_view(pa.string_view())), None, ["[a]", None]),
    "large list view": (
        pa.array([["a"], None], pa.large_list_view(pa.string())), None, ["[a]", None]
    ),
    "views in a struct": (
        pa.array([{"a": ["x"]}, None], pa.struct([("a", pa.list_view(pa.string()))])),
        "STRUCT(a VARCHAR[])",
        ["{'a': [x]}", None],
    ),
    "views in a map": (
        pa.array([[("k", ["x"])], None], pa.map_(pa.string(), pa.list_view(pa.string()))),
        "MAP(VARCHAR, VARCHAR[])",
        ["{k=[x]}", None],
    ),
    "fixed list": (pa.array([[1], None], pa.list_(pa.int32(), 1)), "INTEGER[]", ["[1]", None]),
    "list of halves": (pa.array([[1.5], None], pa.list_(pa.float16())), "FLOAT[]", ["[1.5]", None]),
    "list of decimals": (
        pa.array([[Decimal("1.25")], None], pa.list_(pa.decimal256(60, 2))),
        "VARCHAR[]",
        ["[1.25]", None],
    ),
    "list of times": (
        pa.array([[1, LAST], None], pa.list_(pa.int64())).cast(pa.list_(pa.timestamp("us"))),
        "TIMESTAMP[]",
        ["['1970-01-01 00:00:00.000001', infinity]", None],
    ),
    "struct": (
        pa.array([{"a": 1, "b": {"c": None}}, None], pa.struct([
            ("a", pa.float16()), ("b", pa.struct([("c", pa.null())])),
        ])),
        "STRUCT(a FLOAT, b STRUCT(c VARCHAR))",
        ["{'a': 1.0, 'b': {'c': NULL}}", None],
    ),
    "map": (
        pa.array([[("a", 1), ("b", None)], None], pa.map_(pa.string(), pa.int64())),
        "MAP(VARCHAR, BIGINT)",
        ["{a=1, b=NULL}", None],
    ),
    "coded text": (coded(pa.array(["a", None])), "VARCHAR", ["a", None]),
    "coded numbers": (coded(pa.array([5, None])), "BIGINT", ["5", None]),
    "coded times": (coded(stamps("ms", 1, 1)), None, ["1970-01-01 00:00:00.001"] * 2),
    "list of coded": (
        pa.array([["x"], None]).cast(pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        "VARCHAR[]",
        ["[x]", None],
    ),
    "UUID": (
        pa.array([bytes(15) + b"\1", None], pa.uuid()),
        "VARCHAR",
        ["00000000-0000-0000-0000-000000000001", None],
    ),
    "JSON": (pa.array(['{"a": 1}', None], pa.json_()), "VARCHAR", ['{"a": 1}', None]),
    "bool8": (
        pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8())),
        "TINYINT",
        ["1", None],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose rows have a column of every type."""
    folder = tmp_path_factory.mktemp("types")
    write(folder / "p.parquet", pairs(2, **{name: values for name, (values, *_) in CASES.items()}))
    steelyard.score(folder / "p.parquet", run=folder / "run", judge="scripted")
    copied = command("compact", folder / "run", "--out", folder / "copy.duckdb")
    assert copied.returncode == 0, copied.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def shown(run):
    """Texts and types of all columns: of the hand-off file, its copy, and live views."""
    columns = [f'metadata."{name}"' for name in CASES]
    texts = ", ".join(f"{column}::VARCHAR" for column in columns)
    kinds = ", ".join(f"typeof({column})" for column in columns)
    queries = [f'SELECT {what} FROM verdicts ORDER BY "row"' for what in (texts, kinds)]
    answers = {}
    for source, path in (("file", run / "verdicts.duckdb"), ("copy", run.parent / "copy.duckdb")):
        with duckdb.connect(str(path), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            answers[source] = [connection.sql(query).fetchall() for query in queries]
    (run / "verdicts.duckdb").rename(run.parent / "aside.duckdb")
    tables = [steelyard.open_run(run).sql(query) for query in queries]
    (run.parent / "aside.duckdb").rename(run / "verdicts.duckdb")
    answers["live"] = [
        list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        for table in tables
    ]
    return answers


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("source", ["file", "copy", "live"])
def test_a_value_is_read_back(shown, source, name):
    _, kind, expected = CASES[name]
    position = list(CASES).index(name)
    texts, kinds = ([row[position] for row in rows] for rows in shown[source])
    assert texts == expected
    assert kinds == [kind or shown["file"][1][0][position]] * 2


def test_all_columns_at_once_have_the_values_that_were_written(run):
    """Through Arrow, as the Python API hands them on."""
    table = steelyard.open_run(run).sql('SELECT metadata FROM verdicts ORDER BY "row"')
    found = table["metadata"].combine_chunks()
    plain = ("int8", "uint64", "double", "text", "bytes", "fixed bytes", "list", "struct")
    for name in plain:
        values = found.field(name).to_pylist()
        np.testing.assert_equal(values, CASES[name][0].to_pylist(), name)
    ends = found.field("microseconds").cast(pa.int64()).to_pylist()
    assert ends == [LAST, -LAST]


def test_times_of_int96_are_those_that_were_written(tmp_path: Path) -> None:
    """Spark and Impala write them, with years that nanoseconds do not reach."""
    when = [datetime(9999, 12, 31), datetime(2020, 1, 1, 1, 2, 3, 4), datetime(1, 1, 1), None]
    table = pairs(4, until=pa.array(when, pa.timestamp("us")))
    write(tmp_path / "p.parquet", table, use_deprecated_int96_timestamps=True)
    good, bad = read(open_shards([tmp_path / "p.parquet"]))
    assert [row["metadata"]["until"] for row in good] == when
    assert not bad


# Values that a column's type has room for, and DuckDB has not, or only some versions.
BAD = {
    "seconds beyond microseconds": stamps("ms", 2**62, 1),
    "microseconds before all dates": stamps("us", -(2**63), 1),
    "nanoseconds before all dates": stamps("ns", -(2**63) + 2, 1),
    "the first of all days": pa.array([-(2**31), 1], pa.int32()).cast(pa.date32()),
    "a time before midnight": times("us", -1, 1),
    "a time after midnight": times("us", 86_400_000_000, 1),
    "a key twice": pa.array([[("a", 1), ("a", 2)], [("a", 1)]], pa.map_(pa.string(), pa.int8())),
    "a key of structs twice": pa.array(
        [[({"k": 1}, 1), ({"k": 1}, 2)], [({"k": 1}, 1), ({"k": 2}, 1)]],
        pa.map_(pa.struct([("k", pa.int8())]), pa.int8()),
    ),
    "a time in a list": pa.array([[1, -(2**63)], [1, 1]]).cast(pa.list_(pa.timestamp("us"))),
    "a time in a struct": pa.StructArray.from_arrays([stamps("ms", 2**62, 1)], ["t"]),
    "a time in a map": pa.array(
        [[("a", -1)], [("a", 1)]], pa.map_(pa.string(), pa.int64())
    ).cast(pa.map_(pa.string(), pa.time64("us"))),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_row_with_a_value_that_its_type_cannot_hold_is_rejected(tmp_path, name):
    """It would break every query of the column, or become another value."""
    write(tmp_path / "p.parquet", pairs(2, m=BAD[name]))
    steelyard.score(tmp_path / "p.parquet", run=tmp_path / "run", judge="scripted")
    run = steelyard.open_run(tmp_path / "run")
    (reject,) = run.sql("SELECT row, reason, detail FROM rejects").to_pylist()
    assert (reject["row"], reject["reason"]) == (0, "metadata")
    assert reject["detail"].startswith("m has a value that ")
    assert run.sql('SELECT "row", metadata.m::VARCHAR IS NULL FROM verdicts').to_pylist() == [
        {"row": 1, "(CAST(metadata.m AS VARCHAR) IS NULL)": False}
    ]


def test_a_value_that_does_not_fit_the_type_of_all_shards_is_rejected(tmp_path: Path) -> None:
    """2**53 + 1 is no float64, and the year 3000 no timestamp in nanoseconds."""
    far = [datetime(3000, 1, 1), datetime(2000, 1, 1)]
    write(tmp_path / "1.parquet", pairs(2, n=[2**53 + 1, 2**53], t=stamps("ns", 5, 6)))
    write(tmp_path / "2.parquet", pairs(2, n=[0.5, 1.5], t=pa.array(far, pa.timestamp("us"))))
    good, bad = read(open_shards([tmp_path]))
    assert [(row["shard"], row["row"], row["reason"]) for row in bad] == [
        ("1.parquet", 0, "metadata"),
        ("2.parquet", 0, "metadata"),
    ]
    assert [row["metadata"]["n"] for row in good] == [2.0**53, 1.5]


def test_invalid_utf8_comes_before_bad_times(tmp_path: Path) -> None:
    """A row has one reason: the first."""
    text = not_utf8([b"\xff", b"ok"])
    write(tmp_path / "p.parquet", pairs(2, response_a=text, m=BAD["a time before midnight"]))
    _, bad = read(open_shards([tmp_path / "p.parquet"]))
    assert [row["reason"] for row in bad] == ["utf8"]
