"""Log-probabilities of label variants -> label log-probabilities and label mass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steelyard.records import Float64

# Probabilities come from a softmax in float32: their sum over all labels may pass 1 by rounding.
MASS_TOLERANCE = 1e-3


def merge_variants(logprobs: Float64, starts: Sequence[int]) -> tuple[Float64, Float64]:
    """Merge the surface forms of each label by log-sum-exp.

    Args:
        logprobs: n x variants, natural logarithms, label after label.
        starts: first column of each label.

    Returns:
        Label log-probabilities (n x labels) and label mass (n, in [0, 1]). Rows with a value that
        is not finite, or whose mass passes 1 by more than rounding, come back as NaN: they are no
        reads, and `is_read` tells them apart.
    """
    if not starts:  # the protocol reads no labels
        return np.zeros((len(logprobs), 0)), np.full(len(logprobs), np.nan)
    with np.errstate(invalid="ignore", over="ignore"):  # such rows are marked below
        merged = np.logaddexp.reduceat(logprobs, np.asarray(starts), axis=1)
        mass = np.exp(merged).sum(axis=1)
    bad = ~np.isfinite(logprobs).all(axis=1) | ~(mass <= 1.0 + MASS_TOLERANCE)
    merged[bad] = np.nan
    mass[bad] = np.nan
    return merged, np.minimum(mass, 1.0)


def is_read(label_mass: Float64) -> np.typing.NDArray[np.bool_]:
    """Which rows of `merge_variants` hold a read."""
    return np.isfinite(label_mass)
