"""The part of `rank`'s report about how few verdicts decide who is first, and which they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from steelyard.core.schemas import Int64
from steelyard.ranking.bradley_terry import Estimate
from steelyard.ranking.connectivity import disconnected
from steelyard.ranking.sensitivity import NAMED, Removal, sensitivity
from steelyard.ranking.tournament import Tournament, between_two


def sensitivity_json(
    contest: Tournament, estimate: Estimate, table: pa.Table
) -> dict[str, Any] | None:
    """Return how few verdicts and instructions decide who is first; None where no set does.

    Args:
        contest: the comparisons.
        estimate: the ratings that they lead to.
        table: what they were read from; `pair_id` names verdicts, if it is there.

    Returns:
        Nothing where no comparisons join some competitors to the others: none of them is first.
    """
    if disconnected(contest):
        return None
    ids = _pair_ids(contest, table)
    return {
        units: removal
        and {
            "removed": removal.removed,
            "of": removal.of,
            "first": contest.competitors[removal.first],
            "at_least": removal.at_least,
            "pair_ids": ids and ids.take(pa.array(_rows(contest, units, removal))).to_pylist(),
        }
        for units, removal in sensitivity(contest, estimate).items()
    }


def _pair_ids(contest: Tournament, table: pa.Table) -> pa.ChunkedArray | None:
    """Return the ids of a contest's comparisons; None if the source has none."""
    if "pair_id" not in table.column_names:
        return None
    ids = table["pair_id"]
    return ids.filter(pa.array(between_two(table))) if contest.alone else ids


def _rows(contest: Tournament, units: str, removal: Removal) -> Int64:
    """Return the first NAMED rows of a set of comparisons or of whole clusters, in its order."""
    chosen = np.array(removal.units, np.int64)
    if units == "verdicts":
        return chosen
    order = np.full(contest.clusters, len(chosen))
    order[chosen] = np.arange(len(chosen))
    position = order[contest.cluster]
    rows = np.flatnonzero(position < len(chosen))
    return rows[np.argsort(position[rows], kind="stable")][:NAMED]
