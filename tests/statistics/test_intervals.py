"""Student's t and intervals of rates: by hand, by SciPy's own distributions, and at every edge."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from steelyard.statistics.intervals import rate_interval, t_p_value, t_quantile
from steelyard.statistics.means import SHARE, mean


def test_students_t_is_that_of_the_tables():
    assert t_quantile(0.95, 9) == pytest.approx(2.262157, abs=1e-6)
    assert t_quantile(0.95, math.inf) == pytest.approx(1.959964, abs=1e-6)
    assert t_quantile(0.9, np.array([1.0, 0.0, -2.0])) == pytest.approx(
        [6.313752, math.inf, math.inf]
    )
    assert t_p_value(-2.262157, 9) == pytest.approx(0.05, abs=1e-7)
    values, freedom = np.array([0.0, 3.0, math.inf]), np.array([2.5, 4.5, 7.0])
    expected = 2 * scipy.stats.t.sf(values, freedom)
    assert t_p_value(values, freedom) == pytest.approx(expected, abs=1e-12)
    assert t_p_value(5.0, 0) == 1


def test_forty_of_forty_are_not_certainly_all():
    # Wilson's lower bound at p = 1 is n / (n + t**2), t the 97.5% quantile with 39 degrees: 2.0227
    low, high = rate_interval(1.0, 0.0, 40)
    assert (low, high) == (pytest.approx(40 / (40 + 2.022691**2)), 1.0)
    assert rate_interval(0.0, 0.0, 40) == (0.0, pytest.approx(1 - low))
    # the same where a soft judge is sure by a hair less, of which the spread says nothing
    assert rate_interval(0.9999, 1e-6, 40)[0] == pytest.approx(low, abs=2e-3)


def test_independent_decisions_give_wilsons_interval():
    n, p = 50, 0.3
    found = rate_interval(p, math.sqrt(p * (1 - p) / n), n)
    z = 2.009575  # 97.5% quantile of t with 49 degrees of freedom
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert found == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_equal_preferences_say_as_much_as_their_clusters():
    spread = math.sqrt(0.7 * 0.3 / 25)
    assert rate_interval(0.7, 0.0, 25) == pytest.approx(rate_interval(0.7, spread, 25))
    assert rate_interval(0.7, 1e-12, 25) == rate_interval(0.7, 0.0, 25)


@given(
    rate=st.floats(0, 1), error=st.floats(0, 0.5), clusters=st.floats(1, 1e7),
    level=st.floats(0.5, 0.999),
)  # fmt: skip
def test_a_rate_stays_a_rate_and_is_never_certain(rate, error, clusters, level):
    low, high = rate_interval(rate, error, clusters, level)
    assert 0 <= low < high <= 1
    assert low <= rate <= high


def test_a_mean_has_an_interval_by_students_t():
    values = np.array([1.0, 2.0, 4.0, 4.0, 9.0])
    found = mean(values, np.arange(5))
    expected = scipy.stats.t.interval(0.95, 4, 4, scipy.stats.sem(values))
    assert found.interval() == pytest.approx(expected)
    assert mean(values[:4], np.arange(4)).interval() == (None, None)


def test_clusters_of_unequal_weight_count_for_fewer():
    # five clusters of 4, 1, 1, 1 and 1 rows: 8**2 / (16 + 4) = 3.2 equal ones
    cluster = np.array([0, 0, 0, 0, 1, 2, 3, 4])
    values = np.array([0.9, 0.7, 0.8, 0.6, 0.2, 0.4, 0.5, 0.3])
    found = mean(values, cluster, bounds=SHARE)
    assert found.effective_clusters == pytest.approx(3.2)
    by_weight = mean(
        np.array([0.75, *values[4:]]), np.arange(5), np.array([4.0, 1, 1, 1, 1]), bounds=SHARE
    )
    assert by_weight.interval() == pytest.approx(found.interval())
    assert found.interval() == rate_interval(found.value, found.standard_error, 3.2)
    margin = scipy.stats.t.ppf(0.975, 2.2) * found.standard_error
    assert mean(values, cluster).interval() == pytest.approx(
        (found.value - margin, found.value + margin)
    )


def test_bounds_of_a_mean_are_those_of_its_values():
    leans = np.array([0.8, 1.0, 0.9, 1.0, 1.0, 0.7])
    low, high = mean(leans, np.arange(6), bounds=(-1.0, 1.0)).interval()
    as_rate = mean((leans + 1) / 2, np.arange(6), bounds=SHARE).interval()
    assert (low, high) == pytest.approx((2 * as_rate[0] - 1, 2 * as_rate[1] - 1))
    assert -1 < low < 0.9 < high <= 1
