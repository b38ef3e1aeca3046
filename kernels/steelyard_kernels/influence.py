"""How far each comparison moves an estimate, to first order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.comparisons import Rows
from steelyard_kernels.jit import column, kernel
from steelyard_kernels.threads import spread

Float64 = NDArray[np.float64]

_BLOCK = 1 << 18


def row_influences(rows: Rows, slopes: Float64, direction: Float64) -> Float64:
    """Return each row's gradient times a direction.

    With the direction H^-1 c, H the information, it is how much of c'(strengths) a row accounts
    for: without the row that would be smaller by this much (Hampel, JASA 69, 1974).

    Args:
        rows: the comparisons.
        slopes: float64 [K * K, 6], of `sandwich.pair_curves`.
        direction: float64 [K + 1].

    Returns:
        float64 [rows].
    """
    size, out = len(direction) - 1, np.empty(len(rows.pair))
    apart = direction[:size, None] - direction[None, :size]
    moved = apart.reshape(-1, 1) * slopes[:, :3] + direction[size] * slopes[:, 3:]
    by = column(moved, np.float64)
    spread(lambda start, end: _fill(rows, by, start, out[start:end]), len(out), _BLOCK)
    return out


@kernel
def _fill(rows: Rows, by: Float64, start: int, out: Float64) -> None:
    for i in range(len(out)):
        row = start + i
        pair = rows.pair[row]
        w = rows.weight[row] if len(rows.weight) else 1.0
        t = rows.tie[row] if len(rows.tie) else 0.0
        out[i] = w * (by[pair, 0] + by[pair, 1] * rows.preference[row] + by[pair, 2] * t)
