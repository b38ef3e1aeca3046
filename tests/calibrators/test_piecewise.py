"""Curves through knots by hand, as numbers and as SQL."""

import duckdb
import msgspec
import numpy as np
import pytest

from steelyard.calibrators.features import Features
from steelyard.calibrators.piecewise import (
    CLOSEST,
    Histogram,
    PiecewiseLinear,
    histogram_bins,
    isotonic_knots,
)

LINE = PiecewiseLinear((0.0, 1.0, 3.0), (0.2, 0.4, 0.8))
STEPS = Histogram((0.0, 2.0), (0.1, 0.5, 0.9))


def both(curve, scores):
    """The preferences by NumPy, checked against those by SQL."""
    numbers = curve.preference(Features(np.array(scores, np.float64)))
    if len(scores):
        rows = ", ".join(f"({k}, {score!r}::DOUBLE)" for k, score in enumerate(scores))
        query = f"SELECT {curve.sql('x')} FROM (VALUES {rows}) AS t(k, x) ORDER BY k"
        with duckdb.connect() as connection:
            by_sql = [row[0] for row in connection.execute(query).fetchall()]
        assert by_sql == pytest.approx(numbers.tolist(), rel=1e-12)
    return numbers.tolist()


def test_a_line_is_straight_between_knots_and_level_outside():
    scores = [-9.0, 0.0, 0.5, 1.0, 2.0, 2.5, 3.0, 9.0]
    assert both(LINE, scores) == pytest.approx([0.2, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.8])
    assert both(LINE, []) == []


def test_a_line_through_two_knots():
    line = PiecewiseLinear((-1.0, 1.0), (0.25, 0.75))
    assert both(line, [-2.0, -1.0, 0.0, 0.5, 1.0, 2.0]) == [0.25, 0.25, 0.5, 0.625, 0.75, 0.75]


def test_a_line_of_one_knot_is_level():
    line = PiecewiseLinear((1.5,), (0.3,))
    assert both(line, [-1.0, 1.5, 4.0]) == [0.3, 0.3, 0.3]


@pytest.mark.parametrize("knots", [3, 4, 5, 8, 17])
def test_a_line_of_many_knots(knots):
    draw = np.random.default_rng(knots)
    x, y = np.sort(draw.normal(0, 3, knots)), draw.random(knots)
    line = PiecewiseLinear(tuple(x.tolist()), tuple(y.tolist()))
    scores = np.concatenate([x, (x[1:] + x[:-1]) / 2, draw.normal(0, 5, 50)])
    assert both(line, scores.tolist()) == pytest.approx(np.interp(scores, x, y).tolist(), rel=1e-12)


def test_a_score_on_an_edge_is_above_it():
    assert both(STEPS, [-1.0, 0.0, 1.0, 2.0, 3.0]) == [0.1, 0.5, 0.5, 0.9, 0.9]
    assert both(Histogram((), (0.4,)), [-1.0, 5.0]) == [0.4, 0.4]
    assert both(Histogram((1.0,), (0.4, 0.6)), [0.0, 1.0]) == [0.4, 0.6]
    many = Histogram(tuple(map(float, range(9))), tuple(k / 10 for k in range(10)))
    assert both(many, [k - 0.5 for k in range(10)]) == [k / 10 for k in range(10)]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ((), ()),
        ((0.0,), ()),
        ((0.0, 1.0), (0.5,)),
        ((1.0, 1.0), (0.2, 0.3)),
        ((1.0, 0.0), (0.2, 0.3)),
    ],
)
def test_knots_have_to_rise(x, y):
    with pytest.raises(ValueError, match="knots do not rise"):
        PiecewiseLinear(x, y)


@pytest.mark.parametrize(
    ("edges", "levels"),
    [((), ()), ((0.0,), (0.5,)), ((), (0.5, 0.6)), ((1.0, 1.0), (0.2, 0.3, 0.4))],
)
def test_edges_have_to_rise_between_their_levels(edges, levels):
    with pytest.raises(ValueError, match="edges do not rise"):
        Histogram(edges, levels)


@pytest.mark.parametrize(
    ("share", "fits"), [(0.0, True), (1.0, True), (-0.01, False), (1.01, False)]
)
def test_levels_are_shares(share, fits):
    records = {
        PiecewiseLinear: {"kind": "knots", "x": [0.0], "y": [share]},
        Histogram: {"kind": "bins", "edges": [], "levels": [share]},
    }
    for kind, record in records.items():
        if fits:
            assert msgspec.to_builtins(msgspec.convert(record, kind)) == {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in record.items()
            }
        else:
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert(record, kind)


def floats(*values):
    return np.array(values, dtype=np.float64)


def test_isotonic_regression_by_hand():
    # Pooled: 0 | (1 + 0) / 2 twice | 1; half a vote of 4 + 1 from certainty is 0.1.
    result = isotonic_knots(floats(3, 1, 0, 2), floats(1, 1, 0, 0), np.ones(4))
    assert result == PiecewiseLinear((0.0, 1.0, 2.0, 3.0), (0.1, 0.5, 0.5, 0.9))


def test_knots_inside_a_level_are_left_out():
    result = isotonic_knots(floats(*range(6)), floats(0, 0.5, 0.5, 0.5, 0.5, 1), np.ones(6))
    assert result.x == (0.0, 1.0, 4.0, 5.0)
    assert result.y == pytest.approx((0.5 / 7, 0.5, 0.5, 6.5 / 7))


@pytest.mark.parametrize("falling", [floats(1, 0), floats(0.5, 0.5), floats(0.75, 0.25)])
def test_what_does_not_rise_is_level(falling):
    result = isotonic_knots(floats(0, 1), falling, np.ones(2))
    assert result == PiecewiseLinear((0.0, 1.0), (0.5, 0.5))


def test_isotonic_regression_of_one_pair():
    # One vote: half of it of two from certainty. Three votes: 0.5 / 4.
    assert isotonic_knots(floats(2), floats(1), floats(1)) == PiecewiseLinear((2.0,), (0.75,))
    assert isotonic_knots(floats(2), floats(0), floats(3)) == PiecewiseLinear((2.0,), (0.125,))


def test_votes_weigh():
    # 1 with three votes and 0 with one: 3/4.
    result = isotonic_knots(floats(0, 1), floats(1, 0), floats(3, 1))
    assert result.y == pytest.approx((0.75, 0.75))


def test_scores_that_are_nearly_equal_are_one_knot():
    assert CLOSEST == 1e-6
    score = floats(5, 0, 0.9e-6, 1.8e-6, 5 + 1.5e-6)  # neighbours are near, the ends are not
    result = isotonic_knots(score, floats(1, 0, 0, 0.6, 1), floats(1, 1, 1, 2, 1))
    assert result.x == (0.0, 5.0, 5 + 1.5e-6)
    assert result.y == pytest.approx((1.2 / 4, 6.5 / 7, 6.5 / 7))
    exact = isotonic_knots(floats(0, 1e-6, 5), floats(0, 1, 1), np.ones(3))  # no farther is as near
    assert exact == PiecewiseLinear((0.0, 5.0), (0.5, 1 - 0.5 / 4))
    tiny = isotonic_knots(floats(0, 1e-6), floats(0, 1), np.ones(2))  # far apart on their own scale
    assert tiny == PiecewiseLinear((0.0, 1e-6), (0.5 / 3, 1 - 0.5 / 3))
    rounded = isotonic_knots(floats(0.7, 0.7 + 1e-15), floats(0, 1), np.ones(2))
    assert rounded == PiecewiseLinear((0.7,), (0.5,))


def test_a_histogram_by_hand():
    # 20 scores in ten bins of two, each with a vote more: (0.5 + votes for a) / 3.
    targets = np.repeat(np.arange(10) % 2, 2).astype(np.float64)
    shuffled = np.random.default_rng(0).permutation(20)
    result = histogram_bins(np.arange(20.0)[shuffled], targets[shuffled], np.ones(20))
    assert result.edges == tuple(2 * k + 1.5 for k in range(9))
    assert result.levels == pytest.approx([0.5 / 3, 2.5 / 3] * 5)


@pytest.mark.parametrize(
    ("targets", "weights", "edges", "levels"),
    [
        ([1.0], [1.0], (), [0.75]),  # (0.5 + 1) / 2
        ([0.0, 1.0], [3.0, 1.0], (0.5,), [0.5 / 4, 1.5 / 2]),
        ([0.0, 1.0, 0.5], [1.0] * 3, (0.5, 1.5), [0.25, 0.75, 0.5]),
    ],
)
def test_few_pairs_have_as_few_bins(targets, weights, edges, levels):
    result = histogram_bins(np.arange(float(len(targets))), np.array(targets), np.array(weights))
    assert result.edges == edges
    assert result.levels == pytest.approx(levels)


def test_equal_scores_share_a_bin():
    # Five at 0 and one at 1: the middles 2.5 and 5.5 of 6 are in the first and second half.
    result = histogram_bins(floats(0, 1, 0, 0, 0, 0), floats(1, 1, 0, 0, 0, 0), np.ones(6), bins=2)
    assert result == Histogram((0.5,), (1.5 / 6, 1.5 / 2))
    # Three at 0, one at 1, two at 2: the middles 1.5, 3.5 and 5 of 6 take two bins of three.
    result = histogram_bins(floats(0, 0, 0, 1, 2, 2), floats(0, 0, 0, 1, 1, 0), np.ones(6), bins=3)
    assert result.edges == (0.5, 1.5)
    assert result.levels == pytest.approx((0.5 / 4, 1.5 / 2, 1.5 / 3))


def test_bins_go_by_the_middle_of_equal_scores():
    # One at 0 and three at 1: the middles 0.5 and 2.5 of 4 are in different halves.
    result = histogram_bins(floats(0, 1, 1, 1), floats(0, 1, 1, 1), np.ones(4), bins=2)
    assert result == Histogram((0.5,), (0.25, 3.5 / 4))


def test_the_last_pair_is_in_the_last_bin():
    result = histogram_bins(floats(0, 1, 2, 3), floats(0, 0, 1, 1), np.ones(4), bins=2)
    assert result == Histogram((1.5,), (0.5 / 3, 2.5 / 3))
    one = histogram_bins(floats(0, 1, 2), floats(0, 1, 1), np.ones(3), bins=1)
    assert one == Histogram((), (2.5 / 4,))
