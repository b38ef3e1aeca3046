"""How often the largest of many differences of random numbers is as large as each one observed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.jit import column, kernel
from steelyard_kernels.threads import spread

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_PARTS = 8  # of the draws, counted separately
_WIDE = 16  # draws that pass over the pairs together, in vector registers


class Differences(NamedTuple):
    """M differences between members of K, each with the size that was observed."""

    first: Int32  # [M]
    second: Int32  # [M]
    scale: Float64  # [M]
    statistic: Float64  # [M]


def count_exceedances(draws: Float64, differences: Differences) -> Int64:
    """Count, for each difference m, the draws whose largest one up to m reaches statistic[m].

    That of a draw x is abs(x[first] - x[second]) * scale.

    Args:
        draws: float64 [draws, K].
        differences: M of them, in the order in which they come into play.

    Returns:
        int64 [M].
    """
    first, second = (column(side, np.int32) for side in differences[:2])
    data = Differences(first, second, *(column(x, np.float64) for x in differences[2:]))
    block = max(1, -(-len(draws) // _PARTS))
    counts = np.zeros((_PARTS, len(data.first)), np.int32)

    def work(start: int, end: int) -> None:
        for low in range(start, end, _WIDE):
            part = column(draws[low : min(low + _WIDE, end)].T, np.float64)
            _count(part, data, np.zeros(part.shape[1]), counts[start // block])

    spread(work, len(draws), block)
    return np.asarray(counts.sum(axis=0, dtype=np.int64))


@kernel
def _count(draws: Float64, differences: Differences, largest: Float64, count: Int32) -> None:
    for pair in range(len(differences.first)):
        i, j = differences.first[pair], differences.second[pair]
        scale, least = differences.scale[pair], differences.statistic[pair]
        reached = 0
        for draw in range(len(largest)):
            largest[draw] = max(largest[draw], abs(draws[i, draw] - draws[j, draw]) * scale)
            reached += largest[draw] >= least
        count[pair] += reached
