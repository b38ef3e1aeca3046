"""Gold files: what is read, and what is refused by name with counts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.errors import GoldRefused, UsageError
from steelyard.input.gold_file import read_gold_file


def write(path, **columns):
    pq.write_table(pa.table(columns), path / "gold.parquet")
    return path / "gold.parquet"


def test_labels_votes_and_probabilities(tmp_path):
    labels = read_gold_file(write(tmp_path, pair_id=["x", "y", "z"], label=["A", "tie", "[[B]]"]))
    assert labels.pair_ids.to_pylist() == ["x", "y", "z"]
    assert labels.votes.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    votes = read_gold_file(write(tmp_path, pair_id=[1, 2], votes_a=[3, 0], votes_b=[1, 2]))
    assert votes.pair_ids.to_pylist() == ["1", "2"]
    assert votes.votes.tolist() == [[3, 1, 0], [0, 2, 0]]
    texts = ['{"a": 2, "b": 1, "tie": 0}', '{"a":0.5,"b":0.5}', "B"]
    written = read_gold_file(write(tmp_path, pair_id=["x", "y", "z"], gold=texts))
    assert written.votes.tolist() == [[2, 1, 0], [0.5, 0.5, 0], [0, 1, 0]]
    chances = read_gold_file(write(tmp_path, pair_id=["x"], gold=[0.25]))
    assert chances.votes.tolist() == [[0.25, 0.75, 0]]


def test_annotators_are_kept_apart_and_added_up(tmp_path):
    found = read_gold_file(
        write(
            tmp_path,
            pair_id=[7, 8, 7, 7],
            worker=["ann", "bob", "bob", "cid"],
            winner=["A", "tie", "A", "B"],
            prompt_id=[1, 2, 1, 1],
        ),
        want=("prompt_id",),
    )
    assert found.pair_ids.to_pylist() == ["7", "8"]
    assert found.votes.tolist() == [[2, 1, 0], [0, 0, 1]]
    assert found.columns["instruction"].to_pylist() == [1, 2]
    apart = found.annotations
    assert [apart.names[one] for one in apart.annotators] == ["ann", "bob", "bob", "cid"]
    assert apart.pairs.tolist() == [0, 1, 0, 0]
    assert apart.classes.tolist() == [0, 2, 0, 1]


def test_rows_without_gold_are_left_out_and_counted(tmp_path):
    found = read_gold_file(write(tmp_path, pair_id=["x", "y", "z"], label=["A", None, "B"]))
    assert (found.pair_ids.to_pylist(), found.unlabelled) == (["x", "z"], 1)


def test_columns_of_other_names(tmp_path):
    path = write(tmp_path, id=["x"], choice=["b"], label=[3.5])
    found = read_gold_file(path, {"pair_id": "id", "gold": "choice"})
    assert found.votes.tolist() == [[0, 1, 0]]


REFUSED = {
    "unknown label": (
        {"pair_id": ["x", "y", "z"], "label": ["A", "C", "D"]},
        "2 of 3 rows, the first is row 1: label is not A, B or tie (such as C or D)",
    ),
    "no votes": (
        {"pair_id": ["x", "y"], "votes_a": [0, 1], "votes_b": [0, 2]},
        "1 of 2 rows, the first is row 0: votes sum to zero (such as a=0.0, b=0.0)",
    ),
    "negative votes": (
        {"pair_id": ["x", "y"], "votes_a": [-1.0, 1], "votes_b": [2.0, 2]},
        "1 of 2 rows, the first is row 0: votes are negative or not numbers",
    ),
    "half of the votes": (
        {"pair_id": ["x", "y"], "votes_a": [None, 1], "votes_b": [2, 2]},
        "1 of 2 rows, the first is row 0: votes are incomplete",
    ),
    "no probability": (
        {"pair_id": ["x", "y", "z"], "gold": [0.5, 1.5, float("nan")]},
        "2 of 3 rows, the first is row 1: gold is not P(a), a number from 0 to 1",
    ),
    "a pair twice": (
        {"pair_id": ["x", "y", "x", "x", "z", "z"], "label": ["A"] * 6},
        "5 of 6 rows, the first is row 0: the pair_id is in several rows (such as x",
    ),
    "an annotator twice": (
        {"pair_id": ["x", "x", "y"], "label": ["A"] * 3, "annotator": ["i", "i", "i"]},
        "the pair_id is in several rows by the same annotator (such as x by i)",
    ),
    "no pair_id": (
        {"pair_id": ["x", None], "label": ["A", "B"]},
        "1 of 2 rows, the first is row 1: there is no pair_id",
    ),
    "votes as text": (
        {"pair_id": ["x"], "votes_a": ["one"], "votes_b": [1]},
        "column votes_a (string) for votes_a has to be a number",
    ),
    "labels as lists": (
        {"pair_id": ["x"], "label": [["A"]]},
        "column label (list<",
    ),
    "labels as other fields": (
        {"pair_id": ["x"], "gold": [{"left": 1, "right": 2}]},
        "column gold (struct<left",
    ),
    "a pair_id of bytes": (
        {"pair_id": [b"\xff\xfe"], "label": ["A"]},
        "column pair_id (binary) for pair_id holds bytes that are not declared to be text",
    ),
    "a pair_id that is not UTF-8": (
        {"pair_id": pa.array([b"\xff\xfe"]).view(pa.string()), "label": ["A"]},
        "1 of 1 rows, the first is row 0: pair_id is not UTF-8",
    ),
    "a pair_id that is a list": (
        {"pair_id": [["x"]], "label": ["A"]},
        "column pair_id (list<",
    ),
    "a pair_id that is a fraction": (
        {"pair_id": [1.0], "label": ["A"]},
        "column pair_id (double) for pair_id has to be text or an integer",
    ),
    "extreme weights": (
        {"pair_id": ["x", "y", "z"], "votes_a": [1e300, 1, 1e-300], "votes_b": [0.0, 1, 0]},
        "2 of 3 rows, the first is row 0: votes sum to less than 1e-09 or more than 1e+12",
    ),
    "rows of other models": (
        {
            "pair_id": ["x", "x", "y"],
            "label": ["A", "A", "B"],
            "annotator": ["i", "j", "i"],
            "model_a": ["m", "n", "m"],
            "model_b": ["n", "m", "n"],
        },
        "2 of 3 rows, the first is row 0: rows of the pair name different models (such as x)",
    ),
    "whole numbers": (
        {"pair_id": ["x"], "label": [1]},
        "column label (int64) for gold is ambiguous",
    ),
    "votes as text that are none": (
        {"pair_id": ["x", "y", "z"], "gold": ['{"a":1,"b":-1}', '{"a":true,"b":1}', '{"a":1}']},
        "1 of 3 rows, the first is row 0: votes are negative or not numbers (such as a=1.0, b=-1.0,"
        " tie=0.0)\n    2 of 3 rows, the first is row 1: gold is not A, B or tie",
    ),
    "no gold at all": (
        {"pair_id": ["x"], "label": pa.array([None], pa.string())},
        "none of 1 rows has gold",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_gold_is_refused_by_name_with_counts(name, tmp_path):
    columns, words = REFUSED[name]
    path = write(tmp_path, **columns)
    with pytest.raises(GoldRefused) as refused:
        read_gold_file(path)
    assert words in str(refused.value)
    assert str(path) in str(refused.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    path = write(tmp_path, pair_id=["x", "x", None, "z"], label=["A", "B", "B", "\x1b[31mred"])
    with pytest.raises(GoldRefused) as refused:
        read_gold_file(path)
    words = str(refused.value)
    assert "1 of 4 rows" in words
    for part in ("not A, B or tie", "no pair_id", "the pair_id is in several rows"):
        assert part in words
    assert "\x1b" not in words


def test_columns_that_are_not_there(tmp_path):
    with pytest.raises(GoldRefused, match="no column for gold"):
        read_gold_file(write(tmp_path, pair_id=["x"], other=["A"]))
    with pytest.raises(GoldRefused, match="no column for pair_id"):
        read_gold_file(write(tmp_path, name=["x"], label=["A"]))
    with pytest.raises(GoldRefused, match="there is no column no for --gold-map gold"):
        read_gold_file(write(tmp_path, pair_id=["x"], label=["A"]), {"gold": "no"})
    with pytest.raises(UsageError, match=r"--gold-map glod=label: unknown role glod"):
        read_gold_file(write(tmp_path, pair_id=["x"], label=["A"]), {"glod": "label"})
    with pytest.raises(GoldRefused, match="votes_a has no counterpart: no column for votes_b"):
        read_gold_file(write(tmp_path, pair_id=["x"], votes_a=[1]))
    with pytest.raises(GoldRefused, match="votes_b has no counterpart: no column for votes_a"):
        read_gold_file(write(tmp_path, pair_id=["x"], votes_b=[1], votes_tie=[1]))


def test_votes_take_precedence_over_gold_and_gold_over_votes_of_one_side(tmp_path):
    both = write(tmp_path, pair_id=["x"], label=["A"], votes_a=[2], votes_b=[1])
    assert read_gold_file(both).votes.tolist() == [[2, 1, 0]]
    side = write(tmp_path, pair_id=["x"], label=["A"], votes_a=[7])
    assert read_gold_file(side).votes.tolist() == [[1, 0, 0]]


def test_ids_and_names_may_be_whole_numbers_or_uuids(tmp_path):
    ids = pa.array([bytes(range(16))], pa.uuid())
    path = write(tmp_path, pair_id=ids, label=["A"], model_a=[1], model_b=[2], worker=[7])
    gold = read_gold_file(path)
    assert gold.pair_ids.to_pylist() == ["00010203-0405-0607-0809-0a0b0c0d0e0f"]
    assert [gold.models[side].to_pylist() for side in ("model_a", "model_b")] == [["1"], ["2"]]
    assert gold.annotations.names == ("7",)


def test_what_is_not_parquet_is_refused(tmp_path):
    (tmp_path / "gold.parquet").write_text("pair_id,label\nx,A\n")
    with pytest.raises(GoldRefused, match="not a Parquet file"):
        read_gold_file(tmp_path / "gold.parquet")


def test_many_rows_keep_their_places(tmp_path):
    draw = np.random.default_rng(0)
    ids, who = draw.integers(0, 500, 5000), np.arange(5000)
    label = draw.integers(0, 3, 5000)
    path = write(
        tmp_path, pair_id=ids, annotator=who.astype(str), label=np.array(["A", "B", "tie"])[label]
    )
    found = read_gold_file(path)
    wanted = {str(pair): np.bincount(label[ids == pair], minlength=3).tolist() for pair in set(ids)}
    names = found.pair_ids.to_pylist()
    assert dict(zip(names, found.votes.tolist(), strict=True)) == wanted
