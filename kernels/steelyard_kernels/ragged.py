"""Ragged rows: slices of one flat array, joined."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from steelyard_kernels.jit import column, kernel

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


def join(tokens: Int32, starts: Int64, lengths: Int64) -> Int32:
    """Join the slices tokens[starts[i]:starts[i] + lengths[i]].

    Args:
        tokens: flat.
        starts: n, each slice within `tokens`.
        lengths: n, from 0.
    """
    out = np.empty(int(lengths.sum()), dtype=np.int32)
    _join(column(tokens, np.int32), column(starts, np.int64), column(lengths, np.int64), out)
    return out


@kernel
def _join(tokens: Int32, starts: Int64, lengths: Int64, out: Int32) -> None:
    filled = 0
    for i in range(len(starts)):
        start = starts[i]
        for j in range(lengths[i]):
            out[filled + j] = tokens[start + j]
        filled += lengths[i]
