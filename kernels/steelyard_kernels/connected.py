"""Whether comparisons are enough for finite strengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.comparisons import Pairs
from steelyard_kernels.jit import kernel

Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]

_NOTHING = 1e-9  # share of a pair's score that counts as 0: outcomes of a confident judge


def components(pairs: Pairs, competitors: int) -> Int64:
    """Group competitors: inside a group everyone has beaten everyone, maybe through others.

    Strengths are finite if and only if there is one group (Ford, "Solution of a ranking problem
    from binary comparisons", 1957): between two groups, one never lost a point to the other.

    Args:
        pairs: sums of those that met.
        competitors: K.

    Returns:
        int64 [K], the lowest competitor in each competitor's group.
    """
    beats = _beats(pairs, competitors)
    group = np.full(competitors, -1, np.int64)
    for competitor in range(competitors):
        if group[competitor] < 0:
            both = _reach(beats, competitor) & _reach(beats.T.copy(), competitor)
            group[both] = competitor
    return group


@kernel
def is_connected(pairs: Pairs, competitors: int) -> bool:
    """Return whether there is only one group."""
    beats = _beats(pairs, competitors)
    return bool(_reach(beats, 0).all() and _reach(beats.T.copy(), 0).all())


@kernel
def _beats(pairs: Pairs, competitors: int) -> Bool:
    """Return [K, K]: whether the first has a point against the second."""
    out = np.zeros((competitors, competitors), np.bool_)
    for p in range(len(pairs.first)):
        n, s = pairs.sums[p, 0], pairs.sums[p, 1]
        out[pairs.first[p], pairs.second[p]] = s > _NOTHING * n
        out[pairs.second[p], pairs.first[p]] = n - s > _NOTHING * n
    return out


@kernel
def _reach(beats: Bool, start: int) -> Bool:
    """Return [K]: who is beaten by `start`, or by someone who is."""
    seen = np.zeros(len(beats), np.bool_)
    waiting = np.empty(len(beats), np.int64)
    seen[start], waiting[0], count = True, start, 1
    while count:
        count -= 1
        winner = waiting[count]
        for loser in range(len(beats)):
            if beats[winner, loser] and not seen[loser]:
                seen[loser] = True
                waiting[count] = loser
                count += 1
    return seen
