"""Trust thresholds against a naive twin, and at their smallest sizes."""

import math

import numpy as np
import pytest

from steelyard.calibrators.abstention import (
    binomial_tail,
    confidence_of,
    coverage_risk,
    fit_trust_threshold,
    instructions_needed,
    p_value,
    thresholds_of,
)


def naive_p(wrong, groups, risk, largest):
    """The mean over twenty bets of the product over instructions, and its inverse."""
    if largest == 1:
        n, k = len(wrong), sum(wrong)
        return sum(math.comb(n, j) * risk**j * (1 - risk) ** (n - j) for j in range(k + 1))
    if not len(wrong):
        return 1.0
    x = {}
    for is_wrong, instruction in zip(wrong, groups, strict=True):
        x[instruction] = x.get(instruction, 0.0) + (is_wrong - risk) / largest
    bets = [number / 20 / (1 - risk) for number in range(1, 21)]
    wealth = [math.prod(max(1 - bet * value, 0.0) for value in x.values()) for bet in bets]
    mean = sum(wealth) / 20
    return min(1.0, 1 / mean) if mean else 1.0


def naive_threshold(certainty, agrees, groups, agreement, confidence, thresholds, largest):
    """Four sequences of tests: from a quarter, a half, three quarters and all of the pairs."""
    passed = []
    for start in (4, 9, 14, 19):
        for threshold in thresholds[start:]:
            rows = [k for k, value in enumerate(certainty) if value >= threshold]
            p = naive_p([not agrees[k] for k in rows], [groups[k] for k in rows],
                        1 - agreement, largest)  # fmt: skip
            if p > (1 - confidence) / 4:
                break
            passed.append(threshold)
    return min(passed, default=None)


@pytest.mark.parametrize("largest", [1, 2, 5])
@pytest.mark.parametrize("seed", range(30))
def test_a_threshold_equals_its_naive_twin(largest, seed):
    draw = np.random.default_rng(seed)
    pairs = 60 if largest == 1 else 200
    preference = draw.random(pairs)
    # Agreement rises with certainty, with a hollow somewhere.
    certainty = np.maximum(preference, 1 - preference)
    hollow = draw.uniform(0.5, 1)
    chance = np.where(np.abs(certainty - hollow) < 0.04, 0.4, 0.8 + 0.4 * (certainty - 0.5))
    agrees = draw.random(pairs) < chance
    groups = np.arange(pairs) // largest
    thresholds = thresholds_of(draw.random(pairs))
    result = fit_trust_threshold(
        preference, agrees, groups, 0.7, 0.9, thresholds=thresholds, largest=largest
    )
    wanted = naive_threshold(
        certainty.tolist(), agrees.tolist(), groups.tolist(), 0.7, 0.9,
        thresholds.tolist(), largest,
    )  # fmt: skip
    assert result.threshold == wanted
    trusted = certainty >= (2.0 if wanted is None else wanted)
    assert result.coverage == pytest.approx(trusted.mean())
    assert (result.agreement, result.confidence, result.pairs) == (0.7, 0.9, pairs)
    if wanted is None:
        assert result.observed is None
    else:
        assert result.observed == pytest.approx(agrees[trusted].mean())


@pytest.mark.parametrize(
    ("wrong", "until", "coverage"),
    [
        # By binomial tails of risk 0.4 at level 0.0125: 20 pairs may have 2 wrong ones, 25 may have
        # 4, 30 may have 5; 45 may have 10, 50 and 55 may have 11 and 13; 70 may have 18, 75 and 80
        # may have 20 and 21; 95 may have 26, 100 may have 28.
        (4, 25, 0.25),
        (11, 50, 0.5),
        (20, 75, 0.75),
        (28, 100, 1.0),
        (29, 100, None),
        (0, 100, 1.0),
        (0, 30, 0.35),  # 30 right ones, and 5 wrong ones of 35 are few enough: 7 may be
    ],
)
def test_each_sequence_of_tests_finds_the_threshold(wrong, until, coverage):
    """The surest `wrong` of 100 pairs are wrong, then all are right up to `until`."""
    preference = np.linspace(0.995, 0.5, 100)
    agrees = (np.arange(100) >= wrong) & (np.arange(100) < until)
    result = fit_trust_threshold(
        preference, agrees, np.arange(100), 0.6, 0.95, thresholds=thresholds_of(preference),
        largest=1,
    )  # fmt: skip
    assert result.coverage == (coverage or 0.0)
    assert (result.threshold is None) is (coverage is None)


@pytest.mark.parametrize(
    ("pairs", "most"),
    [(20, 2), (25, 4), (30, 5), (35, 7), (40, 8), (45, 10), (50, 11), (55, 13), (70, 18), (75, 20),
     (80, 21), (95, 26), (100, 28)],
)  # fmt: skip
def test_how_many_may_be_wrong(pairs, most):
    assert naive_p([True] * most + [False] * (pairs - most), [], 0.4, 1) <= 0.0125
    assert naive_p([True] * (most + 1) + [False] * (pairs - most - 1), [], 0.4, 1) > 0.0125


def test_a_pair_at_the_threshold_is_trusted():
    """The last threshold is one half, and a preference of one half is not below it."""
    preference = np.array([0.5] * 30 + [0.9] * 30)
    result = fit_trust_threshold(
        preference, np.ones(60, bool), np.arange(60), 0.6, 0.9,
        thresholds=thresholds_of(preference), largest=1,
    )  # fmt: skip
    assert (result.threshold, result.coverage, result.observed) == (0.5, 1.0, 1.0)


def test_a_pair_at_a_threshold_is_tested():
    """Without the wrong pairs at exactly one half the test of all would pass."""
    preference = np.array([0.5] * 30 + [0.9] * 30)
    result = fit_trust_threshold(
        preference, preference > 0.5, np.arange(60), 0.6, 0.9,
        thresholds=thresholds_of(preference), largest=1,
    )  # fmt: skip
    assert result.threshold == pytest.approx(0.7)
    assert result.coverage == 0.5


def test_no_gold_has_no_threshold():
    nothing = np.empty(0)
    result = fit_trust_threshold(
        nothing, nothing.astype(bool), nothing.astype(int), 0.9, 0.95,
        thresholds=np.full(20, 0.5), largest=1,
    )  # fmt: skip
    assert (result.threshold, result.coverage, result.observed, result.pairs) == (
        None,
        0.0,
        None,
        0,
    )


def test_thresholds_that_nothing_reaches_prove_nothing():
    preference = np.full(50, 0.6)
    for largest in (1, 2):
        result = fit_trust_threshold(
            preference, np.ones(50, bool), np.arange(50) // largest, 0.6, 0.9,
            thresholds=np.full(20, 0.9), largest=largest,
        )  # fmt: skip
        assert (result.threshold, result.coverage, result.observed) == (None, 0.0, None)


def test_confidence_is_of_the_side_that_is_named():
    assert confidence_of(np.array([0.0, 0.25, 0.5, 1.0])).tolist() == [1.0, 0.75, 0.5, 1.0]


def test_thresholds_of_one_and_of_twenty_pairs():
    assert thresholds_of(np.array([0.9])).tolist() == [0.5] * 20
    # Certainties 0.99, 0.97, ...: each threshold is halfway to the next, and the last is one half.
    preference = np.array([0.99 - 0.02 * k for k in range(20)])
    result = thresholds_of(preference[::-1])
    assert result[:19] == pytest.approx([0.98 - 0.02 * k for k in range(19)])
    assert result[19] == 0.5


def test_thresholds_of_30_pairs_take_whole_pairs():
    # 5% of 30 are 1.5: two pairs. 10% are three, 15% are 4.5: five.
    preference = np.linspace(0.99, 0.6, 30)
    gaps = (preference[:-1] + preference[1:]) / 2
    assert thresholds_of(preference)[:3] == pytest.approx(gaps[[1, 2, 4]])


@pytest.mark.parametrize(
    ("wrong", "groups", "risk", "largest"),
    [
        ([0, 0, 0, 0, 0], [0, 0, 1, 1, 2], 0.1, 2),
        ([0] * 30, [k // 3 for k in range(30)], 0.5, 3),
        ([1] + [0] * 29, [k // 3 for k in range(30)], 0.5, 3),
        ([1, 1, 1] + [0] * 27, [k // 3 for k in range(30)], 0.4, 3),
        ([0] * 12, [2, 2, 2, 5, 5, 5, 8, 8, 8, 9, 9, 9], 0.3, 4),
        ([1], [0], 0.3, 2),
    ],
)
def test_a_p_value_equals_its_naive_twin(wrong, groups, risk, largest):
    result = p_value(np.array(wrong, bool), np.array(groups), risk, largest)
    assert result == pytest.approx(naive_p(wrong, groups, risk, largest), rel=1e-12)
    assert 0 < result <= 1


def test_one_pair_per_instruction_is_the_binomial_tail():
    wrong = np.array([True] + [False] * 9)
    assert p_value(wrong, np.arange(10), 0.5, 1) == pytest.approx(11 / 1024)
    assert p_value(wrong[:0], np.arange(0), 0.5, 1) == 1.0
    assert p_value(wrong[:0], np.arange(0), 0.5, 2) == 1.0


@pytest.mark.parametrize(
    ("successes", "trials", "tail"), [(0, 0, 1.0), (0, 1, 0.7), (1, 1, 1.0), (0, 2, 0.49),
                                      (1, 2, 0.91), (2, 2, 1.0), (3, 2, 1.0)],
)  # fmt: skip
def test_binomial_tails_by_hand(successes, trials, tail):
    assert binomial_tail(successes, trials, 0.3) == pytest.approx(tail)


def test_binomial_tails_are_probabilities():
    tails = [binomial_tail(n - 1, n, p) for n in range(1, 200) for p in (0.001, 0.3, 0.5)]
    assert max(tails) <= 1.0


@pytest.mark.parametrize("agreement", [0.5, 0.75, 0.9])
@pytest.mark.parametrize("sizes", [[3], [1, 3], [2, 2, 2]])
@pytest.mark.parametrize("confidence", [0.0, 0.5, 0.9, 0.99])
def test_instructions_needed_equal_their_naive_twin(agreement, sizes, confidence):
    """The least number of instructions, of these sizes in turn, whose p-value is small enough."""
    risk, level = 1 - agreement, (1 - confidence) / 4
    bets = [number / 20 / agreement for number in range(1, 21)]

    def wealth(number):
        growth = [
            math.prod((1 + bet * risk * size / 3) ** (number / len(sizes)) for size in sizes)
            for bet in bets
        ]
        return sum(growth) / 20

    number = 1
    while wealth(number) < 1 / level:
        number += 1
    assert instructions_needed(np.array(sizes), agreement, confidence, 3) == number


def test_instructions_needed_of_one_pair_by_hand():
    # 0.5 ** 5 = 0.031 is above 0.1 / 4 = 0.025, and 0.5 ** 6 = 0.016 is not.
    assert instructions_needed(np.array([1]), 0.5, 0.9, 1) == 6
    assert instructions_needed(np.array([1]), 0.9, 0.95, 1) == 42


def test_no_pairs_have_no_thresholds():
    assert thresholds_of(np.empty(0)).tolist() == []
    assert coverage_risk(np.empty(0), np.empty(0, bool)) == []


def test_coverage_and_risk_of_one_pair():
    assert coverage_risk(np.array([0.2]), np.array([False])) == [
        {"coverage": 1.0, "threshold": 0.8, "risk": 1.0}
    ]


def test_coverage_and_risk_by_hand():
    # Certainties 0.9, 0.8, 0.8, 0.6, the second of the equal ones wrong.
    curve = coverage_risk(np.array([0.6, 0.2, 0.9, 0.8]), np.array([True, True, True, False]))
    assert curve == [
        {"coverage": 0.25, "threshold": 0.9, "risk": 0.0},
        {"coverage": 0.75, "threshold": 0.8, "risk": pytest.approx(1 / 3)},
        {"coverage": 1.0, "threshold": 0.6, "risk": 0.25},
    ]
