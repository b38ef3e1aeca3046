"""Which responses are compared, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from steelyard.errors import InputRefused, UsageError
from steelyard.plan import pairing as module
from steelyard.plan.pairing import NO_RESPONSE, Groups, Pairing, choose_pairs, split_groups


def chosen(rule, models, bounds=None, baseline=-2):
    """The pairs of responses by these models, in one group unless bounds are given."""
    codes = np.asarray(models, dtype=np.int64)
    ends = np.asarray(bounds or [0, len(codes)], dtype=np.int64)
    seeds = np.arange(1, len(ends), dtype=np.uint64)
    first, second = choose_pairs(Pairing.parse(rule), Groups(ends, codes, seeds, baseline))
    return list(zip(first.tolist(), second.tolist(), strict=True))


def test_all_pairs_of_each_group():
    assert chosen("all", [0, 1, 2]) == [(0, 1), (0, 2), (1, 2)]
    assert chosen("all", [0, 1, 5, 0, 1, 2, 7], [0, 2, 3, 6, 7]) == [
        (0, 1), (3, 4), (3, 5), (4, 5),
    ]  # fmt: skip


def test_a_model_is_not_compared_with_itself_unless_it_is_the_only_one():
    assert chosen("all", [0, 0, 1]) == [(0, 2), (1, 2)]
    assert chosen("all", [4, 4, 4]) == [(0, 1), (0, 2), (1, 2)]
    assert chosen("all", [-1, -1]) == [(0, 1)]  # no model is named
    assert chosen("all", [-1, -1, 0]) == [(0, 2), (1, 2)]


def test_adjacent_is_a_chain():
    assert chosen("adjacent", [0, 1, 2, 0]) == [(0, 1), (1, 2), (2, 3)]
    assert chosen("adjacent", [0, 0, 1]) == [(1, 2)]
    assert chosen("adjacent", [0]) == []


def test_the_baseline_is_on_the_second_side():
    assert chosen("baseline=x", [0, 1, 2], baseline=1) == [(0, 1), (2, 1)]
    assert chosen("baseline=x", [1, 0, 1], baseline=1) == [(1, 0), (1, 2)]
    assert chosen("baseline=x", [0, 2], baseline=1) == []
    assert chosen("baseline=x", [1, 1], baseline=1) == []


@pytest.mark.parametrize("count", [1, 3, 20])
def test_random_pairs_differ_and_are_the_same_again(count):
    models, bounds = [*range(5), *range(4)], [0, 5, 9]
    every = set(chosen("all", models, bounds))
    drawn = chosen(f"random={count}", models, bounds)
    assert drawn == chosen(f"random={count}", models, bounds)
    assert len(set(drawn)) == len(drawn) == min(count, 10) + min(count, 6)
    assert set(drawn) <= every
    assert [first >= 5 for first, _ in drawn] == sorted(first >= 5 for first, _ in drawn)


def test_a_draw_depends_on_its_own_group_alone():
    alone = chosen("random=2", range(6))
    with_others = chosen("random=2", [*range(6), *range(6)], [0, 6, 12])
    assert with_others[:2] == alone
    assert with_others[2:] != [(i + 6, j + 6) for i, j in alone]  # another seed


def test_each_random_pair_is_equally_likely():
    groups = 6000
    bounds = np.arange(0, 4 * groups + 1, 4)
    seeds = np.random.default_rng(0).integers(0, 2**63, groups).astype(np.uint64)
    models = np.tile(np.arange(4), groups)
    first, second = choose_pairs(Pairing.parse("random=1"), Groups(bounds, models, seeds, -2))
    counts = np.bincount(first % 4 * 4 + second % 4, minlength=16)[[1, 2, 3, 6, 7, 11]]
    assert counts.sum() == groups
    # Chi-squared of 5 degrees: 20.5 is exceeded once in a thousand.
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5


def test_random_pairs_do_not_favour_the_same_model():
    # 3 of the 6 pairs are of two models; with the others in the way, two are still drawn.
    for seed in range(20):
        groups = Groups(np.array([0, 4]), np.array([0, 0, 0, 1]), np.array([seed], np.uint64), -2)
        first, second = choose_pairs(Pairing.parse("random=2"), groups)
        assert len(first) == 2
        assert set(second.tolist()) == {3}


def test_none_leaves_each_response_alone():
    assert chosen("none", [0, 0, 1], [0, 2, 3]) == [(i, NO_RESPONSE) for i in range(3)]


def test_too_many_pairs_of_an_instruction(monkeypatch):
    monkeypatch.setattr(module, "MOST", 10)
    assert len(chosen("all", range(5))) == 10
    with pytest.raises(InputRefused, match="6 responses, which make 15 pairs"):
        chosen("all", range(6))
    drawn = chosen("random=4", range(100))
    assert len(set(drawn)) == 4
    assert all(0 <= i < j < 100 for i, j in drawn)


def test_pieces_hold_whole_groups():
    groups = np.array([0, 4, 8, 9, 12])  # 6, 6, 0 and 3 pairs
    pieces = [piece.tolist() for piece in split_groups(groups, Pairing.parse("all"), 9)]
    assert pieces == [[0, 4], [4, 8, 9, 12]]
    assert [len(x) - 1 for x in split_groups(groups, Pairing.parse("all"), 1)] == [1, 1, 1, 1]


def test_rules_and_how_many_pairs_they_make():
    sizes = np.array([1, 2, 5])
    for rule, made in {"all": 11, "adjacent": 5, "baseline=m": 5, "random=3": 4, "none": 8}.items():
        assert Pairing.parse(rule).most(sizes).sum() == made


@pytest.mark.parametrize(
    "text", ["", "some", "random", "random=0", "random=x", "baseline=", "all=1"]
)
def test_no_rule(text):
    with pytest.raises(UsageError, match="--pairs is"):
        Pairing.parse(text)
