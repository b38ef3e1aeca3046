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
        "2 have an unknown label, the first in row 1: label is C; known are A, B and tie",
    ),
    "no votes": (
        {"pair_id": ["x", "y"], "votes_a": [0, 1], "votes_b": [0, 2]},
        "1 have votes that sum to zero, the first in row 0",
    ),
    "negative votes": (
        {"pair_id": ["x", "y"], "votes_a": [-1.0, 1], "votes_b": [2.0, 2]},
        "1 have votes that are negative or no numbers, the first in row 0",
    ),
    "half of the votes": (
        {"pair_id": ["x", "y"], "votes_a": [None, 1], "votes_b": [2, 2]},
        "1 have votes that are incomplete, the first in row 0",
    ),
    "no probability": (
        {"pair_id": ["x", "y", "z"], "gold": [0.5, 1.5, float("nan")]},
        "2 have a number that is no probability, the first in row 1",
    ),
    "a pair twice": (
        {"pair_id": ["x", "y", "x", "x", "z", "z"], "label": ["A"] * 6},
        "5 share 2 pair_ids, the first x",
    ),
    "an annotator twice": (
        {"pair_id": ["x", "x", "y"], "label": ["A"] * 3, "annotator": ["i", "i", "i"]},
        "2 share 1 pair_ids by the same annotator, the first x by i",
    ),
    "no pair_id": (
        {"pair_id": ["x", None], "label": ["A", "B"]},
        "1 have no pair_id, the first in row 1",
    ),
    "votes of one side": (
        {"pair_id": ["x"], "votes_a": [1]},
        "gold has votes_a and no votes_b",
    ),
    "votes of the other side": (
        {"pair_id": ["x"], "votes_b": [1], "votes_tie": [1]},
        "gold has votes_b and no votes_a",
    ),
    "votes as text": (
        {"pair_id": ["x"], "votes_a": ["one"], "votes_b": [1]},
        "votes_a in votes_a is of type string",
    ),
    "labels as lists": (
        {"pair_id": ["x"], "label": [["A"]]},
        "gold in label is of type list<",
    ),
    "labels as other fields": (
        {"pair_id": ["x"], "gold": [{"left": 1, "right": 2}]},
        "gold in gold is of type struct<left",
    ),
    "a pair_id of bytes": (
        {"pair_id": [b"\xff\xfe"], "label": ["A"]},
        "pair_id in pair_id is of type binary",
    ),
    "a pair_id that is no UTF-8": (
        {"pair_id": pa.array([b"\xff\xfe"]).view(pa.string()), "label": ["A"]},
        "pair_id in pair_id holds bytes that are no UTF-8",
    ),
    "a pair_id that is a list": (
        {"pair_id": [["x"]], "label": ["A"]},
        "pair_id in pair_id is of type list<",
    ),
    "a pair_id that is a fraction": (
        {"pair_id": [1.0], "label": ["A"]},
        "pair_id in pair_id is of type double",
    ),
    "extreme weights": (
        {"pair_id": ["x", "y", "z"], "votes_a": [1e300, 1, 1e-300], "votes_b": [0.0, 1, 0]},
        "2 have votes that sum to less than 1e-09 or more than 1e+12, the first in row 0",
    ),
    "rows of other models": (
        {
            "pair_id": ["x", "x", "y"],
            "label": ["A", "A", "B"],
            "annotator": ["i", "j", "i"],
            "model_a": ["m", "n", "m"],
            "model_b": ["n", "m", "n"],
        },
        "the rows of 1 pair_ids name different models, the first x",
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
    assert "4 rows of gold" in words
    for part in ("unknown label", "no pair_id", "share 1 pair_ids"):
        assert part in words
    assert "\x1b" not in words


def test_columns_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match="no column for gold"):
        read_gold_file(write(tmp_path, pair_id=["x"], other=["A"]))
    with pytest.raises(UsageError, match="no column for pair_id"):
        read_gold_file(write(tmp_path, name=["x"], label=["A"]))
    with pytest.raises(UsageError, match="there is no such column"):
        read_gold_file(write(tmp_path, pair_id=["x"], label=["A"]), {"gold": "no"})
    with pytest.raises(UsageError, match="a whole number is no label"):
        read_gold_file(write(tmp_path, pair_id=["x"], label=[1]))


def test_what_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "gold.parquet").write_text("pair_id,label\nx,A\n")
    with pytest.raises(GoldRefused, match="no Parquet"):
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
