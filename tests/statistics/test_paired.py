"""Paired tests by hand and beside SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from steelyard.statistics.means import SHARE
from steelyard.statistics.paired import detectable, paired_test


def test_one_row_per_cluster_is_the_textbook_test():
    values = np.random.default_rng(0).normal(0.2, 1, 25)
    test = paired_test(values, np.arange(25))
    peer = stats.ttest_1samp(values, 0)
    assert test.p_value == pytest.approx(peer.pvalue)
    low, high = peer.confidence_interval(0.95)
    assert (test.lower, test.upper) == pytest.approx((low, high))
    assert test.standard_error == pytest.approx(stats.sem(values))
    half = paired_test(values, np.arange(25), null=0.5)
    assert half.p_value == pytest.approx(stats.ttest_1samp(values, 0.5).pvalue)


def test_rows_of_a_cluster_are_one_observation():
    values = np.random.default_rng(1).normal(0.3, 1, 12)
    once = paired_test(values, np.arange(12))
    often = paired_test(np.repeat(values, 7), np.repeat(np.arange(12), 7))
    assert (often.p_value, often.lower, often.upper) == pytest.approx(
        (once.p_value, once.lower, once.upper)
    )
    assert (often.rows, often.clusters) == (84, 12)


def test_a_heavy_cluster_leaves_few_degrees_of_freedom():
    """Weights 6, 1, 1, 1, 1: (sum)^2 / sum of squares = 100 / 40 = 2.5 clusters."""
    values, weight = np.array([0.4, 0.1, 0.5, -0.2, 0.3]), np.array([6.0, 1, 1, 1, 1])
    test = paired_test(values, np.arange(5), weight)
    mean = (2.4 + 0.1 + 0.5 - 0.2 + 0.3) / 10
    error = math.sqrt(5 / 4 * ((weight * (values - mean)) ** 2).sum()) / 10
    assert test.value == pytest.approx(mean)
    assert test.standard_error == pytest.approx(error)
    assert test.p_value == pytest.approx(2 * stats.t.sf(mean / error, 1.5))


def test_what_says_nothing():
    few = paired_test(np.array([0.1, 0.2, 0.3, 0.4]), np.arange(4))
    assert (few.value, few.p_value, few.lower, few.detectable) == (0.25, None, None, None)
    equal = paired_test(np.full(40, 0.3), np.arange(40))
    assert (equal.value, equal.p_value, equal.lower) == (0.3, None, None)
    wins = paired_test(np.ones(40), np.arange(40), null=0.5, bounds=SHARE)
    assert wins.p_value is None
    assert 0.85 < wins.lower < wins.upper == 1


def test_detectable_is_what_is_detected():
    """With many clusters 1.96 + 0.84 standard errors; the power there is 80% exactly."""
    assert detectable(1.0, 1e9, level=0.95, power=0.8) == pytest.approx(1.959964 + 0.841621)
    size = detectable(1.0, 20, level=0.95, power=0.9)
    assert size == pytest.approx(stats.t.ppf(0.975, 20) + stats.t.ppf(0.9, 20))
    bound = stats.t.ppf(0.975, 20)
    assert stats.nct.sf(bound, 20, size) == pytest.approx(0.9, abs=0.01)
