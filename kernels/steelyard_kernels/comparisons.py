"""Columns of comparisons as kernels take them.

Of two competitors with numbers i < j, pair i * K + j, a row holds the preference for i.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steelyard_kernels.jit import column, kernel

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]


class Rows(NamedTuple):
    """One comparison per row; made by `rows_of`."""

    pair: Int32  # [n] i * K + j with i < j
    preference: Float64  # [n] P(i is better) + half of P(tie), in [0, 1]
    tie: Float64  # [n] P(tie), or [0]: no row is a tie
    weight: Float64  # [n] not negative, or [0]: each row counts once


def rows_of(
    pair: NDArray[Any],
    preference: ArrayLike,
    tie: ArrayLike = (),
    weight: ArrayLike = (),
) -> Rows:
    """Make `Rows` of these columns."""
    numbers = (column(np.asarray(x, np.float64), np.float64) for x in (preference, tie, weight))
    return Rows(column(pair, np.int32), *numbers)


class Pairs(NamedTuple):
    """The data of a likelihood: sums over the rows of each pair that met."""

    first: Int32  # [pairs] i
    second: Int32  # [pairs] j
    sums: Float64  # [pairs, 3] n: weight, s: weight * preference, t: weight * P(tie)


def pair_sums(rows: Rows, competitors: int) -> Float64:
    """Sum up the rows of each pair.

    Args:
        rows: the comparisons.
        competitors: K.

    Returns:
        float64 [K * K, 3]: n, s and t of pair i * K + j; zeros without rows.
    """
    sums = np.zeros((competitors * competitors, 3))
    _sum(rows, sums)
    return sums


def pairs_of(sums: Float64, competitors: int) -> Pairs:
    """Return the pairs that met, from the sums of all pairs (`pair_sums`)."""
    present = np.flatnonzero(sums[:, 0])
    return Pairs(
        column(present // competitors, np.int32),
        column(present % competitors, np.int32),
        column(sums[present], np.float64),
    )


@kernel
def _sum(rows: Rows, sums: Float64) -> None:
    for row in range(len(rows.pair)):
        w = rows.weight[row] if len(rows.weight) else 1.0
        pair = rows.pair[row]
        sums[pair, 0] += w
        sums[pair, 1] += w * rows.preference[row]
        if len(rows.tie):
            sums[pair, 2] += w * rows.tie[row]
