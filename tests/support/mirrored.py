"""Pairs and their mirror images, and what every protocol must make of them."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.protocols import get_protocol
from support.helpers import rows

CRITERIA = """
criteria = [
  {text = "It answers the question.", weight = 3},
  {text = "It names a source.", weight = 2},
  "It is short.",
]
"""
EXAMPLES = """
[[examples]]
instruction = "2 + 2?"
response_a = "4"
response_b = "5"
verdict = "A"

[[examples]]
category = "math"
instruction = "3 + 3?"
response_a = "7"
response_b = "6"
verdict = "B"
"""


def talk(text):
    """A turn of the user and the answer to it."""
    return [{"role": "user", "content": text}, {"role": "assistant", "content": "I see."}]


def mirrored_pairs(path, count, seed=0):
    """Pairs, and behind them the same pairs with their responses swapped."""
    chance = random.Random(seed)
    word = lambda: "".join(chance.choices("abcdefg ", k=chance.randint(1, 20)))  # noqa: E731
    rows = [
        {
            "instruction": f"question {at % 3}",
            "response_a": f"a{at} {word()}",
            "response_b": f"b{at} {word()}",
            "turns_a": talk(f"earlier {at}") if at % 2 else None,
            "turns_b": talk(f"sooner {at}") if at % 3 else None,
            "reference": "the truth" if at % 4 == 0 else None,
            "category": "math" if at % 2 else None,
            "number": at,
        }
        for at in range(count)
    ]
    other = {"response_a": "response_b", "response_b": "response_a", "turns_a": "turns_b",
             "turns_b": "turns_a"}  # fmt: skip
    mirrored = [{name: row[other.get(name, name)] for name in row} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows + mirrored), path)
    return path


def options_of(name, folder):
    """What a protocol needs beside the shards."""
    protocol = get_protocol(name)
    options = {}
    if "criterion" in protocol.names:
        (folder / "criteria.toml").write_text(CRITERIA)
        options["criteria"] = str(folder / "criteria.toml")
    if protocol.has_examples:
        (folder / "examples.toml").write_text(EXAMPLES)
        options["examples"] = str(folder / "examples.toml")
    return options


def assert_mirrored(run, count):
    found = rows(run, 'FROM verdicts ORDER BY metadata.number, "row"')
    assert len(found) == 2 * count
    judged = 0
    for one, two in zip(found[::2], found[1::2], strict=True):
        assert one["metadata"]["number"] == two["metadata"]["number"]
        assert one["status"] == two["status"]
        if one["status"] != "ok":
            continue
        judged += 1
        assert one["raw_preference"] == pytest.approx(1 - two["raw_preference"], abs=1e-12)
        assert one["raw_tie"] == two["raw_tie"]
        assert one["score_a"] == two["score_b"]
        assert one["score_b"] == two["score_a"]
        assert one["winner"] == {"a": "b", "b": "a", "tie": "tie"}[two["winner"]]
        if one["preference_ab"] is not None:
            assert one["preference_ab"] == pytest.approx(1 - two["preference_ba"], abs=1e-12)
            assert one["consistent"] == two["consistent"]
    return judged
