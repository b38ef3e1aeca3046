"""Folds of instructions, so that an instruction never helps to predict itself."""

from __future__ import annotations

import numpy as np

from steelyard.core.schemas import Int64

FOLDS = 5


def grouped_folds(groups: Int64, folds: int, seed: int) -> Int64:
    """Return the fold of each of n rows; rows of a group share a fold.

    Groups go to the emptiest fold, from the largest on, so that folds are near in size.
    """
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    draw = np.random.default_rng(seed).permutation(len(counts))
    order = draw[np.argsort(-counts[draw], kind="stable")]
    sizes = np.zeros(min(folds, len(counts)), dtype=np.int64)
    fold = np.zeros(len(counts), dtype=np.int64)
    for group in order.tolist():
        fold[group] = np.argmin(sizes)
        sizes[fold[group]] += counts[group]
    return fold[inverse]
