"""Logistic regression: worked by hand, and its refusals."""

from __future__ import annotations

import numpy as np
import pytest

from steelyard.statistics.logistic import FitFailed, fit, log_loss, logit, maximise, sigmoid
from steelyard.statistics.means import mean


def test_an_intercept_is_the_logit_of_the_mean_with_its_clustered_standard_error():
    rng = np.random.default_rng(1)
    y, w, cluster = rng.random(40), rng.uniform(0.2, 3, 40), rng.integers(0, 9, 40)
    fitted = fit(np.ones((40, 1)), y, w, cluster, np.zeros(1))
    average = mean(y, cluster, w)
    assert fitted.coefficients[0] == pytest.approx(float(logit(average.value)), abs=1e-12)
    # the delta method: a logit moves by 1 / (p (1 - p)) per unit of p
    error = average.standard_error / (average.value * (1 - average.value))
    assert np.sqrt(fitted.covariance[0, 0]) == pytest.approx(error)


def test_an_intercepts_interval_is_that_of_a_mean_by_students_t():
    """Ten clusters of four rows say as much each: nine degrees of freedom, 2.262157 errors."""
    y, cluster = np.random.default_rng(1).random(40), np.repeat(np.arange(10), 4)
    fitted = fit(np.ones((40, 1)), y, np.ones(40), cluster, np.zeros(1))
    average = mean(y, cluster)
    error = average.standard_error / (average.value * (1 - average.value))
    low, high = fitted.intervals()[0]
    assert (low + high) / 2 == pytest.approx(fitted.coefficients[0])
    assert high - low == pytest.approx(2 * 2.262157 * error)


def test_a_coefficient_that_a_single_cluster_decides_has_hardly_an_interval():
    """Only the first cluster differs in the second feature, and says all about it."""
    features = np.stack([np.ones(20), np.repeat([1.0, 0.0], [4, 16])], axis=1)
    y = np.random.default_rng(0).random(20)
    fitted = fit(features, y, np.ones(20), np.repeat(np.arange(5), 4), np.full(2, 1e-3))
    width = np.ptp(fitted.intervals(), axis=1)
    assert width[0] < 3
    assert width[1] > 100
    features[:, 1] = 0
    fitted = fit(features, y, np.ones(20), np.repeat(np.arange(5), 4), np.full(2, 1e-3))
    assert np.isfinite(fitted.intervals()).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("clusters", [8, 15])
def test_intervals_hold_with_few_clusters(clusters):
    """In 600 draws of clusters with a shared part, 95% intervals contain the slope (2 SE: 1.8%)."""
    held, rng = 0, np.random.default_rng(0)
    for _ in range(600):
        cluster = np.repeat(np.arange(clusters), 6)
        x = np.stack([np.ones(len(cluster)), rng.normal(0, 1.5, len(cluster))], axis=1)
        y = (rng.random(len(cluster)) < sigmoid(x @ [0.3, 0.6])).astype(float)
        fitted = fit(x, y, np.ones(len(y)), cluster, np.full(2, 1e-3))
        low, high = fitted.intervals()[1]
        held += low <= 0.6 <= high
    assert 0.93 <= held / 600 <= 0.99


def test_a_ridge_draws_to_its_prior():
    nothing = np.zeros(3)
    fitted = fit(np.eye(3), nothing, nothing, np.arange(3), np.ones(3), prior=np.arange(3.0))
    assert fitted.coefficients.tolist() == [0, 1, 2]


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_maximum_does_not_depend_on_the_unit_of_a_feature(unit):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 1))
    y = sigmoid(0.7 * x[:, 0] + rng.normal(size=200))
    plain, scaled = (
        fit(features, y, np.ones(200), np.arange(200), np.zeros(1)) for features in (x, x * unit)
    )
    assert scaled.coefficients[0] * unit == pytest.approx(plain.coefficients[0], rel=1e-10)


def test_what_separates_has_no_maximum():
    x = np.array([[-1.0, 1.0], [1.0, 1.0]] * 5)
    with pytest.raises(FitFailed, match="separates"):
        fit(x, (x[:, 0] > 0).astype(float), np.ones(10), np.arange(10), np.zeros(2))


def test_a_climb_that_takes_too_many_steps_fails():
    class Far:
        def value(self, coefficients):
            return float(coefficients[0])

        def step(self, coefficients):
            return np.ones(1), 1.0

    with pytest.raises(FitFailed):
        maximise(Far(), np.zeros(1), rounds=3)


def test_sigmoid_logit_and_log_loss_are_finite_at_the_ends():
    assert sigmoid(np.array([-1e9, 0.0, 1e9])).tolist() == pytest.approx([0, 0.5, 1])
    assert logit(np.array([0.0, 0.5, 1.0])) == pytest.approx([-27.631021, 0, 27.631021])
    assert log_loss(np.array([0.0, 0.5]), np.array([1.0, 0.3])) == pytest.approx(
        [36.04365, np.log(2)]
    )
