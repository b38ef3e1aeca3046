"""Rows as JSON values: each of DuckDB's types, alone and nested; expectations by hand.

Kind of fault: values that a type cannot hold.
"""

import json

import pytest

from steelyard.store.sql import open_memory
from steelyard.store.verdicts.json_rows import json_rows

HUGE = 2**127 - 1
VALUES = {
    "true": True,
    "NULL": None,
    "1::TINYINT": 1,
    "18446744073709551615::UBIGINT": 2**64 - 1,
    f"{HUGE}::HUGEINT": HUGE,
    f"{2**128 - 1}::UHUGEINT": 2**128 - 1,
    "(SELECT sum(x) FROM (VALUES (3), (4)) t(x))": 7,
    f"'{10**50}'::BIGNUM": 10**50,
    "1.50::DECIMAL(4,2)": "1.50",
    "0.1::DOUBLE": 0.1,
    "'é😀'": "é😀",
    "'\\xFF\\x00'::BLOB": b"\xff\x00",
    "'b'::ENUM('a', 'b')": "b",
    "'101'::BIT": "101",
    "'{\"a\": 1}'::JSON": '{"a": 1}',
    "'00000000-0000-0000-0000-000000000001'::UUID": "00000000-0000-0000-0000-000000000001",
    "DATE '2020-02-29'": "2020-02-29",
    "DATE '10000-01-01'": "10000-01-01",
    "'infinity'::DATE": "infinity",
    "TIMESTAMP '2020-02-29 01:02:03'": "2020-02-29T01:02:03",
    "TIMESTAMP '2020-02-29 01:02:03.1'": "2020-02-29T01:02:03.100000",
    "TIMESTAMP_MS '2020-02-29 01:02:03.004'": "2020-02-29T01:02:03.004000",
    "TIMESTAMP_NS '2020-02-29 01:02:03.000000001'": "2020-02-29T01:02:03.000000001",
    "TIMESTAMP '290000-01-01 00:00:00'": "290000-01-01T00:00:00",
    "'-infinity'::TIMESTAMP": "-infinity",
    "TIMESTAMP '0044-03-15 (BC) 12:00:00'": "0044-03-15 (BC) 12:00:00",
    "TIME '01:02:03'": "01:02:03",
    "TIME '24:00:00'": "24:00:00",
    "'01:02:03.000000004'::TIME_NS": "01:02:03.000000004",
    "'01:02:03+02'::TIMETZ": "01:02:03+02:00",
    "INTERVAL '1 month 2 days'": "1 month 2 days",
    "[1, 2]": [1, 2],
    "[1, 2]::INTEGER[2]": [1, 2],
    "[]::DATE[]": [],
    "[NULL, DATE '2020-01-01']": [None, "2020-01-01"],
    "[[TIME '01:00'], NULL]": [["01:00:00"], None],
    "[DATE '2020-01-01']::DATE[1]": ["2020-01-01"],
    "{'a b': 1, 'k': DATE '2020-01-01'}": {"a b": 1, "k": "2020-01-01"},
    "{'a': {'b': [1.5]}}": {"a": {"b": ["1.5"]}},
    "NULL::STRUCT(a DATE)": None,
    "row(1, DATE '2020-01-01')": [1, "2020-01-01"],
    "map {'x': DATE '2020-01-01'}": [["x", "2020-01-01"]],
    "map {DATE '2020-01-01': 1::HUGEINT}": [["2020-01-01", 1]],
    "NULL::MAP(VARCHAR, DATE)": None,
    "union_value(k := 1)": "1",
    "[{'a': map {1: [INTERVAL 1 day]}}]": [{"a": [[1, ["1 day"]]]}],
}


def rows(query):
    connection = open_memory()
    return list(json_rows(connection, connection.sql(query)))


@pytest.mark.parametrize("sql", VALUES)
def test_each_type_has_its_value(sql):
    (row,) = rows(f"SELECT {sql} AS value")
    assert row == {"value": VALUES[sql]}
    assert type(row["value"]) is type(VALUES[sql])


def test_times_with_a_zone_say_which():
    (row,) = rows("SELECT CAST(TIMESTAMPTZ '2020-01-01 00:00:00+00' AS TIMESTAMPTZ) AS t")
    assert row["t"][:10] in {"2019-12-31", "2020-01-01"}
    assert row["t"][-6] in "+-"


def test_a_time_before_our_era_is_duckdbs_text():
    (row,) = rows("SELECT '0044-03-15 (BC) 12:00:00+00'::TIMESTAMPTZ AS t")
    assert row["t"][:15] in {"0044-03-15 (BC)", "0044-03-14 (BC)", "0044-03-16 (BC)"}


def test_a_repeated_name_gets_a_number():
    assert rows("SELECT 1 AS x, DATE '2020-01-01' AS x, 3 AS X") == [
        {"x": 1, "x_2": "2020-01-01", "X": 3}
    ]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("FROM range(2500) -- a comment", 2500),
        ("SELECT 1 WHERE false", 0),
        ("SELECT 1;;", 1),
        ("SELECT 1; SELECT 2;", 1),
        ("CREATE TEMP TABLE t AS FROM range(3); FROM t", 3),
        ("PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)", 1),
        ("DESCRIBE SELECT 1", 1),
        ("EXPLAIN SELECT 1", 1),
        ("CALL pragma_version()", 1),
    ],
)
def test_every_statement_gives_its_rows(query, count):
    made = rows(query)
    assert len(made) == count
    json.dumps(made)
