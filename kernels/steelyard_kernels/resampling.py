"""Bradley-Terry strengths (and its likes) of resampled clusters, refitted each time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.bootstrap import BLOCK, draw_counts
from steelyard_kernels.bradley_terry import newton
from steelyard_kernels.connected import is_connected
from steelyard_kernels.groups import group
from steelyard_kernels.jit import column, kernel
from steelyard_kernels.threads import spread

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]

_MEMORY = 1 << 27  # bytes of sums that a block of replicates holds at most


class Resampled(NamedTuple):
    """Replicates of an estimate."""

    strengths: Float64  # [replicates, K + 1]: log-strengths, then the parameter for ties
    regularised: Bool  # [replicates] a prior was needed, as some competitor never won or lost
    converged: Bool  # [replicates]


def resampled_strengths(
    model: int,
    pair: Int32,
    preference: Float64,
    tie: Float64,
    weight: Float64,
    cluster: Int32,
    clusters: int,
    start: Float64,
    replicates: int,
    seed: int,
) -> Resampled:
    """Strengths fitted to clusters drawn with replacement.

    Rows are sorted by pair once; then a replicate's sums of a pair stay in registers while its
    clusters' counts pass by, 64 replicates in one cache line.

    Args:
        model: see links.
        pair: int32 [rows], i * K + j with i < j.
        preference: float64 [rows], of i, in [0, 1].
        tie: float64 [rows], or [0].
        weight: float64 [rows], or [0].
        cluster: int32 [rows], from 0.
        clusters: how many.
        start: float64 [K + 1], the estimate from all rows, where each fit begins.
        replicates: how many.
        seed: any integer; a replicate's draws are those of `bootstrap.draw_counts`.
    """
    size = len(start) - 1
    order, ends = group(pair, size * size)
    present = np.flatnonzero(np.diff(ends))
    first, second = (present // size).astype(np.int32), (present % size).astype(np.int32)
    bounds = column(np.append(ends[present], ends[-1]), np.int64)
    w = weight[order] if len(weight) else np.ones(len(order))
    rows = (
        column(cluster[order], np.int32),
        column(w, np.float64),
        column(w * preference[order], np.float64),
        column(w * tie[order] if len(tie) else tie, np.float64),
    )
    result = Resampled(
        np.empty((replicates, size + 1)),
        np.zeros(replicates, np.bool_),
        np.zeros(replicates, np.bool_),
    )
    given = model, column(first, np.int32), column(second, np.int32), column(start, np.float64)

    def work(begin: int, end: int) -> None:
        counts = column(draw_counts(clusters, begin, end, seed), np.uint8)
        sums = np.zeros((end - begin, len(present), 3))
        _sum(*rows, bounds, counts, sums)
        _fit(*given, sums, *(part[begin:end] for part in result))

    spread(work, replicates, min(BLOCK, max(1, _MEMORY // (24 * max(1, len(present))))))
    return result


@kernel
def _sum(
    cluster: Int32, w: Float64, wy: Float64, wt: Float64, bounds: Int64, counts: UInt8,
    sums: Float64,
) -> None:  # fmt: skip
    replicates = counts.shape[1]
    total = np.empty((3, replicates))
    for pair in range(len(bounds) - 1):
        total[:] = 0
        for at in range(bounds[pair], bounds[pair + 1]):
            times, one, score = counts[cluster[at]], w[at], wy[at]
            for r in range(replicates):
                total[0, r] += times[r] * one
                total[1, r] += times[r] * score
            if len(wt):
                for r in range(replicates):
                    total[2, r] += times[r] * wt[at]
        for r in range(replicates):
            for kind in range(3):
                sums[r, pair, kind] = total[kind, r]


@kernel
def _fit(
    model: int, first: Int32, second: Int32, start: Float64, sums: Float64, strengths: Float64,
    regularised: Bool, converged: Bool,
) -> None:  # fmt: skip
    size = len(start)
    information = np.empty((size, size))
    for r in range(len(sums)):
        regularised[r] = not is_connected(first, second, sums[r], size - 1)
        prior = np.full(size - 1, 1.0 if regularised[r] else 0.0)
        strengths[r] = start
        converged[r] = newton(model, first, second, sums[r], prior, strengths[r], information)
