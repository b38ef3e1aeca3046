"""Thresholds that keep their promise, and drift."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.calibrate.drift import Reference, measure_drift
from steelyard.calibrate.selective import (
    binomial_tail,
    coverage_risk,
    design_effect,
    fit_threshold,
)


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.01, 0.99))
@settings(max_examples=200, deadline=None)
def test_the_binomial_tail_is_its_sum(successes, trials, probability):
    wanted = sum(
        math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k)
        for k in range(min(successes, trials) + 1)
    )
    found = binomial_tail(successes, trials, probability)
    assert found == pytest.approx(min(wanted, 1.0), rel=1e-9, abs=1e-300)


def test_a_worked_example():
    # 400 pairs, all right but the 40 least certain. At level 0.05 / 4, 95% coverage passes with 20
    # failures of 380 and 100% does not with 40 of 400.
    preference = np.linspace(0.99, 0.6, 400)
    found = fit_threshold(preference, np.arange(400) < 360, np.arange(400), 0.9, 0.95)
    assert binomial_tail(20, 380, 0.1) < 0.05 / 4 < binomial_tail(40, 400, 0.1)
    assert found.coverage == 0.95
    assert found.observed == pytest.approx(360 / 380)
    assert (preference >= found.threshold).sum() == 380
    assert found.pairs == 400


def test_too_little_gold_keeps_no_promise():
    found = fit_threshold(np.full(20, 0.9), np.ones(20, bool), np.arange(20), 0.9, 0.95)
    assert (found.threshold, found.coverage, found.observed) == (None, 0.0, None)


def broken_promises(seeds, *, each, curve):
    """Share of draws of gold in which the true agreement above the threshold is too low."""
    broken = trusted = 0
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        p = np.repeat(draw.beta(0.7, 0.7, 600 // each), each)
        p = np.clip(p + draw.normal(0, 0.02, len(p)), 0, 1)
        certainty = np.maximum(p, 1 - p)
        hard = np.repeat(draw.normal(0, 1, 600 // each), each) * (each > 1) * 0.05
        right = draw.random(len(p)) < np.clip(curve(certainty) + hard, 0, 1)
        groups = np.repeat(np.arange(600 // each), each)
        found = fit_threshold(p, right, groups, 0.9, 0.95)
        if found.threshold is None:
            continue
        trusted += 1
        many = np.random.default_rng(10**6).beta(0.7, 0.7, 100_000)
        many = np.maximum(many, 1 - many)
        broken += curve(many[many >= found.threshold]).mean() < 0.9
    assert trusted > seeds // 4
    return broken / seeds


@pytest.mark.parametrize("each", [1, 4])
def test_the_promise_is_broken_in_at_most_one_of_twenty_draws(each):
    assert broken_promises(500, each=each, curve=lambda c: 0.55 + 0.44 * (2 * c - 1) ** 0.7) <= 0.05


def test_the_promise_holds_for_a_judge_that_is_surest_where_it_is_wrong():
    assert broken_promises(500, each=1, curve=lambda c: np.where(c > 0.97, 0.88, 0.93)) <= 0.05


def test_the_design_effect_of_independent_and_of_equal_rows():
    draw = np.random.default_rng(0)
    wrong = draw.random(4000) < 0.2
    assert design_effect(wrong, np.arange(4000)) == 1.0
    assert design_effect(np.repeat(wrong, 5), np.repeat(np.arange(4000), 5)) == pytest.approx(
        5, abs=0.05
    )
    assert design_effect(wrong, np.arange(4000) // 5) < 1.3


def test_coverage_and_risk_of_a_small_set():
    curve = coverage_risk(np.array([0.9, 0.2, 0.6, 0.55]), np.array([True, False, True, False]))
    assert [(one["coverage"], one["risk"]) for one in curve] == [
        (0.25, 0.0), (0.5, 0.5), (0.75, 1 / 3), (1.0, 0.5),
    ]  # fmt: skip


def test_equally_certain_pairs_are_trusted_together():
    curve = coverage_risk(np.array([0.9] * 8 + [0.7] * 2), np.ones(10, dtype=bool))
    assert [one["coverage"] for one in curve] == [0.8, 1.0]


def test_no_drift_within_one_distribution():
    draw = np.random.default_rng(0)
    warned = [
        measure_drift(Reference.of(draw.random(500)), draw.random(3000)).drifted for _ in range(200)
    ]
    assert np.mean(warned) <= 0.02


def test_drift_is_seen_and_measured():
    draw = np.random.default_rng(0)
    reference = Reference.of(draw.beta(2, 2, 800))
    found = measure_drift(reference, draw.beta(4, 2, 5000))
    assert found.drifted
    assert found.psi > 0.2
    assert found.p_value < 1e-6


def test_the_distance_is_that_of_the_samples():
    draw = np.random.default_rng(1)
    old, new = draw.random(150), draw.random(900) ** 1.3
    grid = np.concatenate([old, new])
    naive = max(abs((old <= x).mean() - (new <= x).mean()) for x in grid)
    found = measure_drift(Reference.of(old), new)
    assert found.ks == pytest.approx(naive, abs=1e-12)


def test_the_stability_index_of_a_worked_example():
    # Reference: ten equal bins. New: everything in the first two, half each.
    reference = Reference.of(np.linspace(0, 1, 10_001))
    new = np.concatenate([np.full(500_000, 0.05), np.full(500_000, 0.15)])
    p, q = np.full(10, 0.1), np.array([0.5, 0.5] + [0.5e-6] * 8)
    wanted = float(np.sum((q - p) * np.log(q / p)))
    assert measure_drift(reference, new).psi == pytest.approx(wanted, rel=0.02)


def test_hard_decisions_have_quantiles_too():
    reference = Reference.of(np.array([0.0] * 50 + [1.0] * 50))
    assert not measure_drift(reference, np.array([0.0] * 48 + [1.0] * 52)).drifted
    assert measure_drift(reference, np.ones(100)).drifted
