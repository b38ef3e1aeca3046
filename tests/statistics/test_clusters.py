"""Ids of instructions: by hand, as the planner has them, and apart wherever the texts differ."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from steelyard.plan.keys import digests, trim
from steelyard.statistics.clusters import cluster_warning, instruction_ids


def by_hand(text):
    return int.from_bytes(xxhash.xxh3_128_digest(text.encode())[:8], "little")


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        (pa.array([7, 0, None]), [7, 0, None]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([-1, 3]), [by_hand("-1"), 3]),
        (pa.array([7.0, 1.4, math.nan, None]), [7, by_hand("1.4"), None, None]),
        (pa.array(["why", " why\n", "", "  ", None]), [by_hand("why")] * 2 + [None] * 3),
        (pa.array(["7", "x"]).dictionary_encode(), [by_hand("7"), by_hand("x")]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_ids_by_hand(values, ids):
    found = instruction_ids(values)
    assert found.type == pa.uint64()
    assert found.to_pylist() == ids


@given(st.lists(st.text(min_size=1), min_size=1))
def test_a_text_has_the_id_that_the_planner_gives_it(texts):
    values = pa.array(texts)
    for text, trimmed, id_, digest in zip(
        texts, trim(values).to_pylist(), instruction_ids(values).to_pylist(),
        digests(trim(values)), strict=True,
    ):  # fmt: skip
        wanted = int.from_bytes(digest[:8], "little") if trimmed else None
        assert id_ == wanted, text


@given(st.lists(st.from_regex(r"\A[0-9]{1,4}(\.[0-9]{1,2})?\Z"), min_size=2, unique=True))
def test_texts_that_look_like_numbers_stay_apart(texts):
    """1.4 and 1.2, 007 and 7, 1 and 1.0 were one instruction once."""
    ids = instruction_ids(pa.array([*texts])).to_pylist()
    assert len(set(ids)) == len(texts)
    assert not {float(text) for text in texts} & {float(id_) for id_ in ids}


def test_few_clusters_in_words():
    assert cluster_warning(30) is None
    assert cluster_warning(29) == "only 29 clusters: the intervals are too narrow"
    assert cluster_warning(5) == "only 5 clusters: the intervals are too narrow"
    assert cluster_warning(4).endswith("no interval is given")
