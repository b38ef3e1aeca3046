"""Prefix order and common prefixes against Python's own sort and a trie of dicts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard_kernels.prefix import common_prefix, lexicographic_order, trie_floor


def ragged(rows):
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return np.array([token for row in rows for token in row], dtype=np.int32), offsets


def naive_order(rows):
    return sorted(range(len(rows)), key=rows.__getitem__)


def naive_common(one, other):
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def naive_shared(rows, order):
    return [
        0 if at == 0 else naive_common(rows[order[at - 1]], rows[row])
        for at, row in enumerate(order)
    ]


def trie_nodes(rows):
    root, nodes = {}, 0
    for row in rows:
        node = root
        for token in row:
            nodes += token not in node
            node = node.setdefault(token, {})
    return nodes


# Beginnings in common that are shorter and longer than what is compared at once, and few tokens.
rows_of = st.lists(
    st.builds(
        lambda head, tail: list(range(100, 100 + head)) + tail,
        st.sampled_from([0, 0, 1, 15, 16, 17, 40]),
        st.lists(st.sampled_from([0, 1, 2, 105, 2**18, 2**31 - 1]), max_size=6),
    ),
    max_size=120,
)


@given(rows_of)
@settings(max_examples=300, deadline=None)
def test_order_and_shared_are_those_of_the_naive_twin(rows):
    order, shared = lexicographic_order(*ragged(rows))
    assert (order.dtype, shared.dtype) == (np.int64, np.int32)
    assert order.tolist() == naive_order(rows)  # Python's sort is stable, so ties are checked, too
    assert shared.tolist() == naive_shared(rows, order)


@given(rows_of, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_the_floor_is_the_number_of_trie_nodes_in_any_order_of_rows(rows, draw):
    for _ in range(2):
        tokens, offsets = ragged(rows)
        _, shared = lexicographic_order(tokens, offsets)
        assert trie_floor(offsets, shared) == trie_nodes(rows)
        draw.shuffle(rows)


@given(rows_of, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_common_prefix_in_any_order(rows, draw):
    order = [draw.randrange(len(rows)) for _ in rows]  # a row may come twice or never
    found = common_prefix(*ragged(rows), np.array(order, dtype=np.int64))
    assert found.tolist() == naive_shared(rows, order)
    assert found.dtype == np.int32


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [[]],
        [[5]],
        [[], []],
        [[7] * n for n in range(300)],
        [[7] * n + [8] for n in range(300, 0, -1)],
        [[1, 2, 3]] * 100_000,
        [[3, i % 1000, 1] for i in range(100_000)],
        [[i] for i in range(5000, 0, -1)],
        [[-1, 2], [-1], [-(2**31)], [], [0]],
        [[i // 2, -i] for i in range(20)],
        [[5, 5, 5, 5, 1], [5, 5, 5, 5, 2], [6]],
        [[7] * 20, [7] + [8] * 19],
        [[7] * 40, [7] * 16 + [8] * 24],
    ],
    ids=[
        "none", "one empty", "one", "empties", "prefixes", "peeled", "equal", "group", "reversed",
        "negative", "groups", "group and one", "runs", "longer runs",
    ],
)  # fmt: skip
def test_extremes(rows):
    tokens, offsets = ragged(rows)
    order, shared = lexicographic_order(tokens, offsets)
    assert order.tolist() == naive_order(rows)
    assert shared.tolist() == naive_shared(rows, order)
    assert trie_floor(offsets, shared) == trie_nodes(rows)


def test_the_floor_of_a_part_of_a_buffer():
    """Rows of 3 and 4 tokens that share 2."""
    assert trie_floor(np.array([5, 8, 12]), np.array([0, 2], np.int32)) == 5


def test_long_common_beginnings_and_a_part_of_a_buffer():
    draw = random.Random(0)
    head = [draw.randrange(50_000) for _ in range(3000)]
    rows = [head + [draw.randrange(50_000) for _ in range(50)] for _ in range(200)]
    rows += [[*head[: draw.randrange(3000)], draw.randrange(4)] for _ in range(200)]
    tokens, offsets = ragged(rows)
    order, shared = lexicographic_order(tokens, offsets)
    assert order.tolist() == naive_order(rows)
    assert shared.tolist() == naive_shared(rows, order)
    # Rows 100 to 199 of the same buffers; read-only and strided inputs are inputs all the same.
    tokens.flags.writeable = False
    part, _ = lexicographic_order(tokens, offsets[100:201])
    assert part.tolist() == naive_order(rows[100:200])
    doubled = np.repeat(tokens, 2)[::2]
    assert lexicographic_order(doubled, offsets)[0].tolist() == order.tolist()
