"""How few verdicts decide the first place: by hand, against every subset, and as it is told."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.cli.ranking_text import format_rank
from steelyard.ranking.bradley_terry import rate
from steelyard.ranking.rank import RankOptions, rank
from steelyard.ranking.sensitivity import Removal, _largest, sensitivity
from steelyard.ranking.tournament import tournament
from support.rating_twins import comparisons as table

NAMES = np.array(list("abcde"))


def removals(source, model="bradley-terry"):
    contest = tournament(source)
    return sensitivity(contest, rate(contest, model=model).estimate)


def test_two_competitors_by_hand():
    """5 of 8 for x: without one win they have 4 and 3, without two 3 and 3, without three y leads.

    All rows have the same variance 1/H and reach 1, H = 8 * 5/8 * 3/8, and the lead is log(5/3),
    so that at least (1 - 3/5) sqrt(H) rows of reach 1/sqrt(H) have to go: 0.4 * 8 * 15/64 = 0.75.
    """
    rows = [("x", "y", 1)] * 5 + [("x", "y", 0)] * 3
    assert removals(table(rows)) == {"verdicts": Removal(3, 8, 1, 1), "instructions": None}
    many = removals(table(rows * 101))["verdicts"]
    assert many == Removal(203, 808, 1, 76)  # 505 - 203 against 303; 0.4 * 808 * 15/64 = 75.75


def test_instructions_go_as_a_whole():
    """x leads 6 to 3: without the first instruction it is 3 to 2, without two of them 1 to 2."""
    rows = [("x", "y", y) for y in (1, 1, 1, 0, 1, 1, 0, 1, 0)]
    ids = [0, 0, 0, 0, 1, 1, 2, 3, 3]
    found = removals(table(rows, instruction=ids))
    assert found["verdicts"] == Removal(4, 9, 1, 1)
    assert found["instructions"] == Removal(2, 4, 1, 1)  # 1 to 2 remain


def test_weights_count():
    rows = [("x", "y", 1)] * 4 + [("x", "y", 0)] * 4
    found = removals(table(rows, weight=[5.0, 1, 1, 1, 1, 1, 1, 1]))["verdicts"]
    assert found == Removal(1, 8, 1, 1)  # 8 to 4, and 3 to 4 without the heavy one


def subsets(rows, clusters):
    """The smallest number of clusters without which another is first, by trying all sets."""
    contest = tournament(table(rows))
    top = contest.competitors[rate(contest).rating.argmax()]
    names = sorted(set(clusters))
    for size in range(1, len(names)):
        for gone in combinations(names, size):
            left = [row for row, c in zip(rows, clusters, strict=True) if c not in gone]
            if len({name for row in left for name in row[:2]}) < contest.size:
                continue
            ratings = rate(tournament(table(left)))
            best = ratings.competitors[ratings.rating.argmax()]
            lead = np.ptp(ratings.rating[[ratings.competitors.index(n) for n in (top, best)]])
            if not ratings.estimate.prior.any() and lead > 1e-6:
                return size
    return None


@pytest.mark.parametrize("seed", range(12))
def test_against_every_subset(seed):
    rng = np.random.default_rng(seed)
    size = 2 + seed % 3
    pairs = [(i, i + 1) for i in range(size - 1)] + [
        tuple(sorted(rng.choice(size, 2, replace=False))) for _ in range(9 - size)
    ]
    rows = [(NAMES[i], NAMES[j], float(y)) for (i, j), y in zip(pairs, rng.random(8), strict=True)]
    groups = rng.integers(0, 5, 8).tolist()
    found = removals(table(rows, instruction=groups))
    for units, clusters in (("verdicts", range(8)), ("instructions", groups)):
        wanted, removal = subsets(rows, clusters), found[units]
        if removal is None:
            assert wanted is None or wanted > 1
        else:
            assert removal.at_least <= wanted <= removal.removed <= wanted + 1


@pytest.mark.parametrize("model", ["davidson", "rao-kupper"])
def test_models_with_ties_have_sets_without_a_bound(model):
    rows = [("x", "y", 1)] * 6 + [("x", "y", 0)] * 4 + [("x", "y", 0.5)] * 2
    found = removals(table(rows, tie=[0.0] * 10 + [1.0] * 2), model)["verdicts"]
    assert found == Removal(3, 12, 1, None)


def test_who_never_lost_is_first_by_a_tie_with_an_average_one():
    """With the tie for all, x stays ahead of y until one of them has no verdict in its favour."""
    rows = [("x", "y", 1)] * 4
    assert removals(table(rows))["verdicts"] is None


def test_a_leaderboard_says_it(tmp_path):
    rows = [("x", "y", 1)] * 5 + [("x", "y", 0)] * 3
    pq.write_table(table(rows * 101), tmp_path / "t.parquet")
    found = rank(tmp_path / "t.parquet", {}, RankOptions())
    assert found["sensitivity"] == {
        "verdicts": {
            "removed": 203, "of": 808, "first": "y", "at_least": 76, "pair_ids": None
        },
        "instructions": None,
    }  # fmt: skip
    words = (
        "first place: without 203 of 808 verdicts (25.12%) y is first; no fewer than 76 verdicts"
    )
    assert words in format_rank(found)
    pq.write_table(table(rows[:5]), tmp_path / "t.parquet")
    alone = format_rank(rank(tmp_path / "t.parquet", {}, RankOptions()))
    assert "first place: no set of verdicts was found that decides it" in alone
    pq.write_table(table(rows, pair_id=pa.array([*"aaabbbcd"])), tmp_path / "t.parquet")
    assert "of 4 pairs" in format_rank(rank(tmp_path / "t.parquet", {}, RankOptions()))
    assert "sensitivity" not in rank(tmp_path / "t.parquet", {}, RankOptions(method="average"))


def test_the_set_is_named(tmp_path):
    """x leads 6 to 3: the four wins, or the two instructions, that decide, by their pair ids."""
    rows = [("x", "y", y) for y in (1, 1, 1, 0, 1, 1, 0, 1, 0)] + [("x", "x", 1.0)]
    ids = [0, 0, 0, 0, 1, 1, 2, 3, 3, 4]
    names = pa.array([*"abcdefghi", "own"])
    pq.write_table(table(rows, instruction=ids, pair_id=names), tmp_path / "t.parquet")
    found = rank(tmp_path / "t.parquet", {}, RankOptions())["sensitivity"]
    assert set(found["verdicts"]["pair_ids"]) < set("abcefh")  # wins of x
    assert len(found["verdicts"]["pair_ids"]) == 4
    # x wins 2 of 3 points: the second instruction is 2/3 above that, the first 3 - 4 * 2/3 = 1/3.
    assert found["instructions"]["pair_ids"] == [*"efabcd"]
    pq.write_table(table(rows, instruction=ids), tmp_path / "t.parquet")
    found = rank(tmp_path / "t.parquet", {}, RankOptions())["sensitivity"]
    assert found["verdicts"]["pair_ids"] is None


def test_of_a_large_set_a_thousand_are_named(tmp_path):
    """3,001 of 4,001 for x: 2,002 have to go."""
    rows = [("x", "y", 1)] * 3001 + [("x", "y", 0)] * 1000
    names = pa.array([f"p{i}" for i in range(4001)])
    pq.write_table(table(rows, pair_id=names), tmp_path / "t.parquet")
    found = rank(tmp_path / "t.parquet", {}, RankOptions())["sensitivity"]["verdicts"]
    assert found["removed"] == 2002
    assert found["pair_ids"] == [f"p{i}" for i in range(1000)]


def test_of_two_who_share_the_first_place_any_verdict_decides():
    """40 preferences from 0.01 to 0.99 mirror each other: 20 points to 20."""
    rows = [("x", "y", p) for p in np.linspace(0.01, 0.99, 40)]
    assert removals(table(rows))["verdicts"] == Removal(1, 40, 1, 1)


def test_without_a_chain_of_comparisons_no_competitor_is_first(tmp_path):
    rows = [("a", "b", 1), ("a", "b", 0), ("a", "b", 1), ("c", "d", 1), ("c", "d", 0)]
    pq.write_table(table(rows), tmp_path / "t.parquet")
    found = rank(tmp_path / "t.parquet", {}, RankOptions())
    assert "sensitivity" not in found
    assert "first place" not in format_rank(found)


def test_the_largest_values_are_those_of_a_full_sort():
    """Of 300,000 values some thousand reach the target: a sample of every second says which."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=300_001)
    order = np.argsort(-values, kind="stable")
    total = np.cumsum(values[order])
    for target in (0.0, 1.0, 5000.0, 100_000.0):
        count = int(np.searchsorted(total, target)) + 1
        assert np.array_equal(_largest(values, target), order[:count])
    assert np.array_equal(_largest(values, 1e9), order[: np.count_nonzero(values > 0)])
    spike = np.zeros(300_000)
    spike[[1, 3, 5]] = 2.0, 4.0, 3.0  # none of them in the sample
    assert _largest(spike, 7.0).tolist() == [3, 5]
    assert not len(_largest(-values[values > 0], 1.0))
