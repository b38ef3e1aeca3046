"""Deduplication at its smallest sizes and by hand."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from steelyard.core.schemas import KEY, KEY_BYTES, KEYS
from steelyard.plan.dedupe import SEEN_SLOTS, GroupOrder, SeenTexts, count_unique, unique_prompts

A, B, C = (bytes([number]) * KEY_BYTES for number in (1, 2, 3))


def uints(*values):
    return np.array(values, dtype=np.uint64)


def test_unique_prompts_by_hand():
    unique = unique_prompts(pa.array([[A, B], [], [B, C, A]], KEYS))
    assert unique.keys == [A, B, C]
    assert unique.first.tolist() == [0, 1, 3]
    assert unique.inverse.tolist() == [0, 1, 1, 2, 0]
    assert unique.starts.tolist() == [0, 2, 2, 5]
    for numbers in (unique.first, unique.inverse, unique.starts):
        assert numbers.dtype == np.int64


@pytest.mark.parametrize("pairs", [[], [[]], [[], []]])
def test_nothing_is_asked(pairs):
    unique = unique_prompts(pa.array(pairs, KEYS))
    assert (unique.keys, unique.first.tolist(), unique.inverse.tolist()) == ([], [], [])
    assert unique.starts.tolist() == [0] * (len(pairs) + 1)


def test_a_part_of_a_column_counts_from_its_own_beginning():
    unique = unique_prompts(pa.array([[A, B], [B], [C, B]], KEYS).slice(1))
    assert (unique.keys, unique.starts.tolist()) == ([B, C], [0, 1, 3])
    assert unique.first.tolist() == [0, 1]


def test_counts_of_few_keys():
    assert count_unique(pa.chunked_array([], KEY)) == 0
    assert count_unique(pa.chunked_array([[A]], KEY)) == 1
    assert count_unique(pa.chunked_array([[A, B], [B, A]], KEY)) == 2


def new(seen, texts, buckets):
    """Texts are pairs of words."""
    digests = np.array(texts, dtype=np.uint64).reshape(-1, 2)
    return seen.new(digests, np.array(buckets, dtype=np.int32)).tolist()


def test_texts_are_new_once_per_bucket():
    seen = SeenTexts(1 << 10)
    assert new(seen, [(5, 1), (6, 1), (5, 1)], [0, 0, 0]) == [True, True, False]
    assert new(seen, [(5, 1), (7, 1), (6, 1)], [0, 0, 0]) == [False, True, False]
    assert new(seen, [(5, 1), (5, 1)], [1, 0]) == [True, False]
    assert new(seen, [], []) == []


def test_digests_are_left_as_they_were():
    digests = np.array([[5, 1]], dtype=np.uint64)
    SeenTexts(4).new(digests, np.array([3], dtype=np.int32))
    assert digests.tolist() == [[5, 1]]


def test_both_words_of_a_digest_count():
    seen = SeenTexts(1 << 10)
    assert new(seen, [(5, 1), (5, 2)], [0, 0]) == [True, True]  # equal in the first word
    assert new(seen, [(5, 1), (5, 2)], [0, 0]).count(True) in {1, 2}  # one slot holds one of them
    assert new(seen, [(6, 1)], [0]) == [True]
    assert new(SeenTexts(8), [(5, 1), (5, 2), (6, 1), (6, 1)], [0] * 4) == [True] * 3 + [False]


def test_all_bits_of_a_digest_count():
    """Doubles hold 53 bits: the two would be one."""
    seen = SeenTexts(8)
    assert new(seen, [(2**63 + 8, 1)], [0]) == [True]
    assert new(seen, [(2**63 + 16, 1)], [0]) == [True]


def test_one_slot_holds_what_came_last():
    seen = SeenTexts(4)  # 1 and 5 want the same slot
    assert new(seen, [(1, 1)], [0]) == [True]
    assert new(seen, [(5, 1)], [0]) == [True]
    assert new(seen, [(1, 1)], [0]) == [True]
    assert new(seen, [(1, 1), (2, 1)], [0, 0]) == [False, True]


def test_all_slots_are_used():
    """Words that differ in their last bits are in different slots."""
    seen = SeenTexts(8)
    texts = [(8 + k, 1) for k in range(8)]
    assert new(seen, texts, [0] * 8) == [True] * 8
    assert new(seen, texts, [0] * 8) == [False] * 8


def test_buckets_spread_over_the_slots():
    """One text in each of 8 buckets: by the text alone they would share a slot."""
    seen = SeenTexts(1 << 16)
    for bucket in range(8):
        assert new(seen, [(1, 1)], [bucket]) == [True]
    assert [new(seen, [(1, 1)], [bucket]) for bucket in range(8)] == [[False]] * 8


def test_the_table_has_room_for_ten_million_pairs():
    assert SEEN_SLOTS == 8 * 2**20
    assert len(SeenTexts()._table) == SEEN_SLOTS


def test_stretches_by_hand():
    groups = GroupOrder()
    assert groups.starts(uints(4, 4, 2)).tolist() == [True, False, True]
    assert groups.starts(uints(2, 2, 9)).tolist() == [False, False, True]
    assert groups.starts(uints(7)).tolist() == [True]
    assert groups.starts(uints(7)).tolist() == [False]
    assert groups.starts(uints(8, 8)).tolist() == [True, False]
    assert groups.starts(uints(2)) is None


@pytest.mark.parametrize("again", [1, 3, 5, 9])
def test_every_ended_stretch_is_remembered(again):
    groups = GroupOrder()
    for value in (3, 1, 9, 5, 7):
        assert groups.starts(uints(value)).tolist() == [True]
    assert groups.starts(uints(8, again)) is None


def test_a_stretch_may_not_come_again_within_a_batch():
    assert GroupOrder().starts(uints(1, 2, 1)) is None
    assert GroupOrder().starts(uints(2, 1, 1, 2)) is None
    assert GroupOrder().starts(uints(0, 0)).tolist() == [True, False]


@pytest.mark.parametrize("batches", [[4, 2, 1], [1, 1, 1, 1, 1], [8, 1, 1, 1], [3, 2]])
def test_runs_are_sorted_and_each_is_twice_as_long_as_the_next(batches):
    groups, start = GroupOrder(), 0
    for size in batches:
        values = np.arange(start + size, start, -1).astype(np.uint64)
        assert groups.starts(values).all()
        start += size
        lengths = list(map(len, groups._runs))
        assert all(long >= 2 * short for long, short in pairwise(lengths))
        assert sum(lengths) == start
        assert all((np.diff(run.astype(np.int64)) > 0).all() for run in groups._runs)


def test_runs_are_not_merged_before_they_have_to_be():
    groups = GroupOrder()
    groups.starts(uints(1, 2, 3, 4))
    groups.starts(uints(5, 6))
    assert list(map(len, groups._runs)) == [4, 2]
    groups.starts(uints(7))
    assert list(map(len, groups._runs)) == [4, 2, 1]
    groups.starts(uints(8, 9))
    assert list(map(len, groups._runs)) == [9]
