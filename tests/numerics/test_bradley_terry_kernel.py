"""Newton's method on the sums of pairs, step by step: small, and by hand where that is possible."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steelyard.ranking.bradley_terry import inverse_information
from steelyard_kernels import bradley_terry as kernel
from steelyard_kernels import links
from steelyard_kernels.bradley_terry import (
    Likelihood,
    _derive,
    _value,
    cholesky_solve,
    climb,
    descend,
    solve,
    solve_near,
)
from steelyard_kernels.comparisons import Pairs, pair_sums, pairs_of, rows_of
from support import rating_twins as twins

PLAIN, DAVIDSON, RAO_KUPPER = links.BRADLEY_TERRY, links.DAVIDSON, links.RAO_KUPPER
EVEN = (2.0, 1.0, 0.0)  # n, s and t of two comparisons, each won once


def pair(*sums):
    """Sums of one pair of two competitors."""
    return Pairs(np.array([0], np.int32), np.array([1], np.int32), np.array([sums], float))


def problem(model, pairs, prior=(0.0, 0.0)):
    return Likelihood(model, pairs, np.array(prior))


# -- sums ------------------------------------------------------------------------------------------


def test_sums_of_pairs_by_hand():
    rows = rows_of([1, 5, 1, 5], [1.0, 0.5, 0.25, 0.0], [0.0, 1.0, 0.5, 0.0], [1.0, 2.0, 4.0, 8.0])
    assert [column.dtype for column in rows] == [np.int32, *[np.float64] * 3]
    sums = pair_sums(rows, 3)
    assert sums.shape == (9, 3)
    assert sums[[1, 5]].tolist() == [[5.0, 2.0, 2.0], [10.0, 1.0, 2.0]]
    assert np.flatnonzero(sums.any(axis=1)).tolist() == [1, 5]
    pairs = pairs_of(sums, 3)
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0, 1], [1, 2])
    assert (pairs.first.dtype, pairs.second.dtype) == (np.int32, np.int32)
    assert pairs.sums.tolist() == [[5.0, 2.0, 2.0], [10.0, 1.0, 2.0]]


def test_rows_without_weights_and_ties_count_once():
    sums = pair_sums(rows_of([1, 1, 1], [1, 0, 1]), 2)
    assert sums.tolist() == [[0, 0, 0], [3, 2, 0], [0, 0, 0], [0, 0, 0]]


def test_a_pair_that_never_wins_has_met():
    pairs = pairs_of(pair_sums(rows_of([1], [0.0]), 2), 2)
    assert pairs.sums.tolist() == [[1, 0, 0]]


# -- the likelihood and its derivatives ------------------------------------------------------------

GAMES = [
    (0, 1, 0.7, 0.3, 1.0),
    (0, 2, 0.2, 0.1, 2.0),
    (1, 2, 0.6, 0.4, 0.5),
    (0, 1, 0.4, 0.2, 1.5),
]
POINT = np.array([0.3, -0.4, 0.25, 0.6])
PRIOR = np.array([0.5, 0.0, 2.0])


def plain_value(model, point):
    log_logistic = -np.log1p(np.exp(np.array([-point[:-1], point[:-1]])))
    return twins.value(model, GAMES, point) + (PRIOR * log_logistic.sum(axis=0)).sum() / 2


@pytest.mark.parametrize("model", [PLAIN, DAVIDSON, RAO_KUPPER])
def test_value_and_derivatives_are_those_of_the_definition(model):
    i, j, y, t, w = (np.array(column) for column in zip(*GAMES, strict=True))
    likelihood = Likelihood(model, pairs_of(pair_sums(rows_of(i * 3 + j, y, t, w), 3), 3), PRIOR)
    gradient, information = np.full(4, 7.0), np.full((4, 4), 7.0)
    value = _derive(likelihood, POINT, gradient, information)
    assert value == pytest.approx(plain_value(model, POINT), rel=1e-13)
    assert _value(likelihood, POINT) == pytest.approx(value, rel=1e-13)
    slope = twins.slope(lambda x: plain_value(model, x), POINT)
    assert np.allclose(gradient, slope, atol=1e-8)
    bend = twins.slope(lambda x: twins.slope(lambda z: plain_value(model, z), x, 1e-4), POINT, 1e-4)
    assert np.allclose(information, -bend, atol=1e-5)
    assert np.array_equal(information, information.T)


# -- a step ----------------------------------------------------------------------------------------


def climbed(likelihood, start, step):
    estimate = np.array(start, dtype=float)
    climb(likelihood, _value(likelihood, estimate), np.array(step, dtype=float), estimate)
    return estimate.tolist()


@pytest.mark.parametrize(
    ("start", "step", "end"),
    [
        ([10, -10, 0.5], [-100, 100], [6, -6, 0.5]),  # 4 at most
        ([2, -2, 0.5], [-1, 1], [1, -1, 0.5]),  # it rises all the way
        ([0.5, -0.5, 0.5], [-2, 2], [-0.5, 0.5, 0.5]),  # half of it: no higher, and no lower
        ([0.5, -0.5, 0.5], [-3, 3], [-0.25, 0.25, 0.5]),  # -2.5, -1 and -0.25
        ([0, 0, 0.5], [0.125, -0.125], [0.125, -0.125, 0.5]),  # a short one may fall
        ([0, 0, 0.5], [0.25, -0.25], [0.125, -0.125, 0.5]),  # half of it is short
        ([0, 0, 0.5], [0.4375, -0.4375], [0.21875, -0.21875, 0.5]),
    ],
)
def test_a_step_is_halved_until_the_likelihood_does_not_fall(start, step, end):
    """Two even competitors: the likelihood falls with their distance."""
    assert climbed(problem(PLAIN, pair(*EVEN)), start, step) == end


def test_a_step_of_the_largest_size_counts_all_competitors():
    pairs = Pairs(np.array([0], np.int32), np.array([1], np.int32), np.array([EVEN]))
    likelihood = Likelihood(PLAIN, pairs, np.zeros(3))
    assert climbed(likelihood, [0, 0, 0, 0], [0, 0, -8]) == [0, 0, -4, 0]


def test_the_parameter_for_ties_stays_above_0():
    """A thousand comparisons without a tie want it to be 0: nine tenths of the way are allowed."""
    rare = problem(RAO_KUPPER, pair(1000, 500, 1e-6))
    assert climbed(rare, [0, 0, 0.5], [0, 0, -1]) == pytest.approx([0, 0, 0.05])
    assert climbed(rare, [0, 0, 0.5], [0, 0, -0.25]) == [0, 0, 0.25]
    even = problem(RAO_KUPPER, pair(1000, 500, 500))
    assert climbed(even, [2, -2, 0.5], [-1, 1, 0]) == [1, -1, 0.5]
    often = problem(RAO_KUPPER, pair(1000, 500, 900))
    assert climbed(often, [0, 0, 0.5], [0, 0, 1]) == [0, 0, 1.5]
    assert climbed(problem(DAVIDSON, pair(1000, 500, 1)), [0, 0, 0.5], [0, 0, -1]) == [0, 0, -0.5]


# -- the maximum -----------------------------------------------------------------------------------


def test_two_competitors_by_hand():
    """Three of four: odds of 3, and 4 * 3/4 * 1/4 of information."""
    start = [0, 0, 7]
    fit = solve(PLAIN, pair(4, 3, 0), np.zeros(2), start)
    assert fit.converged
    assert fit.estimate == pytest.approx([math.log(3) / 2, -math.log(3) / 2, 7], abs=1e-12)
    expected = [[0.75, -0.75, 0], [-0.75, 0.75, 0], [0, 0, 0]]
    assert fit.information.tolist() == pytest.approx(np.array(expected), abs=1e-12)
    assert start == [0, 0, 7]


def test_davidson_by_hand():
    """Of 8, 4 wins, 1 loss and 3 ties: exp(d) = 4, and a tie is 3 / 2 of exp(0)."""
    fit = solve(DAVIDSON, pair(8, 5.5, 3), np.zeros(2), np.zeros(3))
    assert fit.converged
    expected = [math.log(4) / 2, -math.log(4) / 2, math.log(1.5)]
    assert fit.estimate == pytest.approx(expected, abs=1e-12)


def test_rao_and_kupper_by_hand():
    """Of 8, 3 wins, 3 losses and 2 ties: P(win) = 1 / (1 + theta) = 3 / 8."""
    fit = solve(RAO_KUPPER, pair(8, 4, 2), np.zeros(2), np.array([0.5, -0.5, 0.5]))
    assert fit.converged
    assert fit.estimate == pytest.approx([0, 0, math.log(5 / 3)], abs=1e-12)


def test_a_prior_holds_back_a_competitor_that_always_wins():
    """4 / (1 + u^2) = (u - 1) / (u + 1), u = exp(strength): u^3 - u^2 - 3u - 5 = 0."""
    fit = solve(PLAIN, pair(2, 2, 0), np.ones(2), np.zeros(3))
    (u,) = (root.real for root in np.roots([1, -1, -3, -5]) if abs(root.imag) < 1e-12)
    assert fit.converged
    assert fit.estimate == pytest.approx([math.log(u), -math.log(u), 0], abs=1e-11)


def test_a_prior_pulls_to_0_what_no_prior_leaves_where_it_is():
    start = np.array([1.5, 0.5, 0.0])
    free = solve(PLAIN, pair(*EVEN), np.zeros(2), start)
    assert free.estimate == pytest.approx([1, 1, 0], abs=1e-12)
    held = solve(PLAIN, pair(*EVEN), np.array([0.0, 0.1]), start)
    assert held.estimate == pytest.approx([0, 0, 0], abs=1e-9)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where kernels are not compiled
def test_strengths_without_a_maximum_do_not_converge():
    fit = solve(PLAIN, pair(2, 2, 0), np.zeros(2), np.zeros(3))
    assert not fit.converged


def test_a_part_of_a_system_is_solved_alone():
    """4x + 2y = 2, 2x + 5y = 9: y = 2, x = -0.5; the rest is left as it is."""
    matrix = np.array([[4.0, 2.0, 9.0], [2.0, 5.0, 9.0], [9.0, 9.0, -1.0]])
    vector = np.array([2.0, 9.0, 3.0])
    cholesky_solve(matrix, vector, 2)
    assert vector == pytest.approx([-0.5, 2.0, 3.0], abs=1e-15)
    assert matrix[2].tolist() == [9, 9, -1]


# -- near a known maximum --------------------------------------------------------------------------


@pytest.mark.parametrize("model", [PLAIN, DAVIDSON, RAO_KUPPER])
@pytest.mark.parametrize("prior", [(0.0, 0.0, 0.0), (0.5, 0.0, 2.0)])
def test_the_maximum_nearby_is_that_of_newtons_method(model, prior, monkeypatch):
    """A tenth of each pair's weight is gone; no step of Newton's method is taken from there."""
    i, j, y, t, w = (np.array(column) for column in zip(*GAMES, strict=True))
    sums = pair_sums(rows_of(i * 3 + j, y, t, w), 3)
    start = np.array([0.0, 0.0, 0.0, 1.5])
    whole = solve(model, pairs_of(sums, 3), np.array(prior), start)
    sums[:, 0] *= 0.9
    sums[:, 1] *= 0.85
    wanted = solve(model, pairs_of(sums, 3), np.array(prior), start)
    inverse = inverse_information(model, whole)
    monkeypatch.setattr(kernel, "newton", None)
    near = solve_near(model, pairs_of(sums, 3), np.array(prior), whole.estimate, inverse)
    assert near.converged
    assert np.allclose(near.estimate, wanted.estimate, atol=1e-9)
    assert np.allclose(near.information, wanted.information, atol=1e-8)


def test_far_from_a_known_maximum_newtons_method_goes_on():
    """3 of 4 won give log(3); with 999 of 1000 won, steps with that inverse go too far."""
    few = Pairs(np.array([0], np.int32), np.array([1], np.int32), np.array([[4.0, 3.0, 0.0]]))
    many = few._replace(sums=np.array([[1000.0, 999.0, 0.0]]))
    known = solve(PLAIN, few, np.zeros(2), np.array([0.0, 0.0, 0.5]))
    inverse = inverse_information(PLAIN, known)
    estimate = known.estimate.copy()
    likelihood = Likelihood(PLAIN, many, np.zeros(2))
    assert not descend(likelihood, inverse, estimate, np.zeros((3, 3)))
    fit = solve_near(PLAIN, many, np.zeros(2), known.estimate, inverse)
    assert fit.estimate[0] - fit.estimate[1] == pytest.approx(np.log(999), abs=1e-9)
