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
    """m of them."""

    first: Int64
    second: Int64
    log_odds: Float64


def strengths(
    first: Int64, second: Int64, log_odds: Float64, ends: Int64, responses: int
) -> tuple[Float64, Int64]:
    """Strengths of responses, prompt by prompt.

    Args:
        first: int64 [m], from 0 to `responses` - 1.
        second: int64 [m], another response to the same prompt.
        log_odds: float64 [m], finite: that `first` is better.
        ends: int64 [prompts + 1]; the comparisons of prompt p are ends[p]:ends[p + 1].
        responses: how many, over all prompts; each has one comparison at least.

    Returns:
        strength: float64 [responses]; the mean over each component is 0.
        component: int64 [responses], the lowest response that comparisons join each one to.
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
    place = np.full(len(strength), -1, np.int64)  # of a response among those of its prompt
    for prompt in range(len(ends) - 1):
        start, end = ends[prompt], ends[prompt + 1]
        known = np.empty(2 * (end - start), np.int64)
        count = 0
        for at in range(start, end):
            for one in (first[at], second[at]):
                if place[one] < 0:
                    place[one] = count
                    known[count] = one
                    count += 1
        a, b = np.empty(end - start, np.int64), np.empty(end - start, np.int64)
        for at in range(start, end):
            a[at - start], b[at - start] = place[first[at]], place[second[at]]
        found = _solve(a, b, rows.log_odds[start:end], count)
        for at in range(count):
            strength[known[at]] = found[at]
        for at in range(start, end):
            _join(component, first[at], second[at])
    for one in range(len(component)):
        component[one] = _root(component, one)


@kernel
def _solve(a: Int64, b: Int64, log_odds: Float64, count: int) -> Float64:
    """Conjugate gradients on the normal equations, whose matrix is the graph's Laplacian.

    From 0 on, every step keeps the mean of each component at 0, so that the singular directions
    never enter.
    """
    found, residual = np.zeros(count), np.zeros(count)
    for at in range(len(a)):
        residual[a[at]] += log_odds[at]
        residual[b[at]] -= log_odds[at]
    direction = residual.copy()
    size = np.sum(residual * residual)
    enough = _CLOSE * _CLOSE * size
    for _ in range(4 * count):  # `count` would do, but for rounding
        if size <= enough:
            break
        image = np.zeros(count)
        for at in range(len(a)):
            flow = direction[a[at]] - direction[b[at]]
            image[a[at]] += flow
            image[b[at]] -= flow
        step = size / np.sum(direction * image)
        found += step * direction
        residual -= step * image
        now = np.sum(residual * residual)
        direction = residual + now / size * direction
        size = now
    return found


@kernel
def _join(parent: Int64, one: int, other: int) -> None:
    one, other = _root(parent, one), _root(parent, other)
    parent[max(one, other)] = min(one, other)


@kernel
def _root(parent: Int64, one: int) -> int:
    while parent[one] != one:
        parent[one] = parent[parent[one]]
        one = parent[one]
    return one
