"""Strengths from comparisons: rows collapse to sums per pair, then Newton's method on these.

The likelihoods (links.py) are linear in the outcomes, so that soft outcomes, weights and any
number of rows enter through three sums per pair (`comparisons.Pairs`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.comparisons import Pairs
from steelyard_kernels.jit import column, kernel
from steelyard_kernels.links import DAVIDSON, RAO_KUPPER, curvature, log_logistic, slopes

Float64 = NDArray[np.float64]

_ROUNDS = 100
_CLOSE = 1e-11  # of the last step: in log-strength, and Newton's error is about its square
_LONGEST = 4.0  # step of a round, in log-strength
_NEAR_ROUNDS = 40  # of steps with one inverse, each half as long as the last or shorter
_SHORT = 0.25  # below it curvature changes little, and a full step never fails to rise


class Fit(NamedTuple):
    """The maximum of the likelihood."""

    estimate: Float64  # [K + 1] log-strengths, then the parameter for ties
    information: Float64  # [K + 1, K + 1] negative second derivatives there
    converged: bool  # False: 100 rounds of Newton's method were not enough


class Likelihood(NamedTuple):
    """What is maximised."""

    model: int  # links.BRADLEY_TERRY, DAVIDSON or RAO_KUPPER
    pairs: Pairs
    prior: Float64  # [K] weight of a tie with an imaginary competitor of strength 0


def solve(model: int, pairs: Pairs, prior: Float64, start: Float64) -> Fit:
    """Find the strengths of greatest likelihood.

    Args:
        model: links.BRADLEY_TERRY, DAVIDSON or RAO_KUPPER.
        pairs: sums of the pairs that met.
        prior: float64 [K], weight of a tie with an imaginary competitor of strength 0, so that
            no strength is infinite. All zero: no prior, and the strengths sum to 0.
        start: float64 [K + 1], where to begin: log-strengths, then the parameter for ties (above
            0 for Rao and Kupper; any number for a model without).
    """
    estimate = np.array(start, dtype=np.float64)
    information = np.zeros((len(estimate), len(estimate)))
    problem = Likelihood(model, pairs, column(prior, np.float64))
    return Fit(estimate, information, bool(newton(problem, estimate, information)))


def solve_near(model: int, pairs: Pairs, prior: Float64, start: Float64, inverse: Float64) -> Fit:
    """Find the same as `solve`, near the maximum for nearly the same data.

    The inverse that is known there is nearly the one here, so that steps with it are nearly
    Newton's, without the elimination that costs most with many competitors. Where they do not
    shrink to a half each time, or the last is not short enough, `solve` finds the maximum.

    Args:
        model: links.BRADLEY_TERRY, DAVIDSON or RAO_KUPPER.
        pairs: sums of the pairs that met.
        prior: float64 [K], as for `solve`.
        start: float64 [K + 1], the maximum for the other data.
        inverse: float64 [K + 1, K + 1], of the information for the other data, made regular;
            zeros for a parameter that the model lacks.
    """
    estimate = np.array(start, dtype=np.float64)
    information = np.zeros_like(inverse)
    problem = Likelihood(model, pairs, column(prior, np.float64))
    if descend(problem, column(inverse, np.float64), estimate, information):
        return Fit(estimate, information, converged=True)
    return solve(model, pairs, prior, start)


@kernel
def descend(problem: Likelihood, inverse: Float64, estimate: Float64, information: Float64) -> bool:
    """Take steps from `estimate` with one inverse, in place; return whether they converged."""
    gradient, step, last = np.empty(len(estimate)), np.empty(len(estimate)), _LONGEST
    for _ in range(_NEAR_ROUNDS):
        _rise(problem, estimate, gradient)
        for i in range(len(step)):
            step[i] = (inverse[i] * gradient).sum()
        largest = np.abs(step).max()
        if largest < _CLOSE:
            _derive(problem, estimate, gradient, information)
            return True
        if not largest < last / 2:
            return False
        estimate += step
        last = largest
    return False


@kernel
def _rise(problem: Likelihood, point: Float64, gradient: Float64) -> None:
    """Fill in the gradient at a point."""
    pairs, prior, last = problem.pairs, problem.prior, len(point) - 1
    gradient[:] = 0
    for p in range(len(pairs.first)):
        i, j = pairs.first[p], pairs.second[p]
        n, s, t = pairs.sums[p, 0], pairs.sums[p, 1], pairs.sums[p, 2]
        dn, ds, dt, en, es, et = slopes(problem.model, point[i] - point[j], point[last])
        by_d = dn * n + ds * s + dt * t
        gradient[i] += by_d
        gradient[j] -= by_d
        gradient[last] += en * n + es * s + et * t
    for i in range(last):
        gradient[i] += prior[i] * (0.5 - 1 / (1 + np.exp(-point[i])))


@kernel
def newton(problem: Likelihood, estimate: Float64, information: Float64) -> bool:
    """Climb from `estimate` by Newton's method, in place; return whether it converged."""
    size = len(estimate)
    free = size if problem.model in (DAVIDSON, RAO_KUPPER) else size - 1
    work, step = np.empty((size, size)), np.empty(size)
    value = _derive(problem, estimate, step, information)
    for _ in range(_ROUNDS):
        work[:] = information
        _pin(work, problem.prior)
        cholesky_solve(work, step, free)
        if np.abs(step[:free]).max() < _CLOSE:
            return True
        climb(problem, value, step[:free], estimate)
        value = _derive(problem, estimate, step, information)
    return False


@kernel
def climb(problem: Likelihood, value: float, step: Float64, estimate: Float64) -> None:
    """Move `estimate`, where the likelihood is `value`, by a step or as far as it does not fall."""
    largest, last, free = np.abs(step).max(), len(estimate) - 1, len(step)
    scale = min(1.0, _LONGEST / largest)
    if problem.model == RAO_KUPPER and step[last] < 0:  # its parameter stays above 0
        scale = min(scale, 0.9 * estimate[last] / -step[last])
    trial = estimate.copy()
    trial[:free] += scale * step
    while scale * largest >= _SHORT and _value(problem, trial) < value - 1e-12 * abs(value):
        scale /= 2
        trial[:free] = estimate[:free] + scale * step
    estimate[:] = trial


@kernel
def _value(problem: Likelihood, point: Float64) -> float:
    pairs, prior = problem.pairs, problem.prior
    value, e = 0.0, point[len(point) - 1]
    for p in range(len(pairs.first)):
        sums = pairs.sums[p, 0], pairs.sums[p, 1], pairs.sums[p, 2]
        d = point[pairs.first[p]] - point[pairs.second[p]]
        value += curvature(problem.model, d, e, sums)[0]
    for i in range(len(prior)):
        if prior[i] > 0:
            value += prior[i] * (log_logistic(point[i]) + log_logistic(-point[i])) / 2
    return value


@kernel
def _derive(problem: Likelihood, point: Float64, gradient: Float64, information: Float64) -> float:
    """Return the value at a point, and fill in gradient and information."""
    pairs, prior = problem.pairs, problem.prior
    value, last = 0.0, len(point) - 1
    e = point[last]
    gradient[:] = 0
    information[:] = 0
    for p in range(len(pairs.first)):
        i, j = pairs.first[p], pairs.second[p]
        n, s, t = pairs.sums[p, 0], pairs.sums[p, 1], pairs.sums[p, 2]
        more, dd, de, ee = curvature(problem.model, point[i] - point[j], e, (n, s, t))
        dn, ds, dt, en, es, et = slopes(problem.model, point[i] - point[j], e)
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
        won = 1 / (1 + np.exp(-point[i]))
        gradient[i] += prior[i] * (0.5 - won)
        information[i, i] += prior[i] * won * (1 - won)
        value += prior[i] * (log_logistic(point[i]) + log_logistic(-point[i])) / 2
    for i in range(len(point)):
        for j in range(i):
            both = information[i, j] + information[j, i]
            information[i, j] = information[j, i] = both
    return value


@kernel
def _pin(information: Float64, prior: Float64) -> None:
    """Fix the sum of strengths if there is no prior: adding a number to all changes nothing."""
    if prior.sum() == 0:
        size = len(prior)
        level = 0.0
        for i in range(size):
            level += information[i, i] / size
        for i in range(size):
            for j in range(size):
                information[i, j] += level / size


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
