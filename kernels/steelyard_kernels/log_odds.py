"""Strengths of the responses to each prompt, by least squares on the log-odds of comparisons.

The smallest sum of (strength[first] - strength[second] - log_odds)^2 over a prompt's comparisons
(HodgeRank: Jiang, Lim, Yao and Ye, "Statistical ranking and combinatorial Hodge theory", 2011). It
is exact where comparisons agree with each other, as those with one common opponent do, and any
two strengths can be compared where a chain of comparisons joins them.
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
    first: Int64, second: Int64, log_odds: Float64, ends: Int64, responses: int
) -> tuple[Float64, Int64]:
    """Fit the strengths of responses, prompt by prompt.

    Args:
        first: int64 [m], from 0 to `responses` - 1.
        second: int64 [m], another response to the same prompt.
        log_odds: float64 [m], finite: that `first` is better.
        ends: int64 [prompts + 1]; the comparisons of prompt p are ends[p]:ends[p + 1].
        responses: how many, over all prompts; each has at least one comparison.

    Returns:
        strength: float64 [responses]; the mean over each component is 0.
        component: int64 [responses], the lowest response that comparisons connect each to.
    """
    strength = np.zeros(responses)
    component = np.arange(responses)
    rows = Comparisons(
        column(first, np.int64), column(second, np.int64), column(log_odds, np.float64)
    )
    _solve_all(rows, column(ends, np.int64), strength, component)
    return strength, component


@kernel
def _solve_all(rows: Comparisons, ends: Int64, strength: Float64, component: Int64) -> None:
    first, second = rows.first, rows.second
    local = np.full(len(strength), -1, np.int64)  # index of a response within its prompt
    for prompt in range(len(ends) - 1):
        start, end = ends[prompt], ends[prompt + 1]
        known = np.empty(2 * (end - start), np.int64)
        count = 0
        for row in range(start, end):
            for response in (first[row], second[row]):
                if local[response] < 0:
                    local[response] = count
                    known[count] = response
                    count += 1
        a, b = np.empty(end - start, np.int64), np.empty(end - start, np.int64)
        for row in range(start, end):
            a[row - start], b[row - start] = local[first[row]], local[second[row]]
        solution = _solve(a, b, rows.log_odds[start:end], count)
        for row in range(count):
            strength[known[row]] = solution[row]
        for row in range(start, end):
            _join(component, first[row], second[row])
    for response in range(len(component)):
        component[response] = _root(component, response)


@kernel
def _solve(a: Int64, b: Int64, log_odds: Float64, count: int) -> Float64:
    """Run conjugate gradients on the normal equations, whose matrix is the graph's Laplacian.

    From 0 on, every step keeps the mean of each component at 0, so that the singular directions
    never enter.
    """
    solution, residual = np.zeros(count), np.zeros(count)
    for row in range(len(a)):
        residual[a[row]] += log_odds[row]
        residual[b[row]] -= log_odds[row]
    direction = residual.copy()
    size = np.sum(residual * residual)
    enough = _CLOSE * _CLOSE * size
    for _ in range(4 * count):  # `count` would do, but for rounding
        if size <= enough:
            break
        image = np.zeros(count)
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
