"""The cluster bootstrap: clusters are drawn with replacement, and their rows come with them.

Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8: what is
independent is resampled, which is an instruction, not the pairs of responses to it. A statistic
that is a function of sums over rows never revisits rows: a replicate's sums are those of the
clusters, each times how often it was drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.draws import below, stream
from steelyard_kernels.jit import column, kernel
from steelyard_kernels.threads import spread

Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]
UInt64 = NDArray[np.uint64]

BLOCK = 64  # replicates that are drawn together: a cluster's counts fill one cache line
_LIMIT = 2**32


def draw_counts(clusters: int, start: int, end: int, seed: int) -> UInt8:
    """Return how often each cluster is drawn in replicates `start` to `end` - 1.

    Args:
        clusters: how many there are, and how many are drawn; from 1 to 2**32 - 1.
        start: first replicate; a replicate's draws depend on its number and the seed alone.
        end: replicate after the last.
        seed: any integer.

    Returns:
        uint8 [clusters, end - start]; each column sums to `clusters`.

    Raises:
        ValueError: there are no clusters, or too many.
    """
    if not 0 < clusters < _LIMIT:
        raise ValueError(f"clusters to draw from: {clusters}")
    counts = np.zeros((clusters, end - start), np.uint8)
    seeds = np.array([stream(seed, replicate) for replicate in range(start, end)], np.uint64)
    _draw(seeds, counts)
    return counts


def resampled_sums(statistics: Float64, replicates: int, seed: int) -> Float64:
    """Sum statistics over resampled clusters.

    Args:
        statistics: float64 [clusters, n], the sums of each cluster; at least one cluster.
        replicates: how many.
        seed: any integer.

    Returns:
        float64 [replicates, n].

    Raises:
        ValueError: there are no clusters.
    """
    statistics = column(statistics, np.float64)
    out = np.zeros((replicates, statistics.shape[1]))

    def work(start: int, end: int) -> None:
        counts = draw_counts(len(statistics), start, end, seed)
        _accumulate(column(counts, np.uint8), statistics, out[start:end])

    spread(work, replicates, BLOCK)
    return out


@kernel
def _draw(seeds: UInt64, counts: UInt8) -> None:
    clusters = np.uint64(len(counts))
    for replicate in range(len(seeds)):
        for draw in range(len(counts)):
            counts[below(clusters, seeds[replicate], np.uint64(draw)), replicate] += 1


@kernel
def _accumulate(counts: UInt8, statistics: Float64, out: Float64) -> None:
    for cluster in range(len(counts)):
        for replicate in range(counts.shape[1]):
            times = counts[cluster, replicate]
            if times:
                for i in range(statistics.shape[1]):
                    out[replicate, i] += times * statistics[cluster, i]
