"""Competitors whose scores cannot be compared with the others', named."""

from __future__ import annotations

import numpy as np

from steelyard.errors import escape
from steelyard.ratings.tournament import Tournament
from steelyard.records import Int64
from steelyard_kernels.comparisons import pairs_of
from steelyard_kernels.connected import components

SHOWN = 8  # competitors that a message names


def loose_ends(contest: Tournament) -> str:
    """Those outside the largest group within which all beat each other, maybe through others.

    Returns:
        Their names, each with a reason; empty where all strengths are finite.
    """
    outside = _outside(components(pairs_of(contest.sums(), contest.size), contest.size))
    points, _ = contest.points()
    won, lost = points.sum(axis=1), points.sum(axis=0)
    return _listed(
        [
            f"{escape(contest.competitors[at])} "
            f"({'never lost' if lost[at] == 0 else 'never won' if won[at] == 0 else 'one-sided'})"
            for at in outside.tolist()
        ]
    )


def islands(contest: Tournament) -> str:
    """Those that no chain of comparisons joins to the largest group; empty where there are none."""
    pairs = pairs_of(contest.sums(), contest.size)
    even = pairs.sums.copy()
    even[:, 1] = even[:, 0] / 2  # as if each had beaten the other: who met is in one group
    outside = _outside(components(pairs._replace(sums=even), contest.size))
    return _listed([escape(contest.competitors[at]) for at in outside.tolist()])


def _outside(groups: Int64) -> Int64:
    labels, counts = np.unique(groups, return_counts=True)
    return np.flatnonzero(groups != labels[counts.argmax()])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if names[SHOWN:] else ""
    return ", ".join(names[:SHOWN]) + more
