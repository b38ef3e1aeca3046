"""Competitors whose scores cannot be compared with the others', by name."""

from __future__ import annotations

import numpy as np

from steelyard.core.schemas import Int64
from steelyard.errors import escape
from steelyard.ranking.tournament import Tournament
from steelyard_kernels.comparisons import pairs_of
from steelyard_kernels.connected import components
from steelyard_kernels.groups import groups_met

SHOWN = 8  # competitors that a message names
APART = "no chain of comparisons joins {} to the others: their ranks among them mean nothing"


def strongly_connected(contest: Tournament) -> Int64:
    """Return [K]: the group within which all beat each other, maybe through others.

    Between two groups one side never lost a point: the likelihood sets no bound to how much better
    it is, and no difference between them can be tested.
    """
    return components(pairs_of(contest.sums(), contest.size), contest.size)


def largest(groups: Int64) -> int:
    """Return the group with the most members; -1 if several are as large."""
    labels, counts = np.unique(groups, return_counts=True)
    first = labels[counts == counts.max()]
    return int(first[0]) if len(first) == 1 else -1


def cluster_counts(contest: Tournament, *, clustered: bool) -> Int64:
    """Return [K]: how many clusters, or rows, hold a comparison of each competitor."""
    i, j = contest.rows.pair // contest.size, contest.rows.pair % contest.size
    if clustered:
        return groups_met(contest.cluster, contest.clusters, i, j, contest.size)
    return np.bincount(i, minlength=contest.size) + np.bincount(j, minlength=contest.size)


def unbounded(contest: Tournament) -> str:
    """List those outside the largest of `strongly_connected`, among all that comparisons join.

    Returns:
        Their names, each with a reason; empty if there is only one group.
    """
    groups, joined = strongly_connected(contest), np.ones(contest.size, dtype=np.bool_)
    joined[_apart(contest)] = False
    outside = np.flatnonzero(joined & (groups != largest(groups[joined])))
    points, _ = contest.points()
    won, lost = points.sum(axis=1), points.sum(axis=0)
    reasons = np.where(lost == 0, "never lost", np.where(won == 0, "never won", "one-sided"))
    return _listed([f"{escape(contest.competitors[i])} ({reasons[i]})" for i in outside.tolist()])


def disconnected(contest: Tournament) -> str:
    """List those that no chain of comparisons joins to the largest group; empty if none."""
    return _listed([escape(contest.competitors[i]) for i in _apart(contest).tolist()])


def connectivity_warnings(contest: Tournament) -> list[str]:
    """Explain which competitors a ranking cannot compare."""
    if not np.ptp(strongly_connected(contest)):  # one group: the rest need not be summed
        return []
    lines = []
    if ends := unbounded(contest):
        lines.append(
            f"{ends}: won all or lost all against the others, so the likelihood is unbounded on"
            " that side; there is no interval and no significant difference to the others"
        )
    if apart := disconnected(contest):
        lines.append(APART.format(apart))
    return lines


def _apart(contest: Tournament) -> Int64:
    pairs = pairs_of(contest.sums(), contest.size)
    even = pairs.sums.copy()
    even[:, 1] = even[:, 0] / 2  # as if each had beaten the other: those who met share a group
    groups = components(pairs._replace(sums=even), contest.size)
    labels, counts = np.unique(groups, return_counts=True)
    return np.flatnonzero(groups != labels[counts.argmax()])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if names[SHOWN:] else ""
    return ", ".join(names[:SHOWN]) + more
