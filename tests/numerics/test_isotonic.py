"""Isotonic regression against its definition, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard_kernels.isotonic import isotonic

rows_of = st.lists(
    st.tuples(
        st.floats(-10, 10, allow_nan=False), st.floats(0.01, 100, allow_nan=False)
    ),
    max_size=30,
)  # fmt: skip


def naive(values, weights):
    """The min-max formula: the largest, over starts, of the smallest mean from there on."""
    n = len(values)

    def mean(start, end):
        return np.average(values[start:end], weights=weights[start:end])

    return [
        max(min(mean(start, end) for end in range(at + 1, n + 1)) for start in range(at + 1))
        for at in range(n)
    ]


def columns(rows):
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


@given(rows_of)
@settings(max_examples=150, deadline=None)
def test_it_is_the_min_max_formula(rows):
    values, weights = columns(rows)
    assert isotonic(values, weights).tolist() == pytest.approx(naive(values, weights), abs=1e-9)


@given(rows_of)
@settings(max_examples=150, deadline=None)
def test_it_never_falls_keeps_the_mean_and_fits_itself(rows):
    values, weights = columns(rows)
    fitted = isotonic(values, weights)
    assert (np.diff(fitted) >= 0).all()
    assert weights @ fitted == pytest.approx(weights @ values, abs=1e-8 * (1 + weights.sum()))
    assert isotonic(fitted, weights).tolist() == pytest.approx(fitted.tolist(), abs=1e-9)


def test_it_equals_scikit_learns():
    reference = pytest.importorskip("sklearn.isotonic")
    draw = np.random.default_rng(0)
    values = np.linspace(0, 1, 5000) + draw.normal(0, 1, 5000)
    weights = draw.integers(1, 9, 5000).astype(np.float64)
    wanted = reference.isotonic_regression(values, sample_weight=weights)
    assert np.abs(isotonic(values, weights) - wanted).max() < 1e-9


def test_a_worked_example():
    # 3, 1 pool to 2; 2 joins neither more nor less; 6, 4 pool with weights 1 and 3 to 4.5.
    found = isotonic(np.array([3.0, 1, 2, 6, 4]), np.array([1.0, 1, 1, 1, 3]))
    assert found.tolist() == [2, 2, 2, 4.5, 4.5]
