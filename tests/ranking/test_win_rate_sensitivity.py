"""The fewest verdicts that decide the highest win rate: against every subset, and as told."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow.parquet as pq
import pytest

from steelyard.cli.ranking_text import format_winrate
from steelyard.ranking.win_rate_sensitivity import fewest_verdicts
from steelyard.ranking.winrate import winrate
from support.rating_twins import comparisons as table


def by_subsets(columns):
    """Whose mean is highest after the removal of the fewest values, by trying all sets."""
    values = [(k, value) for k, column in enumerate(columns) for value in column]
    top = int(np.argmax([column.mean() for column in columns]))
    for size in range(1, len(values)):
        for gone in combinations(range(len(values)), size):
            left = [[] for _ in columns]
            for position, (k, value) in enumerate(values):
                if position not in gone:
                    left[k].append(value)
            means = [np.mean(column) if column else -1 for column in left]
            if left[top] and max(means) > means[top] + 1e-9:
                return size
    return None


@pytest.mark.parametrize("seed", range(15))
def test_against_every_subset(seed):
    rng = np.random.default_rng(seed)
    columns = [rng.choice([0.0, 0.2, 0.5, 0.9, 1.0], rng.integers(1, 6)) for _ in range(3)]
    found, wanted = fewest_verdicts(columns), by_subsets(columns)
    assert (found and found[0]) == wanted


def test_means_by_hand():
    """0.75 against 0.5: without a 1 of the first it is 2/3, without the 0 of the second as well."""
    columns = [np.array([1.0, 1, 1, 0]), np.array([1.0, 1, 0, 0])]
    assert fewest_verdicts(columns) == (2, 1)  # both zeros: 1 against 3/4
    assert fewest_verdicts([np.ones(3), np.ones(2)]) is None
    assert fewest_verdicts([np.ones(3)]) is None


def test_it_is_told(tmp_path):
    rows = [("x", "base", y) for y in (1, 1, 1, 0)] + [("base", "y", y) for y in (0, 0, 1, 1)]
    pq.write_table(table(rows), tmp_path / "t.parquet")
    found = winrate(tmp_path / "t.parquet", {}, "base")
    assert found["sensitivity"] == {
        "verdicts": {"removed": 2, "of": 8, "first": "y", "at_least": 2}
    }
    words = "highest win rate: without 2 of 8 verdicts (25.00%) it is that of y; no fewer can"
    assert words in format_winrate(found)
    pq.write_table(table(rows, weight=[1.0] * 7 + [2.0]), tmp_path / "t.parquet")
    assert winrate(tmp_path / "t.parquet", {}, "base")["sensitivity"] == {"verdicts": None}
