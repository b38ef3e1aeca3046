"""How few verdicts the highest win rate hangs on: exact, as means need only sorting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steelyard.core.schemas import Float64

CLOSE = 1e-12  # win rates that differ by less are equal


def fewest_verdicts(preferences: Sequence[Float64]) -> tuple[int, int] | None:
    """Find the fewest verdicts without which another mean is highest.

    Whatever number is taken from the highest, its largest values lower the mean most; from a
    challenger, its smallest raise it most. So two sorted columns hold all sets that matter.

    Args:
        preferences: one array per competitor, of at least one value each.

    Returns:
        How many, and the competitor who is highest without them, who keeps at least one verdict, as
        does the other. None if no set can do it.
    """
    means = np.array([values.mean() for values in preferences])
    top = int(means.argmax())
    falling = _means_without(np.sort(preferences[top])[::-1])
    best: tuple[int, int] | None = None
    for challenger, values in enumerate(preferences):
        if challenger == top:
            continue
        rising = _means_without(np.sort(values))
        more = np.searchsorted(rising, falling + CLOSE, side="right")
        total = np.where(more < len(rising), np.arange(len(falling)) + more, np.iinfo(np.int64).max)
        fewest = int(total.argmin())
        if more[fewest] < len(rising) and (best is None or total[fewest] < best[0]):
            best = int(total[fewest]), challenger
    return best


def _means_without(values: Float64) -> Float64:
    """Return the means of all values, of all but the first, ... of the last alone."""
    sums = np.cumsum(values[::-1])[::-1]
    return np.asarray(sums / np.arange(len(values), 0, -1))
