"""`steelyard compare RUN --competitors X Y`: which of two is better, by paired tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.comparisons.read import read_comparisons
from steelyard.core.schemas import Float64, Int64
from steelyard.errors import UsageError
from steelyard.input.roles import MODELS
from steelyard.ranking.report import source
from steelyard.ranking.tournament import Tournament, position_of, tournament
from steelyard.statistics.clusters import cluster_warning
from steelyard.statistics.means import SHARE
from steelyard.statistics.paired import paired_test


def compare_competitors(
    path: Path, columns: Mapping[str, str], first: str, second: str
) -> dict[str, Any]:
    """Test whether the first of two competitors is better, in two independent ways.

    Returns:
        JSON: `head_to_head`, the mean preference for the first where both met, tested against one
        half; `shared_opponents`, the mean over instructions and opponents that both met of the
        first's preference less the second's, tested against 0. None where there is nothing.

    Raises:
        UsageError: a competitor is not there, or both are the same.
    """
    read = read_comparisons(path, columns, (*MODELS, "preference"), ("instruction", "weight"))
    contest = tournament(read.table)
    x, y = (position_of(contest, name, "--competitors") for name in (first, second))
    if first == second:
        raise UsageError(
            "both competitors are the same", place="--competitors", remedy="name two competitors"
        )
    rows = contest.rows.pair == min(x, y) * contest.size + max(x, y)
    head = None
    if rows.any():
        values = contest.rows.preference[rows]
        weight = contest.rows.weight[rows] if len(contest.rows.weight) else None
        values = values if x < y else 1 - values
        test = paired_test(values, contest.cluster[rows], weight, null=0.5, bounds=SHARE)
        head = {**test.to_json(), "preference": test.value}
        head.pop("difference")
    shared = _shared(contest, x, y)
    groups = max((part["clusters"] for part in (head, shared) if part), default=0)
    warning = cluster_warning(groups) if groups else "both never met, nor the same opponent"
    return {
        **source(path, read),
        "first": first,
        "second": second,
        "head_to_head": head,
        "shared_opponents": shared,
        "warnings": [warning] if warning else [],
    }


def _shared(contest: Tournament, x: int, y: int) -> dict[str, Any] | None:
    """Return the test over (instruction, opponent) that both competitors met."""
    own = _by_opponent(contest, x, y), _by_opponent(contest, y, x)
    both, mine, theirs = np.intersect1d(own[0][0], own[1][0], return_indices=True)
    if not len(both):
        return None
    difference = own[0][1][mine] - own[1][1][theirs]
    return paired_test(difference, both // contest.size).to_json()


def _by_opponent(contest: Tournament, competitor: int, other: int) -> tuple[Int64, Float64]:
    """Return each instruction and opponent but `other` as a number, and the mean preference."""
    first, second = contest.rows.pair // contest.size, contest.rows.pair % contest.size
    foe = np.where(first == competitor, second, first)
    mine = ((first == competitor) | (second == competitor)) & (foe != other)
    preference = np.where(first == competitor, contest.rows.preference, 1 - contest.rows.preference)
    keys = contest.cluster[mine].astype(np.int64) * contest.size + foe[mine]
    cells, index, count = np.unique(keys, return_inverse=True, return_counts=True)
    return cells, np.bincount(index, preference[mine], len(cells)) / np.maximum(count, 1)
