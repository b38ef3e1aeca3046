"""Comparisons from a run, its database and other tools' Parquet; what cannot be read is named."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.comparisons.read import describe, read_comparisons
from steelyard.errors import InputRefused, UsageError
from support.helpers import pairs_table

NEED = ("model_a", "model_b", "preference")


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def models(count):
    return {"model_a": ["x"] * count, "model_b": ["y"] * count}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("tables")
    pq.write_table(pairs_table(60), place / "pairs.parquet")
    steelyard.score(place / "pairs.parquet", run=place / "run", judge="scripted:fail=0.05")
    return place / "run"


def test_a_run_its_database_and_a_live_run_give_the_same(run, tmp_path):
    want = ("length_a", "length_b", "gold", "source")
    found = read_comparisons(run, None, NEED, want)
    from_file = read_comparisons(run / "verdicts.duckdb", None, NEED, want)
    (run / "verdicts.duckdb").rename(tmp_path / "aside")
    try:
        live = read_comparisons(run, None, NEED, want)
    finally:
        (tmp_path / "aside").rename(run / "verdicts.duckdb")
    lost = found.left_out["status error"]
    assert lost > 0
    assert len(found.table) == 60 - lost
    assert found.has("source", "length_a")
    key = [("source", "ascending"), ("preference", "ascending")]
    rows = [one.table.sort_by(key).to_pylist() for one in (found, from_file, live)]
    assert rows[0] == rows[1] == rows[2]
    assert describe(found.left_out) == f"{lost} rows: status error"


@pytest.mark.parametrize(
    ("columns", "preference", "tie"),
    [
        ({"winner": ["A", "model_b", "Tie", "[[c]]"]}, [1, 0, 0.5, 0.5], [0, 0, 1, 1]),
        ({"preference": [0.0, 0.25, 1.0]}, [0, 0.25, 1], None),
        ({"raw_preference": [0.5], "raw_tie": [0.2]}, [0.5], [0.2]),
        ({"logit": [0.0, math.log(3)]}, [0.5, 0.75], None),
        ({"score_a": [2, 1], "score_b": [2, 1 + 2]}, [0.5, 1 / (1 + math.exp(2))], None),
    ],
)
def test_a_preference_is_made_of_what_is_there(tmp_path, columns, preference, tie):
    path = write(tmp_path / "t.parquet", **models(len(preference)), **columns)
    table = read_comparisons(path, None, NEED, ("tie",)).table
    assert table["preference"].to_pylist() == pytest.approx(preference)
    if tie is None:
        assert "tie" not in table.column_names
    else:
        assert table["tie"].to_pylist() == tie


def test_columns_and_expressions_are_mapped(tmp_path):
    path = write(tmp_path / "t.parquet", model=["x"], other=["y"], p=[1.25], n=[7])
    given = {"model_a": "model", "model_b": "other", "preference": "(p - 1)", "instruction": "n"}
    read = read_comparisons(path, given, NEED, ("instruction",))
    assert read.table.to_pylist() == [
        {"model_a": "x", "model_b": "y", "preference": 0.25, "instruction": 7}
    ]


def test_an_instruction_is_the_same_in_every_table(tmp_path):
    texts = ["why?", "how?", "why?"]
    one = write(tmp_path / "a.parquet", **models(3), preference=[0.1] * 3, instruction=texts)
    two = write(tmp_path / "b.parquet", prompt=["why?"], difficulty=[2.0])
    clusters = read_comparisons(one, None, NEED, ("instruction",)).table["instruction"].to_pylist()
    difficult = read_comparisons(two, None, ("instruction", "difficulty")).table.to_pylist()
    assert clusters[0] == clusters[2] == difficult[0]["instruction"]
    assert clusters[0] != clusters[1]


def test_wanted_columns_without_a_value_are_not_there(tmp_path):
    """As lengths of pairs that a run has no verdict for, and gold that it has not at all."""
    none = pa.array([None, None], pa.float64())
    path = write(
        tmp_path / "t.parquet", **models(2), preference=[0.5, None],
        length_a=pa.array([3.0, None]), length_b=none, weight=none,
    )  # fmt: skip
    read = read_comparisons(path, None, NEED, ("length_a", "length_b", "weight"))
    assert read.has("length_a")
    assert not read.has("length_b")
    assert not read.has("weight")


def test_rows_without_a_preference_are_counted(tmp_path):
    path = write(tmp_path / "t.parquet", **models(3), preference=[0.5, None, None])
    read = read_comparisons(path, None, NEED)
    assert len(read.table) == 1
    assert read.left_out == {"no preference": 2}
    path = write(tmp_path / "u.parquet", **models(2), winner=pa.array([None, None], pa.string()))
    with pytest.raises(InputRefused, match="no comparisons are left: left out: 2 rows"):
        read_comparisons(path, None, NEED)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"preference": [math.nan, 0.5]}, "1 of 2 rows: the preference is NaN"),
        ({"preference": [1.5, -1.0]}, r"2 of 2 rows: .* outside \[0, 1\] \(such as 1.5 or -1.0\)"),
        ({"winner": ["A", "me"]}, r"1 of 2 rows: the winner is not a, b or tie \(such as me\)"),
        ({"logit": [math.inf, 1.0]}, "1 of 2 rows: the logit is not a finite number"),
        ({"winner": ["A", "B"], "weight": [1.0, -2.0]}, "1 of 2 rows: the weight is neither 0 nor"),
        ({"winner": ["A", "B"], "model_a": [None, "x"]}, "1 of 2 rows: model_a is null"),
        (
            {"winner": ["A", "B"], "gold": ["A", "who"]},
            r"1 of 2 rows: the gold is not A, B or tie \(such as who\)",
        ),
    ],
)
def test_bad_values_are_refused_with_their_number(tmp_path, columns, words):
    path = write(tmp_path / "t.parquet", **{**models(2), **columns})
    with pytest.raises(InputRefused, match=words):
        read_comparisons(path, None, NEED, ("weight", "gold"))


@pytest.mark.parametrize(
    ("columns", "remedy"),
    [
        ({"preference": [1.5, 0.5]}, "--map 'preference=(x - 1)'"),
        ({"preference": [0.1, 0.5], "tie": [3.0, 0.0]}, "--map 'tie=(x - 1)'"),
        ({"preference": [math.nan, 0.5]}, "make a NaN null"),
        ({"winner": ["A", "me"]}, "--map winner=COLUMN"),
        ({"logit": [math.inf, 1.0]}, "--map 'logit=(greatest(-30, least(30, x)))'"),
        ({"score_a": [math.inf, 1.0], "score_b": [0.0, 1.0]}, "give finite scores"),
        ({"winner": ["A", "B"], "model_a": [None, "x"]}, "--map model_a=COLUMN"),
        ({"winner": ["A", "B"], "model_b": [" ", "x"]}, "--map model_b=COLUMN"),
        ({"winner": ["A", "B"], "weight": [1.0, None]}, "--map weight="),
        ({"winner": ["A", "B"], "weight": [1.0, 1e300]}, "--map weight="),
        ({"winner": ["A", "B"], "weight": [1.0, 1e-10]}, "--map weight="),
        ({"winner": ["A", "B"], "length_a": [1, 2**31]}, "--map length_a="),
        ({"winner": ["A", "B"], "length_b": [1, -5]}, "--map length_b="),
        ({"winner": ["A", "B"], "gold": ["A", "who"]}, "--map gold="),
    ],
)
def test_a_remedy_is_for_what_is_wrong(tmp_path, columns, remedy):
    path = write(tmp_path / "t.parquet", **{**models(2), **columns})
    with pytest.raises(InputRefused, match="1 of 2 rows: ") as caught:
        read_comparisons(path, None, NEED, ("tie", "weight", "length_a", "length_b", "gold"))
    assert remedy in caught.value.remedy
    assert ("(x - 1)" in caught.value.remedy) == ("(x - 1)" in remedy)


def test_gold_is_read_by_name_and_what_cannot_be_gold_is_refused(tmp_path):
    path = write(tmp_path / "t.parquet", **models(1), winner=["A"], gold=[{"b": 2, "a": 1}])
    table = read_comparisons(path, None, NEED, ("gold",)).table
    assert table["gold"].to_pylist() == [{"a": 1.0, "b": 2.0, "tie": 0.0}]
    for gold, words in ((1, "is ambiguous"), ({"left": 1, "right": 2}, "has to be a label")):
        write(path, **models(1), winner=["A"], gold=[gold])
        with pytest.raises(InputRefused, match=words) as caught:
            read_comparisons(path, None, NEED, ("gold",))
        assert "--map gold=" in caught.value.remedy


def test_fields_of_metadata_are_columns_with_and_without_their_prefix(tmp_path):
    path = write(
        tmp_path / "t.parquet", **models(1), preference=[0.5], x=[1.0], metadata=[{"x": 2, "y": 3}]
    )
    for given, value in (("x", 1), ("metadata.x", 2), ("y", 3), ("metadata.y", 3)):
        table = read_comparisons(path, {"weight": given}, NEED, ("weight",)).table
        assert table["weight"].to_pylist() == [value]
    with pytest.raises(InputRefused, match="there is no column z for --map weight") as caught:
        read_comparisons(path, {"weight": "metadata.z"}, NEED, ("weight",))
    assert "metadata.x" in caught.value.remedy


def test_names_are_trimmed_as_in_an_import(tmp_path):
    path = tmp_path / "t.parquet"
    write(path, model_a=["gpt ", "x"], model_b=["\tx", "gpt"], preference=[0.1, 0.2])
    table = read_comparisons(path, None, NEED).table
    assert table["model_a"].to_pylist() == ["gpt", "x"]
    assert table["model_b"].to_pylist() == ["x", "gpt"]


def test_a_length_that_is_not_known_is_null(tmp_path):
    path = write(
        tmp_path / "t.parquet", **models(2), preference=[0.5, 0.5], length_a=[None, 2**31 - 1]
    )
    table = read_comparisons(path, None, NEED, ("length_a",)).table
    assert table["length_a"].to_pylist() == [None, 2**31 - 1]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    write(tmp_path / "a.parquet", **models(2), preference=[0.5, 0.5])
    (tmp_path / "z.parquet").write_bytes(b"nothing")
    with pytest.raises(InputRefused, match=r"z\.parquet: not a Parquet file"):
        read_comparisons(tmp_path, None, NEED)
    write(tmp_path / "z.parquet")
    with pytest.raises(InputRefused, match=r"z\.parquet: this Parquet file has no columns"):
        read_comparisons(tmp_path, None, NEED)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"modela": "x"}, "unknown role modela"),
        ({"MODEL_A": "model_a"}, r"unknown role MODEL_A\n  next: did you mean model_a\?"),
        ({"preference": "(nothing + 1)"}, "DuckDB cannot read the columns"),
        ({"preference": "(SELECT 1 FROM read_text('/etc/hostname'))"}, "disabled"),
    ],
)
def test_wrong_maps_are_refused(tmp_path, given, words):
    path = write(tmp_path / "t.parquet", **models(1), preference=[0.5])
    with pytest.raises(UsageError, match=words):
        read_comparisons(path, given, NEED)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model_a": "modle_a"}, "did you mean model_a"),
        ({"model_b": ""}, "no column for model_b"),
        ({"preference": "model_a"}, r"column model_a \(VARCHAR\) for preference .* numbers: 'x'"),
        ({"logit": "raw"}, r"column raw \(BLOB\) for logit does not hold numbers: b'\\xff'"),
        ({"preference": "(model_b)"}, r"column \(model_b\) \(VARCHAR\) for preference"),
    ],
)
def test_columns_that_cannot_be_used_are_refused_as_in_shards(tmp_path, given, words):
    path = write(tmp_path / "t.parquet", **models(1), preference=[0.5], raw=[b"\xff"])
    with pytest.raises(InputRefused, match=words):
        read_comparisons(path, given, NEED)


def test_what_is_not_a_source_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.duckdb").write_bytes(b"nothing")
    (tmp_path / "t.parquet").write_bytes(b"nothing")
    for name, kind in (
        ("none.parquet", InputRefused),
        ("empty", InputRefused),
        ("t.parquet", InputRefused),
        ("t.duckdb", UsageError),
    ):
        with pytest.raises(kind):
            read_comparisons(tmp_path / name, None, NEED)


def clusters(path, given=None):
    read = read_comparisons(path, given, NEED, ("instruction",))
    ids = read.table["instruction"].to_pylist()
    return [ids.index(id_) for id_ in ids], read.columns["instruction"]


def test_votes_on_one_pair_belong_together(tmp_path):
    """The first column with values is the cluster; where it has none, it is the pair."""
    votes = {**models(5), "preference": [0.1] * 5, "pair_id": [0, 0, 1, 1, 2]}
    none, some = pa.array([None] * 5, pa.uint64()), pa.array([1, None, None, None, 1], pa.int64())
    path = tmp_path / "t.parquet"
    write(path, **votes)
    assert clusters(path) == ([0, 0, 2, 2, 4], '"pair_id"')
    write(path, **votes, instruction_id=none)
    assert clusters(path) == ([0, 0, 2, 2, 4], '"pair_id"')
    write(path, **votes, instruction_id=none, prompt=["p", "q", "p", "q", "q"])
    assert clusters(path) == ([0, 1, 0, 1, 1], '"prompt"')
    write(path, **votes, instruction_id=some)  # the number 1 is not pair 1
    assert clusters(path) == ([0, 1, 2, 2, 0], '"instruction_id", else "pair_id"')
    write(path, **votes, instruction_id=some, mine=["u", "u", "u", "v", "v"])
    assert clusters(path, {"pair_id": "mine"}) == ([0, 1, 1, 3, 0], '"instruction_id", else "mine"')
    with pytest.raises(InputRefused, match="3 of 5 rows: instruction is null"):
        clusters(path, {"instruction": "instruction_id"})


@pytest.mark.parametrize("texts", [["1.4", "1.2", "1"], ["007", "7", "07"]])
def test_ids_that_look_like_numbers_stay_apart(tmp_path, texts):
    path = write(tmp_path / "t.parquet", **models(3), preference=[0.1] * 3, prompt_id=texts)
    assert clusters(path)[0] == [0, 1, 2]


def test_rows_of_weight_0_are_left_out(tmp_path):
    path = tmp_path / "t.parquet"
    write(path, **models(3), preference=[0.1] * 3, weight=[0.0, 2.0, 0.0])
    read = read_comparisons(path, None, NEED, ("weight",))
    assert (len(read.table), read.left_out) == (1, {"weight 0": 2})
    write(path, **models(3), preference=[0.1] * 3, weight=[0, 0, 0])
    with pytest.raises(InputRefused, match="no comparisons are left: left out: 3 rows: weight 0"):
        read_comparisons(path, None, NEED, ("weight",))
