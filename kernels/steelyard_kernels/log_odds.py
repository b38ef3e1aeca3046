"""Strengths of the responses to each prompt, by least squares on the log-odds of comparisons.

The smallest sum of (strength[first] - strength[second] - log_odds)^2 over a prompt's comparisons
(HodgeRank: Jiang, Lim, Yao and Ye, "Statistical ranking and combinatorial Hodge theory", 2011). It
is exact where comparisons agree with each other, as those with one common opponent do, and any
two strengths can be compared where a chain of comparisons joins them. With a penalty, `ridge` times
the sum of squared strengths is added: the posterior mean of normal strengths.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.jit import column, kernel

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_CLOSE = 1e-13  # of the residual, against that of strengths that are all 0


class Comparisons(NamedTuple):
    """m comparisons."""

    first: Int64
    second: Int64
    log_odds: Float64


def strengths(
    first: Int64,
    second: Int64,
    log_odds: Float64,
    ends: Int64,
    responses: int,
    *,
    ridge: float = 0.0,
) -> tuple[Float64, Int64]:
    """Fit the strengths of responses, prompt by prompt.

    Args:
        first: int64 [m], from 0 to `responses` - 1.
        second: int64 [m], another response to the same prompt.
        log_odds: float64 [m], finite: that `first` is better.
        ends: int64 [prompts + 1]; the comparisons of prompt p are ends[p]:ends[p + 1].
        responses: how many, over all prompts; each has at least one comparison.
        ridge: penalty on squared strengths, at least 0.

    Returns:
        strength: float64 [responses]; the mean over each component is 0.
        component: int64 [responses], the lowest response that comparisons connect each to.
    """
    strength = np.zeros(responses)
    component = np.arange(responses)
    rows = Comparisons(
        column(first, np.int64), column(second, np.int64), column(log_odds, np.float64)
    )
    _solve_all(rows, column(ends, np.int64), strength, component, float(ridge))
    return strength, component


def contrast_variances(
    first: Int64, second: Int64, ends: Int64, pairs: tuple[Int64, Int64], ridge: float
) -> Float64:
    """Return the variance of a difference of strengths in each prompt, over that of a comparison.

    That is, of the posterior of strengths whose own variance is that of a comparison / ridge.

    Args:
        first: int64 [m], as for `strengths`, like `second` and `ends`.
        second: int64 [m].
        ends: int64 [prompts + 1].
        pairs: two responses of each prompt, int64 [prompts] both.
        ridge: penalty on squared strengths, above 0.
    """
    variance = np.empty(len(ends) - 1)
    rows = Comparisons(column(first, np.int64), column(second, np.int64), np.empty(0))
    better, worse = (column(side, np.int64) for side in pairs)
    _vary_all(rows, column(ends, np.int64), (better, worse), float(ridge), variance)
    return variance


@kernel
def _solve_all(
    rows: Comparisons, ends: Int64, strength: Float64, component: Int64, ridge: float
) -> None:
    first, second = rows.first, rows.second
    local = np.full(len(strength), -1, np.int64)  # index of a response within its prompt
    for prompt in range(len(ends) - 1):
        start, end = ends[prompt], ends[prompt + 1]
        a, b, known = _localise(first[start:end], second[start:end], local)
        pull = np.zeros(len(known))
        for row in range(end - start):
            pull[a[row]] += rows.log_odds[start + row]
            pull[b[row]] -= rows.log_odds[start + row]
        solution = _solve(a, b, pull, ridge)
        for row in range(len(known)):
            strength[known[row]] = solution[row]
        for row in range(start, end):
            _join(component, first[row], second[row])
    for response in range(len(component)):
        component[response] = _root(component, response)


@kernel
def _vary_all(
    rows: Comparisons, ends: Int64, pairs: tuple[Int64, Int64], ridge: float, variance: Float64
) -> None:
    first, second = rows.first, rows.second
    local = np.full(max(first.max(), second.max()) + 1, -1, np.int64)
    for prompt in range(len(ends) - 1):
        start, end = ends[prompt], ends[prompt + 1]
        a, b, known = _localise(first[start:end], second[start:end], local)
        up, down = local[pairs[0][prompt]], local[pairs[1][prompt]]
        pull = np.zeros(len(known))
        pull[up], pull[down] = 1.0, -1.0
        solution = _solve(a, b, pull, ridge)
        variance[prompt] = solution[up] - solution[down]


@kernel
def _localise(first: Int64, second: Int64, local: Int64) -> tuple[Int64, Int64, Int64]:
    """Return both sides with the responses of a prompt numbered from 0, as in `local`, and all."""
    known = np.empty(2 * len(first), np.int64)
    count = 0
    a, b = np.empty(len(first), np.int64), np.empty(len(first), np.int64)
    for row in range(len(first)):
        for response in (first[row], second[row]):
            if local[response] < 0:
                local[response] = count
                known[count] = response
                count += 1
        a[row], b[row] = local[first[row]], local[second[row]]
    return a, b, known[:count]


@kernel
def _solve(a: Int64, b: Int64, pull: Float64, ridge: float) -> Float64:
    """Run conjugate gradients on the normal equations: the graph's Laplacian and the penalty.

    From 0 on, every step keeps the mean of each component at 0, so that the singular directions
    never enter.
    """
    count = len(pull)
    solution, residual = np.zeros(count), pull.copy()
    direction = residual.copy()
    size = np.sum(residual * residual)
    enough = _CLOSE * _CLOSE * size
    for _ in range(4 * count):  # `count` would do, but for rounding
        if size <= enough:
            break
        image = ridge * direction
        for row in range(len(a)):
            flow = direction[a[row]] - direction[b[row]]
            image[a[row]] += flow
            image[b[row]] -= flow
        step = size / np.sum(direction * image)
        solution += step * direction
        residual -= step * image
        now = np.sum(residual * residual)
        direction = residual + now / size * direction
        size = now
    return solution


@kernel
def _join(parent: Int64, response: int, other: int) -> None:
    response, other = _root(parent, response), _root(parent, other)
    parent[max(response, other)] = min(response, other)


@kernel
def _root(parent: Int64, response: int) -> int:
    while parent[response] != response:
        parent[response] = parent[parent[response]]
        response = parent[response]
    return response
