"""Rows of other formats than Parquet: the same rows come out, and bad ones are rejects or errors.

Kind of fault: a file of text that hurts.
"""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from steelyard.errors import InputRefused
from steelyard.input import Limits, json_rows, open_shards, packed, stream
from steelyard.input.convert import Staging
from steelyard.input.tables import open_table

ROWS = [
    {
        "pair_id": f"p{number}",
        "instruction": f"What is {number}?\nSay it in words; \"quoted\", too.",
        "response_a": "zähl, 1;2" if number % 2 else "",
        "response_b": f"b{number}\r\nsecond line",
        "model_a": None if number == 3 else "alpha",
        "rounds": number,
        "score": number / 4,
    }
    for number in range(9)
]  # fmt: skip
CSV_EMPTY = {"model_a"}


def checked(path, staging=None, **limits):
    """Return the rows of a file, without their shard, and its rejects."""
    good, bad = [], []
    for rows, rejects in stream(open_shards([path], staging=staging), Limits(**limits)):
        good += rows.drop_columns(["shard"]).to_pylist()
        bad += rejects.drop_columns(["shard"]).to_pylist()
    return good, bad


def as_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows, mark=",", encoding="utf-8"):
    def field(value):
        return "" if value is None else '"' + str(value).replace('"', '""') + '"'

    lines = [mark.join(rows[0]), *(mark.join(map(field, row.values())) for row in rows)]
    return ("\r\n".join(lines) + "\r\n").encode(encoding)


def as_zst(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream_:
        stream_.write(data)
    return sink.getvalue().to_pybytes()


def as_stream(rows):
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=4):
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def as_file(rows):
    sink = pa.BufferOutputStream()
    feather.write_feather(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


FORMATS = {
    "p.jsonl": as_lines(ROWS),
    "p.ndjson": as_lines(ROWS).replace(b"\n", b"\r\n"),
    "bom.jsonl": b"\xef\xbb\xbf" + as_lines(ROWS),
    "wide.jsonl": as_lines(ROWS).decode().encode("utf-16"),
    "p.jsonl.gz": gzip.compress(as_lines(ROWS)),
    "p.jsonl.zst": as_zst(as_lines(ROWS)),
    "p.json": json.dumps(ROWS, indent=1).encode(),
    "lines.json": as_lines(ROWS),
    "p.csv": as_csv(ROWS),
    "p.csv.gz": gzip.compress(as_csv(ROWS)),
    "semicolons.csv": as_csv(ROWS, ";"),
    "p.tsv": as_csv(ROWS, "\t"),
    "bom.csv": as_csv(ROWS, encoding="utf-8-sig"),
    "wide.csv": as_csv(ROWS, encoding="utf-16"),
    "p.arrow": as_stream(ROWS),
    "p.feather": as_file(ROWS),
}


@pytest.mark.parametrize("name", FORMATS)
def test_rows_are_those_of_the_same_data_as_parquet(name, tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "p.parquet")
    (tmp_path / name).write_bytes(FORMATS[name])
    assert checked(tmp_path / name) == checked(tmp_path / "p.parquet")


def test_a_file_of_any_name_may_be_parquet(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "p.csv")
    assert len(checked(tmp_path / "p.csv")[0]) == 9


GOOD = {"instruction": "q", "response_a": "x", "response_b": "y"}


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        (b"{", "line 3 is not JSON"),
        (b"[1]", "line 3 is not an object"),
        (b'{"instruction": "q", "response_a": 1, "response_b": "y"}', "response_a is an integer"),
        (b'{"instruction": "q", "response_a": {"t": "x"}, "response_b": "y"}', "is an object"),
        (b'{"instruction": "\\ud800", "response_a": "x", "response_b": "y"}', "half of a char"),
        (b'{"instruction": "\xff", "response_a": "x", "response_b": "y"}', "line 3 is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\0\0\0", "line 3 is not JSON"),
    ],
)  # fmt: skip
def test_a_bad_line_is_a_reject_with_its_number(line, detail, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(as_lines([GOOD]) + b"  \n" + line + b"\n" + as_lines([GOOD]))
    good, bad = checked(path)
    assert [row["row"] for row in good] == [0, 2]
    assert [(row["row"], row["reason"]) for row in bad] == [(1, "format")]
    assert detail in bad[0]["detail"]
    with pytest.raises(InputRefused, match="row 1"):
        checked(path, on_bad_row="fail")


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([1, "x", None, True, 2.5, [1]], ["1", "x", None, "true", "2.5", "[1]"]),
        ([1, 2.5], [1.0, 2.5]),
        ([2**63, 2**80], [str(2**63), str(2**80)]),
        ([{"a": None}, {"b": [1]}], [{"a": None, "b": None}, {"a": None, "b": [1]}]),
        ([{}, {"a": {}}], ["{}", '{"a": {}}']),
        ([{"A": 1, "a": 2}], ['{"A": 1, "a": 2}']),
        ([float("nan")], None),
        (["2024-01-01", "2024-01-02"], ["2024-01-01", "2024-01-02"]),
    ],
)
def test_metadata_of_several_kinds_becomes_text(values, read, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(as_lines([GOOD | {"extra": value} for value in values]))
    good, bad = checked(path)
    assert not bad
    if read is not None:
        assert [row["metadata"]["extra"] for row in good] == read


def test_columns_that_change_late_are_those_of_all_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "READ", 200)
    rows = [GOOD | {"n": number} for number in range(50)]
    rows += [GOOD | {"n": 0.5}, GOOD | {"other": "z"}, GOOD | {"n": "text"}]
    path = tmp_path / "p.jsonl"
    path.write_bytes(as_lines(rows))
    good, bad = checked(path)
    assert len(good) == 53
    assert not bad
    assert [good[i]["metadata"]["n"] for i in (0, 49, 50, 51, 52)] == [
        "0",
        "49",
        "0.5",
        None,
        "text",
    ]
    assert good[51]["metadata"]["other"] == "z"


def test_a_line_that_is_too_long_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "READ", 200)
    monkeypatch.setattr(json_rows, "LONGEST", 1000)
    long = as_lines([GOOD | {"response_a": "x" * 5000}])
    (tmp_path / "p.jsonl").write_bytes(as_lines([GOOD]) + long + as_lines([GOOD, GOOD]) + long)
    good, bad = checked(tmp_path / "p.jsonl")
    assert [row["row"] for row in good] == [0, 2, 3]
    assert [row["row"] for row in bad] == [1, 4]
    assert "line 2 has more than" in bad[0]["detail"]


@pytest.mark.parametrize(
    ("name", "data", "cause"),
    [
        ("p.jsonl", b"", "the file is empty"),
        ("p.jsonl", b" \n\n", "the file has no rows"),
        ("p.jsonl", b"nonsense\n", "no row can be read: line 1 is not JSON"),
        ("p.json", b'[{"a": 1}, ', "the JSON array cannot be read"),
        ("p.csv", b"", "the file is empty"),
        ("p.csv", b"a,b,a\n1,2,3\n", "column a is there twice"),
        ("p.csv", b"a,,b\n1,2,3\n", "a column has no name"),
        ("p.jsonl.gz", gzip.compress(as_lines(ROWS))[:-9], "the file cannot be read: Truncated"),
        ("p.jsonl.gz", b"not packed", "the file cannot be read"),
        ("p.jsonl.zst", b"not packed", "the file cannot be read"),
        ("p.arrow", b"ARROW1\0\0 and nothing", "the Arrow data cannot be read"),
        ("p.arrow", as_stream(ROWS)[:300], "the Arrow data cannot be read"),
        ("p.feather", b"FEA1" + b"\0" * 50, "Feather version 1 is not read"),
        ("p.arrow", b"", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(name, data, cause, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputRefused) as refused:
        open_shards([tmp_path / name])
    assert cause in str(refused.value)
    assert name in str(refused.value)


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("before", [{}, {"version": 1, "about": {"by": "us"}}])
def test_rows_in_a_wrapper_are_read(before, indent, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps({**before, "data": ROWS}, indent=indent))
    (tmp_path / "p.jsonl").write_bytes(as_lines(ROWS))
    assert checked(tmp_path / "p.json") == checked(tmp_path / "p.jsonl")


def test_one_row_is_a_row_and_not_a_wrapper(tmp_path):
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}]
    row = {"chosen": messages, "rejected": [*messages[:1], messages[1] | {"content": "y"}]}
    (tmp_path / "p.json").write_text(json.dumps(row, indent=1).replace("\n", " "))
    good, bad = checked(tmp_path / "p.json")
    assert not bad
    assert [(r["instruction"], r["response_a"], r["response_b"]) for r in good] == [("q", "x", "y")]


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ({"instruction": {"0": "q"}, "response_a": {"0": "x"}}, "of columns, as pandas' to_json()"),
        ({"0": GOOD, "1": GOOD}, "with rows by number"),
        ({"columns": ["a"], "index": [0], "data": [["x"]]}, "with columns, index and data"),
        ({"instruction": ["q", "r"], "response_a": ["x", "y"]}, "of columns, each a list"),
    ],
)
def test_columns_as_json_are_refused_with_the_call_that_writes_rows(document, what, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(InputRefused, match="orient='records', lines=True") as refused:
        open_shards([tmp_path / "p.json"])
    assert f"the file is one JSON object {what}" in refused.value.cause


def test_what_is_wrong_with_a_line_is_said_whole(tmp_path):
    broken = b'{"instruction": "q", "response_a": "x", response_b: "y"}\n'
    (tmp_path / "p.jsonl").write_bytes(as_lines([GOOD]) + broken)
    _, (bad,) = checked(tmp_path / "p.jsonl")
    assert bad["detail"] == (
        "the row cannot be read: line 2 is not JSON: Expecting property name enclosed in double"
        " quotes, at character 41"
    )


def test_csv_rows_of_another_width_or_encoding_are_rejects(tmp_path):
    data = b"instruction,response_a,response_b\nq,x,y\nq,x\nq,x,y,z\nq,\xff,y\n\nq,x,y\n"
    (tmp_path / "p.csv").write_bytes(data)
    good, bad = checked(tmp_path / "p.csv")
    assert [row["row"] for row in good] == [0, 4]
    assert [row["detail"].partition(": ")[2] for row in bad] == [
        "the row that ends in line 3 has 2 fields, the header 3",
        "the row that ends in line 4 has 4 fields, the header 3",
        "the row that ends in line 5 has a text in response_a that is not UTF-8",
    ]


def test_numbers_of_csv_are_numbers_unless_the_column_is_a_text(tmp_path):
    data = "instruction,response_a,response_b,gold,n,zip\n" + "1,2,3,0.75,7,007\n" * 2
    (tmp_path / "p.csv").write_text(data)
    (row, _), bad = checked(tmp_path / "p.csv")
    assert not bad
    assert (row["instruction"], row["response_a"]) == ("1", "2")
    assert row["gold"] == {"a": 0.75, "b": 0.25, "tie": 0.0}
    assert row["metadata"] == {"n": 7, "zip": "007"}


def test_a_bomb_of_packed_rows_needs_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "LONGEST", 1 << 20)
    monkeypatch.setattr(packed, "READ", 1 << 16)
    (tmp_path / "p.jsonl.gz").write_bytes(
        gzip.compress(b" " * (64 << 20) + b"\n" + as_lines([GOOD]))
    )
    before = pa.total_allocated_bytes()
    good, bad = checked(tmp_path / "p.jsonl.gz")
    assert (len(good), len(bad)) == (1, 1)
    assert pa.total_allocated_bytes() - before < 32 << 20


def test_a_file_is_converted_once_and_again_when_it_has_changed(tmp_path):
    path, folder = tmp_path / "p.jsonl", tmp_path / "inputs"
    path.write_bytes(as_lines(ROWS))
    first = open_shards([path], staging=Staging(folder))
    (made,) = folder.iterdir()
    written = made.stat().st_mtime_ns
    again = open_shards([path], staging=Staging(folder))
    assert again.fingerprint == first.fingerprint == open_shards([path]).fingerprint
    assert made.stat().st_mtime_ns == written
    path.write_bytes(as_lines(ROWS[:-1]))
    assert open_shards([path], staging=Staging(folder)).fingerprint != first.fingerprint
    assert len(list(folder.iterdir())) == 2


def test_tables_are_read_in_any_format(tmp_path):
    (tmp_path / "gold.jsonl").write_bytes(as_lines([{"pair_id": "p1", "gold": "A"}]))
    assert open_table(tmp_path / "gold.jsonl").data.to_table().to_pylist() == [
        {"pair_id": "p1", "gold": "A"}
    ]


def test_a_table_with_a_bad_line_is_refused(tmp_path):
    (tmp_path / "gold.jsonl").write_bytes(as_lines([{"pair_id": "p1", "gold": "A"}]) + b"{\n")
    with pytest.raises(InputRefused, match="line 2 is not JSON"):
        open_table(tmp_path / "gold.jsonl")
