"""`steelyard compare RUN --competitors X Y`: which of two is better, by paired tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from steelyard.comparisons.read import read_comparisons
from steelyard.core.arrow import to_floats
from steelyard.core.schemas import Float64, Int64
from steelyard.errors import UsageError, escape
from steelyard.input.roles import MODELS
from steelyard.ranking.report import source
from steelyard.ranking.tournament import clusters_of, similar_names
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
    table = read.table
    sides = [np.asarray(table[name].cast(pa.string()).to_pylist(), object) for name in MODELS]
    known = sorted(set(sides[0]) | set(sides[1]))
    for name in (first, second):
        if name not in known:
            raise UsageError(
                f"there is no competitor {escape(name)}",
                place="--competitors",
                remedy=f"choose one, such as {similar_names(name, known)}",
            )
    if first == second:
        raise UsageError(
            "both competitors are the same", place="--competitors", remedy="name two competitors"
        )
    preference, cluster = to_floats(table["preference"]), clusters_of(table).astype(np.int64)
    weight = to_floats(table["weight"]) if "weight" in table.column_names else None
    met = [(sides[0] == x) & (sides[1] == y) for x, y in ((first, second), (second, first))]
    rows = met[0] | met[1]
    head = None
    if rows.any():
        values = np.where(met[0], preference, 1 - preference)[rows]
        some = None if weight is None else weight[rows]
        test = paired_test(values, cluster[rows], some, null=0.5, bounds=SHARE)
        head = {**test.to_json(), "preference": test.value}
        head.pop("difference")
    shared = _shared(sides, preference, cluster, (first, second))
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


def _shared(
    sides: list[Any], preference: Float64, cluster: Int64, names: tuple[str, str]
) -> dict[str, Any] | None:
    """Return the test over (instruction, opponent) that both competitors met."""
    opponents, codes = np.unique(np.concatenate(sides), return_inverse=True)
    a, b = np.split(codes, 2)
    means = []
    for name, other in (names, names[::-1]):
        own, foe = (int(np.searchsorted(opponents, x)) for x in (name, other))
        against_b, against_a = (a == own) & (b != foe) & (b != own), (b == own) & (a != foe)
        against_a &= a != own
        keys = np.concatenate([
            cluster[against_b] * len(opponents) + b[against_b],
            cluster[against_a] * len(opponents) + a[against_a],
        ])  # fmt: skip
        values = np.concatenate([preference[against_b], 1 - preference[against_a]])
        cells, index, count = np.unique(keys, return_inverse=True, return_counts=True)
        means.append((cells, np.bincount(index, values, len(cells)) / np.maximum(count, 1)))
    both, mine, theirs = np.intersect1d(means[0][0], means[1][0], return_indices=True)
    if not len(both):
        return None
    difference = means[0][1][mine] - means[1][1][theirs]
    return paired_test(difference, both // len(opponents)).to_json()
