"""Several files read as one table: by the names of columns, in either order, or not at all.

Kind of fault: a second file is read by the first one's schema.
"""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.comparisons.read import read_comparisons
from steelyard.errors import GoldRefused, InputRefused, SteelyardError
from steelyard.input.gold_file import read_gold_file
from steelyard.input.tables import open_table
from support.helpers import command
from support.shard_files import flip_byte

NEED = ("model_a", "model_b", "preference")
ORDERS = [(0, 1), (1, 0)]


def write(folder: Path, *tables: dict, order=(0, 1)) -> Path:
    """Files a.parquet and b.parquet; `order` says which of the tables is first."""
    folder.mkdir(exist_ok=True)
    for name, number in zip("ab", order, strict=True):
        pq.write_table(pa.table(tables[number]), folder / f"{name}.parquet")
    return folder


def rows_of(folder: Path) -> list[dict]:
    return sorted(open_table(folder).data.to_table().to_pylist(), key=str)


UNITED = {
    "order of columns": ({"x": [1], "y": ["a"]}, {"y": ["b"], "x": [2]}),
    "a missing column": ({"x": [1], "y": ["a"]}, {"x": [2]}),
    "nulls only": ({"x": [1], "y": ["a"]}, {"x": [2], "y": pa.nulls(1)}),
    "nulls in both": ({"x": [1], "y": pa.nulls(1)}, {"x": [2], "y": pa.nulls(1)}),
    "a dictionary": ({"y": ["a"]}, {"y": pa.array(["b"]).dictionary_encode()}),
    "layouts": (
        {"y": pa.array(["a"], pa.large_string())}, {"y": pa.array(["b"], pa.string_view())},
    ),
    "widths": ({"x": pa.array([1], pa.int8())}, {"x": pa.array([2**40])}),
    "signs": ({"x": pa.array([1], pa.uint32())}, {"x": pa.array([-1], pa.int8())}),
    "a number with a point": ({"x": [1]}, {"x": [0.5]}),
    "half floats": (
        {"x": pa.array(np.array([0.5], np.float16))}, {"x": pa.array([1.5], pa.float32())},
    ),
    "decimals": ({"x": [Decimal("1.25")]}, {"x": pa.array([Decimal("0.5")], pa.decimal256(30, 1))}),
    "a decimal and a number": ({"x": [Decimal("1.25")]}, {"x": [2]}),
    "fields of a struct": ({"x": [{"a": 1, "b": 2}]}, {"x": [{"b": 0.5, "a": 1.5}]}),
    "lists": ({"x": [["a"]]}, {"x": pa.array([["b"]], pa.large_list(pa.large_string()))}),
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", UNITED)
def test_files_are_read_by_name(tmp_path, name, order):
    tables = UNITED[name]
    names = {column for table in tables for column in table}
    expected = []
    for table in tables:
        (row,) = pa.table(table).to_pylist()
        expected.append({column: row.get(column) for column in names})
    found = rows_of(write(tmp_path / "t", *tables, order=order))
    assert [set(row) for row in found] == [names] * 2
    for row in found:
        assert row in expected


APART = {
    "text and a number": (["a"], [1]),
    "a number and a truth value": ([1], [True]),
    "a date and a time": (pa.array([1], pa.date32()), pa.array([1], pa.timestamp("us"))),
    "a local and a universal time": (
        pa.array([1], pa.timestamp("us")), pa.array([1], pa.timestamp("us", "UTC")),
    ),
    "integers without a common type": (pa.array([1], pa.uint64()), pa.array([1], pa.int64())),
    "other fields": ([{"a": 1}], [{"b": 1}]),
    "a UUID and a text": (pa.array([bytes(16)], pa.uuid()), ["a"]),
    "a list view and a list": (pa.array([["a"]], pa.list_view(pa.string())), [["a"]]),
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", APART)
def test_files_that_mean_different_things_are_refused_by_name(tmp_path, name, order):
    tables = [{"x": values} for values in APART[name]]
    with pytest.raises(InputRefused) as refused:
        open_table(write(tmp_path / "t", *tables, order=order))
    assert "column x is " in refused.value.cause
    assert " in a.parquet and " in refused.value.cause
    assert refused.value.cause.endswith(" in b.parquet")


def test_a_third_file_is_compared_with_the_first_that_has_values(tmp_path):
    write(tmp_path / "t", {"x": pa.nulls(1)}, {"x": ["a"]})
    pq.write_table(pa.table({"x": [1]}), tmp_path / "t/c.parquet")
    with pytest.raises(InputRefused, match=r"is string in b.parquet and int64 in c.parquet"):
        open_table(tmp_path / "t")


def test_paths_are_data(tmp_path):
    """Folders such as key=value, and names that no UTF-8 has, add nothing to the table."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/model_a=x/\xff?#%20 "))
    folder.mkdir(parents=True)
    path = folder / "a.parquet"
    with pa.OSFile(os.fsencode(path), "wb") as file:
        pq.write_table(pa.table({"x": [1]}), file)
    assert open_table(path).data.to_table().to_pydict() == {"x": [1]}


@pytest.mark.parametrize("order", ORDERS)
def test_a_damaged_file_among_several_is_named(tmp_path, order):
    """By the reading of comparisons, which DuckDB does, and of gold."""
    columns = {"pair_id": ["p"], "model_a": ["x"], "model_b": ["y"], "preference": [0.25]}
    folder = write(tmp_path / "t", columns, columns, order=order)
    for name, text in zip("ab", ("gold a", "gold b"), strict=True):
        pq.write_table(
            pa.table(columns | {"model_a": [text], "gold": ["A"]}), folder / f"{name}.parquet",
            compression="none", use_dictionary=False, write_page_checksum=True,
            write_statistics=False,
        )  # fmt: skip
    flip_byte(folder / f"{'ab'[order[0]]}.parquet", b"gold ")
    with pytest.raises(InputRefused, match="the data cannot be read") as refused:
        read_comparisons(folder, None, NEED)
    assert refused.value.place == f"{folder}/{'ab'[order[0]]}.parquet, row group 0"
    with pytest.raises(GoldRefused, match="the data cannot be read") as refused:
        read_gold_file(folder)
    assert refused.value.place == f"{folder}/{'ab'[order[0]]}.parquet, row group 0"


# Gold


def gold(*ids: str, **columns) -> dict:
    return {"pair_id": list(ids), **columns}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (
            gold("p", votes_a=[3], votes_b=[1], votes_tie=[1]),
            gold("q", votes_tie=[0.5], votes_b=[2.5], votes_a=[0.0]),
            {"p": [3, 1, 1], "q": [0, 2.5, 0.5]},
        ),
        (
            gold("p", label=["A"]),
            gold("q", label=pa.array(["tie"]).dictionary_encode()),
            {"p": [1, 0, 0], "q": [0, 0, 1]},
        ),
        (gold("p", gold=["A"]), gold("q", gold=pa.nulls(1)), {"p": [1, 0, 0]}),
        (
            {"pair_id": [7], "label": ["A"]},
            {"pair_id": pa.array([8], pa.int8()), "label": ["B"], "note": ["x"]},
            {"7": [1, 0, 0], "8": [0, 1, 0]},
        ),
    ],
)
def test_gold_of_two_files(tmp_path, first, second, expected, order):
    found = read_gold_file(write(tmp_path / "gold", first, second, order=order))
    assert dict(zip(found.pair_ids.to_pylist(), found.votes.tolist(), strict=True)) == expected


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("first", "second", "cause"),
    [
        (
            gold("p", votes_a=[3], votes_b=[1]),
            gold("q", votes_a=[1], votes_b=[1], votes_tie=[9]),
            "@X.parquet has no column for votes_tie; in @Y.parquet it is votes_tie",
        ),
        (gold("p", gold=["A"]), gold("q", label=["B"]), "label"),
        (gold("p", gold=["A"]), gold("q", votes_a=[1], votes_b=[2]), " has no column for "),
        (gold("p", gold=["A"]), gold("q", gold=["B"], annotator=["ann"]), "annotator"),
        (gold("p", gold=["A"]), gold("q", gold=[0.25]), "column gold is "),
        (gold("p", gold=[1]), gold("q", gold=[0.25]), "is ambiguous"),
        (
            gold("p", gold=["A"], instruction_id=[1]),
            gold("q", gold=["B"], prompt=["?"]),
            "the column for instruction is ",
        ),
    ],
)
def test_gold_of_two_kinds_in_two_files_is_refused(tmp_path, first, second, cause, order):
    """A column of one file alone was dropped without a word, or halved the gold."""
    with pytest.raises(GoldRefused) as refused:
        read_gold_file(write(tmp_path / "gold", first, second, order=order))
    names = dict(zip("XY", ("ab"[order[0]], "ab"[order[1]]), strict=True))
    for mark, name in names.items():
        cause = cause.replace(f"@{mark}", f"{tmp_path}/gold/{name}")
    assert cause in refused.value.cause


@pytest.mark.parametrize("order", ORDERS)
def test_a_file_without_gold_is_named(tmp_path, order):
    folder = write(tmp_path / "gold", gold("p", gold=["A"]), gold("q", note=["x"]), order=order)
    with pytest.raises(GoldRefused, match="no column for gold") as refused:
        read_gold_file(folder)
    assert refused.value.place == f"{folder}/{'ab'[order.index(1)]}.parquet"


def test_a_label_and_votes_that_name_different_sides_are_refused(tmp_path):
    """The votes were taken without a word; where both agree, they count."""
    both = gold("p", "q", "r", "s", label=["A", "B", "tie", None])
    path = tmp_path / "gold.parquet"
    pq.write_table(pa.table(both | {"votes_a": [2, 3, 1, 1], "votes_b": [1, 2, 1, 0]}), path)
    with pytest.raises(GoldRefused, match="name different sides") as refused:
        read_gold_file(path)
    assert "1 of 4 rows, the first is row 1" in refused.value.cause
    assert "(such as B, a=3 b=2 tie=0)" in refused.value.cause
    pq.write_table(pa.table(both | {"votes_a": [2, 1, 1, 1], "votes_b": [1, 2, 1, 0]}), path)
    assert read_gold_file(path).votes.tolist() == [[2, 1, 0], [1, 2, 0], [1, 1, 0], [1, 0, 0]]
    labels = read_gold_file(path, {"votes_a": "", "votes_b": ""})
    assert labels.votes.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


# Comparisons


def compared(count: int, **columns) -> dict:
    return {"model_a": ["x"] * count, "model_b": ["y"] * count, **columns}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (compared(1, preference=[0.25]), compared(1, preference=[1]), [0.25, 1.0]),
        (
            compared(1, preference=[0.25]),
            compared(1, preference=pa.nulls(1)) | {"note": ["x"]},
            [0.25],
        ),
        (
            compared(1, winner=["a"]),
            compared(1, winner=pa.array(["tie"]).dictionary_encode()),
            [0.5, 1.0],
        ),
        (
            compared(1, preference=[0.25], length_a=[3], length_b=[4]),
            compared(1, preference=[0.75]),
            [0.25, 0.75],
        ),
    ],
)
def test_comparisons_of_two_files(tmp_path, first, second, expected, order):
    folder = write(tmp_path / "t", first, second, order=order)
    table = read_comparisons(folder, None, NEED, ("length_a", "length_b")).table
    assert sorted(table["preference"].to_pylist()) == expected
    if "length_a" in table.column_names:
        assert sorted(table["length_a"].to_pylist(), key=str) == [3.0, None]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("first", "second", "column_map", "words"),
    [
        (
            compared(1, preference=[0.25]), compared(1, winner=["a"]), {},
            "no column for preference; in",
        ),
        (
            compared(1, logit=[0.25]), compared(1, score_a=[1], score_b=[2]), {},
            "no column for logit; in",
        ),
        (
            compared(1, preference=[0.25], instruction_id=[1]),
            compared(1, preference=[0.5], prompt=["?"]),
            {},
            "the column for instruction is ",
        ),
        (compared(1, preference=[0.25]), compared(1, preference=["a"]), {}, "column preference is"),
        (
            compared(1, score=[2]), compared(1, points=[2]), {"preference": "(score - 1)"},
            '"score" not found',
        ),
        (compared(1, p=[0.5]), compared(1, q=[0.5]), {"preference": "p"}, "no column p "),
    ],
)  # fmt: skip
def test_comparisons_of_two_kinds_in_two_files_are_refused(
    tmp_path, first, second, column_map, words, order
):
    """`preference` in one and `winner` in the other lost half of the rows."""
    folder = write(tmp_path / "t", first, second, order=order)
    with pytest.raises(SteelyardError) as refused:
        read_comparisons(folder, column_map, NEED, ("instruction",))
    text = f"{refused.value.place}: {refused.value.cause}"
    assert words in text
    assert ".parquet" in text


def test_rows_without_a_status_are_kept(tmp_path):
    """A table of a run's verdicts next to one of another tool."""
    run = compared(3, raw_preference=[0.25, None, 0.75], status=["ok", "error", None])
    pq.write_table(pa.table(run), tmp_path / "t.parquet")
    found = read_comparisons(tmp_path / "t.parquet", None, NEED)
    assert found.table["preference"].to_pylist() == [0.25, 0.75]
    assert found.left_out == {"status error": 1}


# Commands


def judged(ids: range) -> dict:
    """Preferences for x whose mean is 0.5 in every ten."""
    numbers = list(ids)
    return {
        "pair_id": [f"p{i}" for i in numbers],
        "instruction": [f"q{i}" for i in numbers],
        "model_a": ["x"] * len(numbers),
        "model_b": ["y"] * len(numbers),
        "preference": [0.05 + 0.1 * (i % 10) for i in numbers],
        "gold": [("A", "B")[(i % 10 + i % 3) < 5] for i in numbers],
    }


@pytest.fixture
def split(tmp_path):
    """Two files of judged pairs that differ in columns, types and order; and one of both."""
    first, second = judged(range(60)), judged(range(60, 100))
    coded = {"model_a": pa.array(second["model_a"]).dictionary_encode(), "note": [1] * 40}
    second = dict(reversed({**second, **coded}.items()))
    folders = {}
    for order in ORDERS:
        folders[order] = write(tmp_path / f"in{order[0]}", first, second, order=order)
    pq.write_table(pa.table(judged(range(100))), tmp_path / "whole.parquet")
    return folders, tmp_path / "whole.parquet"


@pytest.mark.parametrize(
    "arguments",
    [
        ("rank", "@", "--json"),
        ("winrate", "@", "--baseline", "y", "--json"),
        ("evaluate", "@", "--replicates", "0", "--json"),
    ],
    ids=" ".join,
)
def test_a_command_over_two_files_answers_as_over_one(split, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    folders, whole = split
    outputs = []
    for place in (whole, *folders.values()):
        done = command(*(place if x == "@" else x for x in arguments))
        assert done.returncode == 0, done.stderr
        shown = json.loads(done.stdout.replace(str(place), "@"))
        # Verdicts of one effect can replace each other: the order of rows decides which are named.
        for removal in (shown.get("sensitivity") or {}).values():
            if isinstance(removal, dict):
                removal.pop("pair_ids", None)
        outputs.append(shown)
    assert outputs[0] == outputs[1] == outputs[2]


def test_a_table_of_two_files_is_calibrated_as_one(split, tmp_path):
    folders, whole = split
    done = command("calibrate", "fit", "--from", whole, "--out", tmp_path / "c.json")
    assert done.returncode == 0, done.stderr
    results = []
    for number, place in enumerate((whole, *folders.values())):
        out = tmp_path / f"out{number}.parquet"
        done = command("calibrate", "apply", "--from", place, tmp_path / "c.json", "--out", out)
        assert done.returncode == 0, done.stderr
        rows = pq.read_table(out, columns=["pair_id", "calibrated_preference"]).to_pylist()
        results.append(sorted(rows, key=str))
    assert len(results[0]) == 100
    assert results[0] == results[1] == results[2]


def test_gold_of_two_files_evaluates_as_of_one(split, tmp_path):
    _, whole = split
    rows = judged(range(100))
    first = {"pair_id": rows["pair_id"][:50], "gold": rows["gold"][:50]}
    second = {"note": [0.5] * 50, "gold": rows["gold"][50:], "pair_id": rows["pair_id"][50:]}
    outputs = []
    for order in ORDERS:
        path = write(tmp_path / f"gold{order[0]}", first, second, order=order)
        done = command("evaluate", whole, "--gold", path, "--replicates", "0", "--json")
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.replace(str(path), "@"))
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("order", ORDERS)
def test_an_import_of_two_files(tmp_path, order):
    """Columns in another order, a dictionary, whole numbers, nulls only."""
    first = compared(2, preference=[0.25, 0.5], n=[1, 2], note=pa.nulls(2))
    second = {"note": ["x"], "n": [0.5], "preference": [1], "model_b": ["y"]}
    second["model_a"] = pa.array(["x"]).dictionary_encode()
    folder = write(tmp_path / "in", first, second, order=order)
    done = command("import", folder, "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    query = "SELECT raw_preference AS p, metadata.n AS n, metadata.note AS t FROM verdicts"
    done = command("sql", tmp_path / "run", f"{query} ORDER BY 2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        {"p": 1.0, "n": 0.5, "t": "x"},
        {"p": 0.25, "n": 1.0, "t": None},
        {"p": 0.5, "n": 2.0, "t": None},
    ]


@pytest.mark.parametrize("order", ORDERS)
def test_an_import_of_files_with_other_columns_is_refused(tmp_path, order):
    first, second = compared(1, preference=[0.25]), compared(1, winner=["a"])
    folder = write(tmp_path / "in", first, second, order=order)
    done = command("import", folder, "--run", tmp_path / "run")
    assert done.returncode == 3
    assert "b.parquet: its columns (+) differ from those of a.parquet (-)" in done.stderr


def test_a_mapped_pair_id_names_no_instruction(tmp_path):
    """Pairs that each count as an instruction of their own are noted, under any column's name."""
    rows = judged(range(100))
    del rows["instruction"]
    rows["id"] = rows.pop("pair_id")
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    done = command(
        "evaluate", tmp_path / "t.parquet", "--map", "pair_id=id", "--replicates", "0", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert "every pair counts as a separate instruction" in done.stdout
