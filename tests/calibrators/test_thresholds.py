"""Trust thresholds against a naive twin, and at their smallest sizes."""

import math

import numpy as np
import pytest

from steelyard.calibrators.abstention import (
    binomial_tail,
    confidence_of,
    coverage_risk,
    first_wealth,
    fit_trust_threshold,
    growth,
    instructions_needed,
    level_of,
    thresholds_of,
)


def tail(wrong, pairs, risk):
    return sum(math.comb(pairs, k) * risk**k * (1 - risk) ** (pairs - k) for k in range(wrong + 1))


def naive_bets(wrong, groups, risk, largest):
    """The mean over twenty bets of the product over instructions."""
    x = {}
    for is_wrong, instruction in zip(wrong, groups, strict=True):
        x[instruction] = x.get(instruction, 0.0) + (is_wrong - risk) / largest
    bets = [number / 20 / (1 - risk) for number in range(1, 21)]
    return sum(math.prod(max(1 - bet * value, 0.0) for value in x.values()) for bet in bets) / 20


def naive_rejects(wrong, groups, risk, largest, level):
    """Half of the stake on the exact test at half the level, where there is one, half on bets."""
    wealth = naive_bets(wrong, groups, risk, largest)
    if largest == 1:
        exact = tail(sum(wrong), len(wrong), risk) <= level / 2
        wealth = wealth / 2 + (1 / level if exact else 0)
    return wealth >= 1 / level * (1 - 1e-12)


def naive_threshold(certainty, agrees, groups, agreement, confidence, thresholds, largest):
    """Four sequences of tests: from a quarter, a half, three quarters and all of the pairs.

    The first rule has three quarters of the level.
    """
    passed = []
    for start in (4, 9, 14, 19):
        for threshold in thresholds[start:]:
            rows = [k for k, value in enumerate(certainty) if value >= threshold]
            if not naive_rejects([not agrees[k] for k in rows], [groups[k] for k in rows],
                                 1 - agreement, largest, (1 - confidence) * 0.75 / 4):  # fmt: skip
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
        # By binomial tails of risk 0.4 at level 0.0046875: 25 pairs may have 3 wrong ones, 30 may
        # have 4; 50 and 55 may have 10 and 12; 75 and 80 may have 18 and 20; 100 may have 27.
        (3, 25, 0.25),
        (10, 50, 0.5),
        (18, 75, 0.75),
        (27, 100, 1.0),
        (28, 100, None),
        (0, 100, 1.0),
        (0, 30, 0.35),  # 30 right ones, and 5 wrong ones of 35 are few enough: 6 may be
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
    [(25, 3), (30, 4), (35, 6), (40, 7), (50, 10), (55, 12), (75, 18), (80, 20), (100, 27)],
)
def test_how_many_may_be_wrong(pairs, most):
    level = 0.05 * 0.75 / 4
    assert naive_rejects([True] * most + [False] * (pairs - most), range(pairs), 0.4, 1, level)
    most += 1
    assert not naive_rejects([True] * most + [False] * (pairs - most), range(pairs), 0.4, 1, level)


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
        ([0, 1, 0, 0], [0, 1, 2, 3], 0.3, 1),
    ],
)
def test_the_growth_of_bets_equals_its_naive_twin(wrong, groups, risk, largest):
    wrong, groups = np.array(wrong, bool), np.array(groups)
    certainty = np.full(len(wrong), 0.8)
    logs = growth(certainty, wrong, groups, np.array([0.9, 0.7]), risk=risk, largest=largest)
    assert logs.shape == (2, 20)
    assert (logs[0] == 0).all()  # nothing is trusted
    naive = naive_bets(wrong.tolist(), groups.tolist(), risk, largest)
    assert np.exp(logs[1]).mean() == pytest.approx(naive, rel=1e-12)


def test_only_a_first_look_at_independent_pairs_has_an_exact_test():
    # 7 of 7 right at a risk of one half: 0.5 ** 7 is 0.0078, half of 0.02 is 0.01.
    certainty, wrong, thresholds = np.full(7, 0.8), np.zeros(7, bool), np.array([0.9, 0.7])
    wealth = first_wealth(certainty, wrong, thresholds, risk=0.5, level=0.02, largest=1)
    assert np.exp(wealth[:, 1:]).sum(axis=1) == pytest.approx([0.5, 0.5])
    assert np.exp(wealth[:, 0]) == pytest.approx([0, 50])
    wealth = first_wealth(certainty, wrong, thresholds, risk=0.5, level=0.02, largest=2)
    assert np.exp(wealth).sum(axis=1) == pytest.approx([1, 1])


def test_later_rules_have_what_is_left_of_the_level():
    levels = [4 * level_of(0.95, rule) for rule in range(1000)]
    # A quarter of 0.05 is 0.0125: a half, a sixth and a twelfth of that.
    assert levels[:4] == pytest.approx([0.0375, 0.00625, 0.0125 / 6, 0.0125 / 12])
    assert 0.0499 < sum(levels) < 0.05


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
    risk, level = 1 - agreement, (1 - confidence) * 0.75 / 4
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
    # Half of 0.1 x 0.75 / 4 is 0.0094: 0.5 ** 6 = 0.016 is above it, and 0.5 ** 7 = 0.008 is not.
    assert instructions_needed(np.array([1]), 0.5, 0.9, 1) == 7
    assert instructions_needed(np.array([1]), 0.9, 0.95, 1) == 51  # 0.9 ** 51 < 0.0047 < 0.9 ** 50


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
