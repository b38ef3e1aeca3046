"""The command `show`: the pairs that were asked for, with the texts of their rows."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.comparisons.importing import import_tables
from support.helpers import command, pairs_table

PREFERENCES = {"a": 0.95, "b": 0.45, "c": 0.52, "d": 0.1, "e": 0.7}


@pytest.fixture
def run(tmp_path):
    table = pa.table(
        {
            "pair_id": list(PREFERENCES),
            "instruction": [f"question {name}" for name in PREFERENCES],
            "response_a": [f"first {name}" for name in PREFERENCES],
            "response_b": [f"second {name}\nand more" for name in PREFERENCES],
            "model_a": ["m"] * 5,
            "model_b": ["n"] * 5,
            "preference": list(PREFERENCES.values()),
            "gold": ["B", "A", "A", "B", "tie"],
        }
    )
    pq.write_table(table, tmp_path / "verdicts.parquet")
    assert import_tables([str(tmp_path / "verdicts.parquet")], tmp_path / "run") == 0
    return tmp_path / "run"


def shown(*arguments):
    done = command("show", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return {
        kind: [pair["pair_id"] for pair in pairs] for kind, pairs in json.loads(done.stdout).items()
    }


def test_kinds(run):
    assert shown(run) == {"least certain": ["c", "b", "e"]}
    assert shown(run, "--most-certain", 2, "--against-gold", 5) == {
        "most certain": ["a", "d"],
        "against gold": ["a", "b"],  # 0.95 where gold says B, 0.45 where it says A
    }
    assert shown(run, "--flipped", 3, "--not-judged", 3) == {}
    assert command("show", run, "--flipped", 3).stdout == "no such pairs\n"


def test_winners_have_no_least_certain_pair(tmp_path):
    winners = {"model_a": ["m"] * 3, "model_b": ["n"] * 3, "winner": ["m", "n", "m"]}
    pq.write_table(pa.table({"pair_id": ["x", "y", "z"], **winners}), tmp_path / "w.parquet")
    done = command("import", tmp_path / "w.parquet", "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "--least-certain" not in done.stdout
    assert "--any 5" in done.stdout
    assert shown(tmp_path / "run", "--least-certain", 5) == {}
    assert list(shown(tmp_path / "run")) == ["any"]


def test_named_pairs_in_their_order_with_texts(run):
    assert shown(run, "e", "a") == {"named": ["e", "a"]}
    text = command("show", run, "b").stdout
    assert text.startswith("b (verdicts.parquet, row 1)\n")
    assert "response_a (m):\n  | first b\n" in text
    assert "response_b (n), preferred:\n  | second b\n  | and more\n" in text
    assert "P(a is better): 0.450" in text
    assert "gold:           a" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "no pair has the id nope"),
        (["a", "--any", "2"], "pairs and kinds of pairs are named"),
        (["--any", "0"], "0"),
    ],
)
def test_wrong_arguments(run, arguments, words):
    done = command("show", run, *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_without_its_shards_a_run_shows_numbers(tmp_path):
    pq.write_table(pairs_table(5), tmp_path / "pairs.parquet")
    steelyard.score(tmp_path / "pairs.parquet", run=tmp_path / "run", judge="scripted")
    (tmp_path / "pairs.parquet").unlink()
    done = command("show", tmp_path / "run", "--any", "2")
    assert done.returncode == 0
    assert "texts are not shown" in done.stderr
    assert done.stdout.count("a shown first:") == 2
