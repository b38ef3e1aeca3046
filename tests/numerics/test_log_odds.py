"""Strengths of responses by least squares on log-odds, against NumPy's least squares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard_kernels.log_odds import contrast_variances, strengths


def naive(first, second, log_odds, ends, responses):
    """One dense least-squares problem of smallest norm, and components by flooding."""
    rows = np.arange(len(first))
    design = np.zeros((len(first), responses))
    design[rows, first], design[rows, second] = 1, -1
    found = np.linalg.lstsq(design, log_odds, rcond=None)[0]
    component = np.arange(responses)
    for _ in range(responses):
        for a, b in zip(first, second, strict=True):
            component[[a, b]] = min(component[a], component[b])
    return found, component


@st.composite
def problems(draw):
    """Prompts with 2 to 6 responses; any comparisons that name each response once at least."""
    first, second, ends, at = [], [], [0], 0
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(2, 6))
        for response in range(size):
            other = (response + draw(st.integers(1, size - 1))) % size
            for _ in range(draw(st.integers(1, 2))):
                first.append(at + response)
                second.append(at + other)
        ends.append(len(first))
        at += size
    odds = draw(st.lists(st.floats(-14, 14), min_size=len(first), max_size=len(first)))
    return np.array(first), np.array(second), np.array(odds), np.array(ends), at


@settings(deadline=None)
@given(problems())
def test_equals_dense_least_squares(problem):
    found, component = strengths(*problem)
    expected, joined = naive(*problem)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_array_equal(component, joined)


def laplacian(first, second, responses):
    rows = np.arange(len(first))
    design = np.zeros((len(first), responses))
    design[rows, first], design[rows, second] = 1, -1
    return design, design.T @ design


@settings(deadline=None)
@given(problems(), st.floats(0.01, 100))
def test_a_penalty_is_that_of_dense_ridge_regression(problem, ridge):
    first, second, odds, ends, responses = problem
    design, matrix = laplacian(first, second, responses)
    inverse = np.linalg.inv(matrix + ridge * np.eye(responses))
    found, _ = strengths(*problem, ridge=ridge)
    np.testing.assert_allclose(found, inverse @ design.T @ odds, atol=1e-9)
    pairs = first[ends[:-1]], second[ends[:-1]]
    wanted = [
        inverse[a, a] + inverse[b, b] - 2 * inverse[a, b] for a, b in zip(*pairs, strict=True)
    ]
    variances = contrast_variances(first, second, ends, pairs, ridge)
    np.testing.assert_allclose(variances, wanted, rtol=1e-9)


def test_a_common_opponent_joins_all_the_others():
    """Against response 0 alone: strengths differ by exactly the log-odds."""
    odds = np.array([2.0, -1.0, 0.5])
    found, component = strengths(
        np.array([1, 2, 3]), np.zeros(3, np.int64), odds, np.array([0, 3]), 4
    )
    np.testing.assert_allclose(found[1:] - found[0], odds, atol=1e-12)
    assert component.tolist() == [0, 0, 0, 0]


def test_swapping_sides_changes_nothing():
    first, second, odds = np.array([0, 1, 2]), np.array([1, 2, 0]), np.array([1.0, 0.25, -3.0])
    ends = np.array([0, 3])
    a, _ = strengths(first, second, odds, ends, 3)
    b, _ = strengths(second, first, -odds, ends, 3)
    np.testing.assert_allclose(a, b, atol=1e-12)


def test_groups_that_never_met_stand_apart():
    found, component = strengths(
        np.array([0, 2]), np.array([1, 3]), np.array([1.0, 4.0]), np.array([0, 2]), 4
    )
    assert component.tolist() == [0, 0, 2, 2]
    assert found == pytest.approx([0.5, -0.5, 2.0, -2.0])


def test_nothing_to_solve():
    found, component = strengths(
        np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.array([0]), 0
    )
    assert found.shape == component.shape == (0,)
