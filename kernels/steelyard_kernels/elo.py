"""Elo ratings, updated by one comparison after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.comparisons import Rows
from steelyard_kernels.draws import below, stream
from steelyard_kernels.jit import kernel
from steelyard_kernels.threads import spread

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]


def elo(rows: Rows, competitors: int, *, k: float, shuffles: int, seed: int) -> Float64:
    """Return ratings after all comparisons, from 1000 each, 400 points being odds of 10 to 1.

    A comparison moves both by k * (outcome - expected), expected = 1 / (1 + 10**(-d / 400)) (Elo,
    "The Rating of Chessplayers", 1978, section 1.6). The last comparisons count most, so the order
    matters; a shuffle is another order.

    Args:
        rows: the comparisons; ties and weights are ignored.
        competitors: how many.
        k: the largest step, in points.
        shuffles: the number of random orders; 0: the order of the rows.
        seed: of the random orders.

    Returns:
        float64 [max(shuffles, 1), competitors].
    """
    ratings = np.full((max(shuffles, 1), competitors), 1000.0)
    if not shuffles:
        _play(rows, np.zeros(0, np.int32), k, ratings[0])
        return ratings

    def work(start: int, end: int) -> None:
        order = np.empty(len(rows.pair), np.int32)
        for i in range(start, end):
            _shuffle(order, np.uint64(stream(seed, i)))
            _play(rows, order, k, ratings[i])

    spread(work, shuffles, 1)
    return ratings


@kernel
def _play(rows: Rows, order: Int32, k: float, rating: Float64) -> None:
    for i in range(len(rows.pair)):
        row = order[i] if len(order) else i
        a, b = rows.pair[row] // len(rating), rows.pair[row] % len(rating)
        expected = 1 / (1 + 10 ** ((rating[b] - rating[a]) / 400))
        change = k * (rows.preference[row] - expected)
        rating[a] += change
        rating[b] -= change


@kernel
def _shuffle(order: Int32, seed: np.uint64) -> None:
    """Shuffle by Fisher and Yates, from the front."""
    for i in range(len(order)):
        other = below(np.uint64(i + 1), seed, np.uint64(i))
        order[i] = order[other]
        order[other] = i
