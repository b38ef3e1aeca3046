"""The texts of a few pairs: those of their own rows, wherever they are in the shards."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.comparisons import pair_texts as module
from steelyard.comparisons.pair_texts import addresses_of
from steelyard.comparisons.pair_texts import pair_texts as texts_of
from steelyard.errors import InputRefused
from steelyard.store.run_record import read_record
from steelyard.store.rundir import RunDir
from support.helpers import pairs_table


@pytest.fixture
def run(tmp_path):
    """A run of two shards with small row groups; rows 3 and 7 of each are refused."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in ("one", "two"):
        table = pairs_table(40, seed=name)
        texts = table["response_a"].to_pylist()
        texts[3] = texts[7] = None
        table = table.set_column(1, "response_a", pa.array(texts))
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=8)
    steelyard.score(folder, run=tmp_path / "run", judge="scripted")
    return tmp_path / "run"


def record(run):
    return read_record(RunDir(run))


def pair_texts(record, places):
    return texts_of(record, addresses_of(None, record, places))  # no query is needed for pairs


@pytest.mark.parametrize("near", [0, 5, 1000])
def test_each_row_has_its_own_texts(run, monkeypatch, near):
    monkeypatch.setattr(module, "NEAR", near)
    places = [("two.parquet", 39), ("one.parquet", 0), ("one.parquet", 8), ("two.parquet", 2)]
    texts = pair_texts(record(run), places)
    assert {place: values["response_a"].split(" first")[0] for place, values in texts.items()} == {
        ("one.parquet", 0): "answer one/0",
        ("one.parquet", 8): "answer one/8",
        ("two.parquet", 2): "answer two/2",
        ("two.parquet", 39): "answer two/39",
    }
    assert texts["one.parquet", 8]["instruction"].startswith("question 8 ")
    assert texts["one.parquet", 8]["system"] is None


@pytest.mark.parametrize("near", [0, 1000])
def test_refused_and_unknown_rows_are_missing(run, monkeypatch, near):
    monkeypatch.setattr(module, "NEAR", near)
    places = [("one.parquet", 3), ("one.parquet", 7), ("one.parquet", 40), ("none", 0)]
    assert pair_texts(record(run), places) == {}
    assert list(pair_texts(record(run), [*places, ("two.parquet", 0)])) == [("two.parquet", 0)]
    assert pair_texts(record(run), []) == {}


def test_shards_that_changed_are_refused(run, tmp_path):
    pq.write_table(pairs_table(41, seed="one"), tmp_path / "shards" / "one.parquet")
    with pytest.raises(InputRefused, match="changed"):
        pair_texts(record(run), [("two.parquet", 0)])
