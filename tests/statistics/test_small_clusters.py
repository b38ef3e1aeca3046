"""Degrees of freedom by hand, against their exact definition, and the step-down's laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.statistics.small_clusters import degrees_of_freedom, holm, step_down


def overlap(information):
    """Of clusters' information [G, K] about each estimate."""
    shares = information / information.sum(axis=0)
    return shares.T @ shares


def test_equal_clusters_lose_one_degree():
    """Two estimates over the same 7 clusters have 6; over 4 and 4 others, Welch's 3 + 3."""
    same = degrees_of_freedom(np.ones(2), overlap(np.ones((7, 2))))
    assert same == pytest.approx(np.full((2, 2), 6))
    apart = np.repeat(np.eye(2), 4, axis=0)
    assert degrees_of_freedom(np.ones(2), overlap(apart)) == pytest.approx(
        np.array([[3, 6], [6, 3]])
    )


def test_unequal_variances_are_welchs():
    """Variances 1 and 3 with 2 and 9 degrees: 16 / (1 / 2 + 9 / 9)."""
    information = np.zeros((13, 2))
    information[:3, 0] = information[3:, 1] = 1
    degrees = degrees_of_freedom(np.array([1.0, 3.0]), overlap(information))
    assert degrees[0, 1] == pytest.approx(16 / 1.5)


def test_a_single_cluster_has_none():
    degrees = degrees_of_freedom(np.ones(2), overlap(np.array([[1.0, 1.0], [0.0, 1.0]])))
    assert degrees[0, 0] == 0
    assert degrees[1, 1] == pytest.approx(1)
    assert degrees[0, 1] == 0


def test_degrees_are_close_to_bell_and_mccaffreys():
    """Means of two groups in clusters of unequal sizes, where CR2's degrees are known exactly: the
    eigenvalues of G, G[c, d] = s_c' (I - H)_cd s_d, give (sum)**2 / sum of squares."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 9, (12, 2))
    rows = [(c, k) for c in range(12) for k in range(2) for _ in range(sizes[c, k])]
    cluster, member = np.array(rows).T
    design = np.eye(2)[member]
    bread = np.linalg.inv(design.T @ design)
    residual = np.eye(len(rows)) - design @ bread @ design.T
    weights = []
    for c in range(12):
        here = np.flatnonzero(cluster == c)
        values, vectors = np.linalg.eigh(residual[np.ix_(here, here)])
        root = vectors @ np.diag(values**-0.5) @ vectors.T
        weights.append(residual[:, here] @ root @ design[here] @ bread @ [1, -1])
    inner = np.stack(weights, axis=1)
    values = np.linalg.eigvalsh(inner.T @ inner)
    exact = values.sum() ** 2 / (values**2).sum()
    ours = degrees_of_freedom(1 / sizes.sum(axis=0), overlap(sizes.astype(float)))[0, 1]
    assert ours == pytest.approx(exact, rel=0.1)


def test_holm_by_hand():
    assert holm(np.array([0.04, 0.01, 0.02])).tolist() == pytest.approx([0.04, 0.03, 0.04])


def test_a_single_difference_needs_no_adjustment():
    pair = (np.array([0], np.int32), np.array([1], np.int32))
    assert step_down(np.array([0.03]), pair, np.eye(2))[0] == pytest.approx(0.03)
    assert step_down(np.zeros(0), (pair[0][:0], pair[1][:0]), np.eye(2)).tolist() == []


def test_differences_of_one_competitor_vary_together():
    """Where one estimate has nearly all variance, its ten differences are one and the same test."""
    first, second = np.zeros(10, np.int32), np.arange(1, 11, dtype=np.int32)
    p_values = np.full(10, 0.02)
    noisy = np.diag([1e4, *[1.0] * 10])
    assert step_down(p_values, (first, second), noisy) == pytest.approx(
        np.full(10, 0.02), abs=0.012
    )
    quiet = np.diag([1e-4, *[1.0] * 10])
    independent = 1 - 0.98**10
    assert step_down(p_values, (first, second), quiet) == pytest.approx(
        np.full(10, independent), abs=0.03
    )


@given(st.lists(st.floats(1e-12, 1), min_size=6, max_size=6))
@settings(max_examples=30, deadline=None)
def test_it_keeps_the_order_and_never_exceeds_holm(values):
    p_values = np.array(values)
    first, second = (side.astype(np.int32) for side in np.triu_indices(4, 1))
    adjusted = step_down(p_values, (first, second), np.diag([1.0, 2.0, 3.0, 4.0]))
    assert (adjusted <= holm(p_values)).all()
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    again = step_down(p_values, (first, second), np.diag([1.0, 2.0, 3.0, 4.0]))
    assert adjusted.tolist() == again.tolist()
