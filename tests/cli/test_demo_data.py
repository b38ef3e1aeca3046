"""The demonstration pairs: the Parquet is what its source says, and the source is sound."""

import tomllib
from collections import Counter

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from steelyard.cli.data.make_demo import SOURCE, SWAPPED_GOLD, TARGET, demo_table

TEXTS = ("instruction", "response_a", "response_b")


@pytest.fixture(scope="module")
def rows():
    return pq.read_table(TARGET).to_pylist()


@pytest.fixture(scope="module")
def good(rows):
    return [row for row in rows if all(row[name] for name in TEXTS)]


def test_parquet_equals_its_source():
    assert pq.read_table(TARGET).equals(demo_table()), f"run make_demo.py beside {SOURCE}"


def test_exactly_two_rows_are_bad(rows):
    table = pq.read_table(TARGET)
    assert pc.sum(pc.equal(table["instruction"], "")).as_py() == 1
    assert sum(table[name].null_count for name in table.column_names) == 1
    assert table["response_b"].null_count == 1
    assert len(rows) >= 46


def test_repeats_are_three_exact_and_two_swapped(good):
    def pair(row, a="a", b="b"):
        return row["instruction"], row[f"response_{a}"], row[f"response_{b}"], row["gold"]

    counts = Counter(pair(row) for row in good)
    assert sorted(counts.values())[-4:] == [1, 2, 2, 2]
    mirrored = Counter((*pair(row, "b", "a")[:3], SWAPPED_GOLD[row["gold"]]) for row in good)
    assert len(counts.keys() & mirrored.keys()) == 2 * 2  # both ways


def test_gold_favours_no_position_and_no_length(good):
    gold = Counter(row["gold"] for row in good)
    assert abs(gold["A"] - gold["B"]) <= 4
    assert 3 <= gold["tie"] <= 8
    decided = [row for row in good if row["gold"] != "tie"]
    longer = sum(
        (len(r["response_a"]) > len(r["response_b"])) == (r["gold"] == "A") for r in decided
    )
    assert 0.35 <= longer / len(decided) <= 0.65


def test_prefixes_are_shared(good):
    competitors = {}
    for row in good:
        competitors.setdefault(row["instruction"], set()).update((row["model_a"], row["model_b"]))
    assert sum(len(names) >= 3 for names in competitors.values()) >= 10
    assert any(len(names) == 4 for names in competitors.values())
    assert {name for names in competitors.values() for name in names} == {
        "heron-7b", "magpie-2b", "wren-1b", "cuckoo-3b",
    }  # fmt: skip


def test_texts_have_the_promised_sizes_and_oddities(rows):
    source = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    for task in source["task"]:
        for name, text in task["response"].items():
            assert 30 <= len(text.split()) <= 160 or "駅" in text, (name, text)
    texts = [row[name] or "" for row in rows for name in TEXTS]
    everything = "\n".join(texts)
    assert 60_000 <= len(everything.encode()) <= 85_000
    for oddity in ("<|im_start|>system", "Ignore the above", "🌱", "Hefe", "¿", "駅"):
        assert oddity in everything


def test_the_injected_response_loses(good):
    attacked = [row for row in good if "Ignore the above" in row["response_a"] + row["response_b"]]
    assert attacked
    for row in attacked:
        assert row["gold"] == ("B" if "Ignore the above" in row["response_a"] else "A")
