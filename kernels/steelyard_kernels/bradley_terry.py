"""Strengths from comparisons: rows collapse to sums a pair, then Newton's method on these.

The likelihoods (links.py) are linear in the outcomes, so that soft outcomes, weights and any
number of rows enter through three sums a pair: n = sum of weights, s = sum of weight * preference
of the lower competitor, t = sum of weight * P(tie). Pair (i, j), i < j, has number i * K + j.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.jit import column, kernel
from steelyard_kernels.links import DAVIDSON, RAO_KUPPER, curvature, log_logistic, slopes

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_ROUNDS = 100
_CLOSE = 1e-11  # of the last step: in log-strength, and Newton's error is about its square
_HALVINGS = 40


def pair_sums(
    pair: Int32, preference: Float64, tie: Float64, weight: Float64, competitors: int
) -> Float64:
    """Rows to sums.

    Args:
        pair: int32 [rows], i * competitors + j with i < j.
        preference: float64 [rows], P(i is better) + half of P(tie), in [0, 1].
        tie: float64 [rows], P(tie); or [0] where ties are not told apart.
        weight: float64 [rows], not negative; or [0], each 1.
        competitors: K.

    Returns:
        float64 [K * K, 3]: n, s and t; zeros for pairs without a row.
    """
    sums = np.zeros((competitors * competitors, 3))
    _sum(
        column(pair, np.int32),
        *(column(x, np.float64) for x in (preference, tie, weight)),
        sums,
    )
    return sums


def solve(
    model: int, first: Int32, second: Int32, sums: Float64, prior: Float64, start: Float64
) -> tuple[Float64, Float64, bool]:
    """The strengths of greatest likelihood.

    Args:
        model: links.BRADLEY_TERRY, DAVIDSON or RAO_KUPPER.
        first: int32 [pairs], competitor i of each pair.
        second: int32 [pairs], competitor j.
        sums: float64 [pairs, 3], n, s, t.
        prior: float64 [K], weight of one tie with an imaginary competitor of strength 0 (so that
            none is infinite). All zero: none, and the strengths sum to 0.
        start: float64 [K + 1], where to begin: log-strengths, then the parameter for ties (above
            0 for Rao and Kupper; any number for a model without).

    Returns:
        found: float64 [K + 1], as `start`.
        information: float64 [K + 1, K + 1], the negative second derivatives there.
        converged: False when 100 rounds were not enough.
    """
    found = np.array(start, dtype=np.float64)
    information = np.zeros((len(found), len(found)))
    given = column(first, np.int32), column(second, np.int32), column(sums, np.float64)
    converged = newton(model, *given, column(prior, np.float64), found, information)
    return found, information, bool(converged)


@kernel
def _sum(pair: Int32, preference: Float64, tie: Float64, weight: Float64, sums: Float64) -> None:
    for row in range(len(pair)):
        w = weight[row] if len(weight) else 1.0
        at = pair[row]
        sums[at, 0] += w
        sums[at, 1] += w * preference[row]
        if len(tie):
            sums[at, 2] += w * tie[row]


@kernel
def newton(
    model: int, first: Int32, second: Int32, sums: Float64, prior: Float64, found: Float64,
    information: Float64,
) -> bool:  # fmt: skip
    size = len(found)
    free = size if model in (DAVIDSON, RAO_KUPPER) else size - 1
    work, step, trial = np.empty((size, size)), np.empty(size), np.empty(size)
    value = _derive(model, first, second, sums, prior, found, step, information)
    for _ in range(_ROUNDS):
        work[:] = information
        _pin(work, prior, free)
        cholesky_solve(work, step, free)
        if model == RAO_KUPPER:  # its parameter stays above 0
            longest = 0.9 * found[size - 1]
            scale = min(1.0, longest / max(-step[size - 1], longest))
            step *= scale
        largest = np.abs(step[:free]).max()
        if largest < _CLOSE:
            return True
        scale = min(1.0, 4 / largest)
        for _half in range(_HALVINGS):
            trial[:] = found
            trial[:free] += scale * step[:free]
            risen = _value(model, first, second, sums, prior, trial)
            if risen >= value - 1e-12 * abs(value):
                break
            scale /= 2
        found[:] = trial
        value = _derive(model, first, second, sums, prior, found, step, information)
    return False


@kernel
def _value(
    model: int, first: Int32, second: Int32, sums: Float64, prior: Float64, at: Float64
) -> float:
    value, e = 0.0, at[len(at) - 1]
    for p in range(len(first)):
        d = at[first[p]] - at[second[p]]
        value += curvature(model, d, e, sums[p, 0], sums[p, 1], sums[p, 2])[0]
    for i in range(len(prior)):
        if prior[i] > 0:
            value += prior[i] * (log_logistic(at[i]) + log_logistic(-at[i])) / 2
    return value


@kernel
def _derive(
    model: int, first: Int32, second: Int32, sums: Float64, prior: Float64, at: Float64,
    gradient: Float64, information: Float64,
) -> float:  # fmt: skip
    """Value, gradient and information at a place."""
    value, last = 0.0, len(at) - 1
    e = at[last]
    gradient[:] = 0
    information[:] = 0
    for p in range(len(first)):
        i, j, n, s, t = first[p], second[p], sums[p, 0], sums[p, 1], sums[p, 2]
        more, dd, de, ee = curvature(model, at[i] - at[j], e, n, s, t)
        dn, ds, dt, en, es, et = slopes(model, at[i] - at[j], e)
        value += more
        by_d = dn * n + ds * s + dt * t
        gradient[i] += by_d
        gradient[j] -= by_d
        gradient[last] += en * n + es * s + et * t
        information[i, i] += dd
        information[j, j] += dd
        information[i, j] -= dd
        information[i, last] += de
        information[j, last] -= de
        information[last, last] += ee
    for i in range(last):
        p_win = 1 / (1 + np.exp(-at[i]))
        gradient[i] += prior[i] * (0.5 - p_win)
        information[i, i] += prior[i] * p_win * (1 - p_win)
        value += prior[i] * (log_logistic(at[i]) + log_logistic(-at[i])) / 2
    for i in range(len(at)):
        for j in range(i):
            both = information[i, j] + information[j, i]
            information[i, j] = information[j, i] = both
    return value


@kernel
def _pin(information: Float64, prior: Float64, free: int) -> None:
    """Without a prior, adding a number to all strengths changes nothing: fix their sum."""
    if prior.sum() == 0:
        size = len(prior)
        level = 0.0
        for i in range(size):
            level += information[i, i] / size
        for i in range(size):
            for j in range(size):
                information[i, j] += level / size
    for i in range(free, len(information)):
        information[i, i] = 1.0


@kernel
def cholesky_solve(matrix: Float64, vector: Float64, size: int) -> None:
    """Solve matrix @ x = vector in place, for the leading `size` of both.

    Works on rows of the upper triangle, which the compiler turns into vector instructions.
    """
    for k in range(size):
        matrix[k, k:size] /= np.sqrt(matrix[k, k])
        for i in range(k + 1, size):
            factor = matrix[k, i]
            for j in range(i, size):
                matrix[i, j] -= factor * matrix[k, j]
    for k in range(size):
        vector[k] /= matrix[k, k]
        for j in range(k + 1, size):
            vector[j] -= matrix[k, j] * vector[k]
    for k in range(size - 1, -1, -1):
        for j in range(k + 1, size):
            vector[k] -= matrix[k, j] * vector[j]
        vector[k] /= matrix[k, k]
