"""Drift against worked examples, and against a second form of each formula."""

import math

import numpy as np
import pytest

from steelyard.statistics.drift import Reference, effective_pairs, measure_drift

TEN = (np.arange(10) + 0.5) / 10  # 0.05, 0.15, ..., 0.95: one in each of ten equal bins


def spread(counts):
    """Values in ten equal bins, this many in each, none on an edge or on another bin's value."""
    parts = [k / 10 + (np.arange(n) + 0.5) / n / 10 for k, n in enumerate(counts) if n]
    return np.concatenate(parts)


def kolmogorov(distance, n, m):
    """P(a larger distance), by the other series (Jacobi's), with Stephens' correction."""
    size = math.sqrt(n * m / (n + m))
    x = distance * (size + 0.12 + 0.11 / size)
    terms = (math.exp(-(((2 * k - 1) * math.pi / x) ** 2) / 8) for k in range(1, 200))
    return 1 - math.sqrt(2 * math.pi) / x * sum(terms)


def naive_psi(old, new):
    old = sorted(old)
    places = [k / 10 * (len(old) - 1) for k in range(1, 10)]
    edges = sorted(
        {old[int(p)] + (p - int(p)) * (old[min(int(p) + 1, len(old) - 1)] - old[int(p)])
         for p in places}
    )  # fmt: skip
    counts = np.zeros((2, len(edges) + 1))
    for side, values in enumerate((old, new)):
        for value in values:
            counts[side, sum(edge < value for edge in edges)] += 1
    p, q = (row + 0.5 for row in counts)
    p, q = p / sum(p), q / sum(q)
    return sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))


def test_a_reference_is_all_of_few_pairs_or_500_quantiles_of_many():
    few = Reference.of(np.array([0.3, 0.9, 0.1]))
    assert few == Reference((0.1, 0.3, 0.9), 3, 3.0)
    assert Reference.of(np.array([0.7])) == Reference((0.7,), 1, 1.0)
    # Of 0 ... 999 the middles of 500 steps are 0.5, 2.5, ...: the first of each two.
    many = Reference.of(np.random.default_rng(0).permutation(1000).astype(np.float64))
    assert many == Reference(tuple(range(0, 1000, 2)), 1000, 1000.0)


def test_the_stability_index_by_hand():
    # Ten bins with one pair each, and half a pair added: 1.5 / 15. All ten scored pairs are in the
    # first: 10.5 / 15, the others 0.5 / 15. So 0.6 ln 7 + 9 (-1/15) ln(1/3) = 0.6 ln 21.
    result = measure_drift(Reference.of(TEN), np.full(10, 0.05))
    assert result.psi == pytest.approx(0.6 * math.log(21), rel=1e-12)


def test_the_stability_index_counts_the_pairs_of_the_reference_and_not_its_quantiles():
    # 1000 pairs in ten bins of 100, known by 500 quantiles; 20 scored pairs, all in the last bin.
    result = measure_drift(Reference.of((np.arange(1000) + 0.5) / 1000), np.full(20, 0.999))
    p, q = 100.5 / 1005, np.array([0.5 / 25] * 9 + [20.5 / 25])
    assert result.psi == pytest.approx(float(np.sum((q - p) * np.log(q / p))), rel=0.02)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 3), (2, 1), (2, 5), (3, 2), (12, 40), (200, 70)])
@pytest.mark.parametrize("digits", [1, 6])  # one digit: many ties
def test_both_measures_equal_their_naive_twins(sizes, digits):
    draw = np.random.default_rng(sizes)
    old, new = np.round(draw.random(sizes[0]), digits), np.round(draw.random(sizes[1]), digits)
    result = measure_drift(Reference.of(old), new)
    assert result.psi == pytest.approx(naive_psi(old, new), rel=1e-9, abs=1e-12)
    cuts = np.unique(old)
    naive = max(
        max(abs(np.mean(old < x) - np.mean(new < x)), abs(np.mean(old <= x) - np.mean(new <= x)))
        for x in cuts
    )
    assert result.ks == pytest.approx(naive, abs=1e-12)


@pytest.mark.parametrize("scored", [[2.0], [-1.0], [2.0, 2.0, 3.0], [-1.0, -1.0]])
def test_the_distance_of_separate_samples_is_one(scored):
    assert measure_drift(Reference.of(np.array([0.0, 1.0])), np.array(scored)).ks == 1.0


@pytest.mark.parametrize(
    ("n", "m", "above"),  # of m scored pairs, these are above the whole reference
    [(1, 1, 1), (2, 3, 1), (4, 4, 2), (200, 200, 7), (200, 200, 27), (200, 200, 33), (600, 90, 12)],
)
def test_the_p_value_by_the_other_series(n, m, above):
    old = np.sort(np.random.default_rng(0).random(n))
    new = np.concatenate([np.full(m - above, -1.0), np.full(above, 2.0)])
    result = measure_drift(Reference.of(old), new)
    assert result.p_value == pytest.approx(kolmogorov(result.ks, n, m), rel=1e-6, abs=1e-12)
    # The same old pairs, of which a few move to the end.
    new = np.concatenate([np.resize(old, m)[: m - above], np.full(above, 2.0)])
    result = measure_drift(Reference.of(old), new)
    assert result.p_value == pytest.approx(kolmogorov(result.ks, n, m), rel=1e-6, abs=1e-12)


def test_p_values_of_tables():
    """0.10, 0.05 and 0.01 at 1.2238, 1.3581 and 1.6276 (Smirnov 1948)."""
    size = math.sqrt(100_000 / 2)
    for x, wanted in ((1.2238, 0.10), (1.3581, 0.05), (1.6276, 0.01)):
        share = x / (size + 0.12 + 0.11 / size)
        moved = round(share * 100_000)
        old = np.arange(500.0)
        new = np.concatenate([np.full(moved, -1.0), np.repeat(old, 200)[: 100_000 - moved]])
        result = measure_drift(Reference(tuple(old), 100_000), new)
        assert result.ks == pytest.approx(moved / 100_000, rel=1e-9)
        assert result.p_value == pytest.approx(wanted, rel=0.01)


def test_equal_samples_have_no_distance():
    result = measure_drift(Reference.of(TEN), TEN)
    assert (result.psi, result.ks, result.p_value, result.drifted) == (0.0, 0.0, 1.0, False)


def test_p_values_are_probabilities():
    old = Reference.of(np.arange(0.5, 400))
    for moved in range(60):  # x from 0 to 2
        new = np.concatenate([np.full(moved, -1.0), np.arange(0.5, 400 - moved)])
        assert 0.0 <= measure_drift(old, new).p_value <= 1.0


EVEN = Reference.of(spread([100] * 10))


def test_an_index_above_its_limit_is_drift_without_a_distance():
    # The distance is 0.06, the index 0.3 ln(1.6 / 0.4), and no chance of 2000 pairs.
    result = measure_drift(EVEN, spread([160, 40] * 5))
    assert result.ks == pytest.approx(0.06, abs=0.003)
    assert result.psi == pytest.approx(0.3 * math.log(4), rel=0.05)
    assert result.drifted
    # 0.15 ln(1.3 / 0.7) = 0.093 is below the limit.
    assert not measure_drift(EVEN, spread([130, 70] * 5)).drifted


def test_an_index_between_the_limit_and_twice_the_limit_is_drift():
    # Five bins of 0.15 and of 0.05: 5 x 0.05 (ln 1.5 + ln 2) = 0.25 ln 3 = 0.275; distance 0.05.
    result = measure_drift(EVEN, spread([150, 50] * 5))
    assert result.psi == pytest.approx(0.25 * math.log(3), rel=0.05)
    assert result.ks < 0.1
    assert result.drifted


def test_a_significant_distance_is_drift_with_a_small_index():
    # 12% of the pairs moved up by half: 0.12 (ln(1 / 0.76) + ln 1.24) = 0.059.
    moved = spread([380] * 5 + [620] * 5)
    result = measure_drift(EVEN, moved)
    assert result.ks == pytest.approx(0.12, abs=0.003)
    assert result.psi == pytest.approx(0.059, abs=0.002)
    assert result.p_value < 1e-4
    assert result.drifted
    # The same, of so few pairs that it is chance: p = 0.6.
    few = measure_drift(EVEN, spread([4] * 5 + [6] * 5))
    assert few.p_value > 0.5
    assert not few.drifted


@pytest.mark.parametrize(
    ("pairs", "low", "high", "drifted"), [(330, 0.01, 0.02, False), (420, 0.002, 0.01, True)]
)
def test_a_distance_has_to_be_significant_at_a_hundredth(pairs, low, high, drifted):
    half = pairs // 2
    moved = round(0.12 * pairs)
    old = np.concatenate([np.arange(half) / half, 1 + np.arange(half) / half])
    new = np.concatenate([np.zeros(half - moved), np.full(half + moved, 1.999)])
    new[: half - moved] = (np.arange(half - moved) + 0.5) / (half - moved)
    new[half - moved :] = 1 + (np.arange(half + moved) + 0.5) / (half + moved)
    result = measure_drift(Reference.of(old), new)
    assert result.psi < 0.2
    assert result.ks == pytest.approx(0.12, abs=0.01)
    assert low < result.p_value < high
    assert result.drifted is drifted


def test_a_distance_of_exactly_the_limit_is_none():
    # A tenth of 5000 pairs is below all others.
    new = np.concatenate([np.full(500, -1.0), np.repeat(np.asarray(EVEN.quantiles), 9)])
    result = measure_drift(EVEN, new)
    assert result.ks == 0.1
    assert result.p_value < 0.01
    assert result.psi < 0.2
    assert not result.drifted


@pytest.mark.parametrize(
    ("scored", "drifted"), [([8, 0] * 5, True), ([8, 0] * 2 + [7, 1] * 3, False)]
)
def test_few_pairs_need_a_larger_index(scored, drifted):
    """Chance alone reaches 21.67 (1/50 + 1/40) = 0.975 in a run of a hundred."""
    result = measure_drift(Reference.of(spread([5] * 10)), spread(scored))
    assert result.ks < 0.1 or result.p_value > 0.01
    assert 0.975 < result.psi < 1.4 if drifted else 0.6 < result.psi < 0.975
    assert result.drifted is drifted


def test_pairs_of_one_instruction_that_agree_count_once():
    """30 equal pairs per instruction say what one pair says; apart, they count as they are."""
    values = np.random.default_rng(0).random(40)
    groups = np.repeat(np.arange(40), 30)
    # The variance of a share over 40 instructions is p (1 - p) / 39; with 1199 in place of the
    # number of independent pairs less one, the design effect is 1199 / 39.
    effective = effective_pairs(np.repeat(values, 30), groups)
    assert effective == pytest.approx(1200 * 39 / 1199, rel=1e-9)
    assert effective_pairs(values, np.arange(40)) == 40.0
    assert effective_pairs(values, None) == 40.0
    assert effective_pairs(values, np.zeros(40, int)) == 1.0
    assert effective_pairs(np.full(40, 0.5), np.arange(40) // 2) == 20.0
    independent = np.random.default_rng(1).random(4000)
    assert 2800 < effective_pairs(independent, np.arange(4000) // 10) <= 4000


def test_instructions_are_what_the_test_counts():
    """Two draws of 40 instructions with 30 pairs that agree: an alarm in 3 of 10 cases before."""
    alarms = np.zeros(2)
    for seed in range(60):
        draw = np.random.default_rng(seed)
        groups = np.repeat(np.arange(40), 30)
        old, new = (np.repeat(draw.random(40), 30) for _ in range(2))
        alarms += [
            measure_drift(Reference.of(old), new).drifted,
            measure_drift(Reference.of(old, groups), new, groups).drifted,
        ]
    assert alarms[0] >= 20
    assert alarms[1] <= 3


def test_the_smallest_shift_that_is_noticed_by_hand():
    # 100 and 100 pairs count as 50: 1.6276 / (7.071 + 0.12 + 0.016) = 0.2258, and 0.8416 standard
    # deviations of 0.5 / 7.071 more are 0.2854.
    found = measure_drift(Reference.of(np.linspace(0, 1, 100)), np.linspace(0, 1, 100))
    assert found.smallest == pytest.approx(0.2854, abs=1e-4)
    assert not found.drifted
    many = np.linspace(0, 1, 10**6)
    # Below a distance of 0.1 a shift does not matter: 0.1 + 0.8416 x 0.5 / 707.
    assert measure_drift(Reference.of(many), many).smallest == pytest.approx(0.1006, abs=1e-4)
    one = measure_drift(Reference.of(np.array([0.5])), np.array([0.5]))
    assert one.smallest == 1.0


def test_an_earlier_versions_reference_counts_its_pairs():
    old = Reference((0.1, 0.9), 2)
    assert old.effective is None
    assert measure_drift(old, np.array([0.1, 0.9])).psi == 0.0


def test_shares_of_none_and_all_have_no_design_effect():
    # Two instructions of two pairs, whose shares below any threshold in (0, 1) are 1 and 0. Their
    # mean has the variance (1/2) / 2; of independent pairs it would be (1/4) / 3. The largest
    # preference is a decile as well, below which are all.
    hard = np.array([0.0, 0.0, 1.0, 1.0])
    assert effective_pairs(hard, np.array([4, 4, 7, 7])) == pytest.approx(4 / 3)
    assert effective_pairs(hard, np.arange(4)) == 4
    assert effective_pairs(np.full(4, 0.3), np.array([1, 1, 2, 2])) == 2
