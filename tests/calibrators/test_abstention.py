"""Thresholds that keep their promise, and drift."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.calibrators.abstention import (
    binomial_tail,
    coverage_risk,
    first_wealth,
    fit_trust_threshold,
    growth,
    instructions_needed,
    level_of,
    lowest,
    new_wealth,
    thresholds_of,
)
from steelyard.statistics.drift import Reference, measure_drift
from support.trust_data import GOLD_SHAPES, JUDGES, broken_and_found


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
    # 400 pairs, all right but the 40 least certain. At level 0.05 x 0.75 / 8, 95% coverage passes
    # with 20 failures of 380 and 100% does not with 40 of 400.
    preference = np.linspace(0.99, 0.6, 400)
    found = fit_trust_threshold(
        preference, np.arange(400) < 360, np.arange(400), 0.9, 0.95,
        thresholds=thresholds_of(preference), largest=1,
    )  # fmt: skip
    assert binomial_tail(20, 380, 0.1) < 0.05 * 0.75 / 8 < binomial_tail(40, 400, 0.1)
    assert found.coverage == 0.95
    assert found.observed == pytest.approx(360 / 380)
    assert (preference >= found.threshold).sum() == 380
    assert found.pairs == 400


def test_thresholds_fall_between_pairs_to_one_half():
    preference = np.array([0.9, 0.2, 0.6, 0.55])  # certainties .9, .8, .6, .55
    found = thresholds_of(preference)
    assert len(found) == 20
    assert sorted(set(found.tolist())) == pytest.approx([0.5, 0.575, 0.7, 0.85])
    assert found.tolist() == sorted(found.tolist(), reverse=True)


def test_the_level_is_shared_by_rules_and_starts():
    # Of 0.05, the first rule has 3/4, the next 1/2, 1/6 and 1/12 of the rest; each has 4 starts.
    shares = [0.75, 0.25 / 2, 0.25 / 6, 0.25 / 12]
    assert [level_of(0.95, rule) for rule in range(4)] == pytest.approx(
        [0.05 * share / 4 for share in shares]
    )
    assert 4 * sum(level_of(0.95, rule) for rule in range(2000)) == pytest.approx(0.05, rel=1e-3)


def test_wealth_is_staked_on_twenty_bets_and_half_of_it_on_an_exact_test():
    assert np.exp(new_wealth(2)).tolist() == [pytest.approx([0.0, *[1 / 20] * 20])] * 2
    # 0.9^100 < 0.005, and 0.9^10 is not: the exact test pays 1 / level = 100, or nothing.
    for pairs, paid in ((100, 100.0), (10, 0.0)):
        wealth = first_wealth(
            np.full(pairs, 0.8), np.zeros(pairs, bool), np.array([0.5]),
            risk=0.1, level=0.01, largest=1,
        )  # fmt: skip
        assert np.exp(wealth).tolist() == [pytest.approx([paid, *[1 / 40] * 20])]
    none = first_wealth(
        np.full(100, 0.8), np.zeros(100, bool), np.array([0.5]), risk=0.1, level=0.01, largest=2
    )
    assert none.tolist() == new_wealth(1).tolist()


@pytest.mark.parametrize(
    ("rejecting", "wanted"),
    [
        ([], None),
        ([4], 5), ([9], 10), ([14], 15), ([19], 20),  # a quarter, a half, three quarters, all
        ([3], None), ([5], None), ([8], None), ([18], None),
        ([4, 5, 6, 8], 7),  # up to the first that does not reject
        ([4, 5, 14], 15),
    ],
)  # fmt: skip
def test_sequences_of_tests_begin_at_four_steps(rejecting, wanted):
    """Step k has the threshold 1 - k / 100; wealth of 1 / level rejects."""
    thresholds = 1 - np.arange(1, 21) / 100
    wealth = np.full((20, 21), -np.inf)
    wealth[:, 0] = math.log(100) - 1e-6
    wealth[rejecting, 0] = math.log(50)
    wealth[rejecting, 7] = math.log(50) + 1e-9
    found = lowest(wealth, thresholds, 0.01)
    assert found == (None if wanted is None else pytest.approx(1 - wanted / 100))


def test_too_little_gold_keeps_no_promise():
    found = fit_trust_threshold(
        np.full(20, 0.9), np.ones(20, bool), np.arange(20), 0.9, 0.95,
        thresholds=thresholds_of(np.full(20, 0.9)), largest=1,
    )  # fmt: skip
    assert (found.threshold, found.coverage, found.observed) == (None, 0.0, None)


def test_the_bet_is_the_mean_of_products():
    # Two instructions of three pairs at most, risk 0.2: one with 1 wrong of 3, one with 0 of 2.
    wrong, groups = np.array([True, False, False, False, False]), np.array([4, 4, 4, 9, 9])
    x = [(1 - 3 * 0.2) / 3, -2 * 0.2 / 3]
    products = [math.prod(1 - k / 20 / 0.8 * value for value in x) for k in range(1, 21)]

    def bets(rows, wrong=wrong, groups=groups):
        certainty, half = np.full(len(rows), 0.9), np.array([0.5])
        return growth(certainty, wrong[rows], groups[rows], half, risk=0.2, largest=3)[0]

    assert np.exp(bets(np.arange(5))) == pytest.approx(products, rel=1e-12)
    assert bets(np.array([3, 0, 4, 2, 1])).tolist() == bets(np.arange(5)).tolist()
    assert bets(np.arange(0)).tolist() == [0.0] * 20
    lost = bets(np.arange(6), np.ones(6, bool), np.arange(6) // 3)
    assert lost[-1] == -np.inf  # all is lost, no error


@pytest.mark.parametrize("shape", GOLD_SHAPES)
@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("agreement", [0.9, 0.6])  # at 0.6 a few instructions can prove it
def test_the_promise_is_broken_in_at_most_one_of_twenty_draws(shape, judge, agreement):
    seeds = 200
    broken, _ = broken_and_found(shape, judge, seeds, agreement=agreement)
    slack = 2 * math.sqrt(0.05 * 0.95 / seeds)
    assert broken / seeds <= 0.05 + slack


@pytest.mark.parametrize("shape", ["of 1 pair", "of 10 pairs", "of 1 to 29 pairs"])
def test_a_few_instructions_prove_a_small_promise(shape):
    _, found = broken_and_found(shape, "good", 100, agreement=0.6)
    assert found >= 50


@pytest.mark.parametrize("shape", ["of 1 pair", "of 10 pairs", "of 1 to 29 pairs"])
def test_the_promise_is_kept_where_thresholds_are_found(shape):
    # Enough instructions for the test to reject often, and errors that are those of instructions.
    broken, found = broken_and_found(shape, "rising", 100, instructions=1200)
    assert found >= 60
    assert broken <= 10
    broken, _ = broken_and_found(shape, "just too bad", 100, instructions=1200)
    assert broken <= 10


@pytest.mark.parametrize("agreement", [0.6, 0.9])
def test_instructions_needed_are_those_with_which_a_faultless_judge_passes(agreement):
    sizes = np.array([10, 10, 4])
    needed = instructions_needed(sizes, agreement, 0.95, 10)
    passes = []
    for times in (math.ceil(needed / 3), math.ceil(needed / 3) - 1):
        groups = np.repeat(np.arange(3 * times), np.tile(sizes, times))
        p = np.full(len(groups), 0.9)
        found = fit_trust_threshold(
            p, np.ones(len(p), bool), groups, agreement, 0.95,
            thresholds=thresholds_of(p), largest=10,
        )  # fmt: skip
        passes.append(found.threshold is not None)
    assert passes == [True, False]
    assert instructions_needed(np.ones(5, np.int64), 0.9, 0.95, 1) == 51  # 0.9^51 < 0.0047


def test_coverage_and_risk_of_a_small_set():
    curve = coverage_risk(np.array([0.9, 0.2, 0.6, 0.55]), np.array([True, False, True, False]))
    assert [(one["coverage"], one["risk"]) for one in curve] == [
        (0.25, 0.0), (0.5, 0.5), (0.75, 1 / 3), (1.0, 0.5),
    ]  # fmt: skip


def test_no_pairs_have_no_coverage():
    assert coverage_risk(np.empty(0), np.empty(0, dtype=bool)) == []


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
