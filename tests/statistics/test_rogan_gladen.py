"""Rogan and Gladen's correction: the authors' numbers, a confusion matrix by hand, coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steelyard.statistics.intervals import t_quantile
from steelyard.statistics.means import decided
from steelyard.statistics.rogan_gladen import JudgedShare, rogan_gladen
from support.labelled_data import JUDGES, labels_and_preferences

NORMAL = 1.959963984540054
# point_estimator and confidence_interval of github.com/UW-Madison-Lee-Lab/LLM-judge-reporting, for
# p, specificity, sensitivity, n, m0, m1.
PUBLISHED = [
    ((0.4, 0.7, 0.9, 1000, 200, 200),
     (0.1666666666666668, 0.05635072484160894, 0.2627330257859588)),
    ((0.62, 0.91, 0.83, 350, 40, 60),
     (0.7162162162162162, 0.599481648647535, 0.8513778361520361)),
    ((0.97, 0.6, 0.99, 120, 15, 85), (0.9661016949152542, 0.8723165783170563, 1.0)),
    ((0.05, 0.95, 0.7, 2000, 300, 30), (0.0, 0.0, 0.0379456257608065)),
    ((0.5, 0.55, 0.5, 400, 20, 20), (1.0, 0.0, 1.0)),
    ((0.0, 1.0, 0.8, 50, 10, 10), (0.0, 0.0, 0.1309287828274872)),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), PUBLISHED)
def test_equals_the_authors_numbers(given, expected):
    p, specificity, sensitivity, n, m0, m1 = given
    share = JudgedShare(p, n, specificity, m0, sensitivity, m1)
    assert (share.corrected, *share.interval(NORMAL)) == pytest.approx(expected, abs=1e-9)


def independent(label, decision, gold, quantile):
    """The same by other means: a confusion matrix, its inverse, derivatives by complex steps."""
    shares = np.array([decision[~gold].mean(), 1 - decision[~gold].mean()])
    wins, losses = label[gold].sum(), (1 - label[gold]).sum()
    matrix = np.array([
        [(label * decision)[gold].sum() / wins, ((1 - label) * decision)[gold].sum() / losses],
        [(label * (1 - decision))[gold].sum() / wins,
         ((1 - label) * (1 - decision))[gold].sum() / losses],
    ])  # fmt: skip
    theta = np.linalg.solve(matrix, shares)[0]
    n, square = (~gold).sum(), quantile**2
    moved = np.array([
        (n * shares[0] + square / 2) / (n + square),
        (losses * matrix[1, 1] + 1) / (losses + 2),
        (wins * matrix[0, 0] + 1) / (wins + 2),
    ])  # fmt: skip
    counts = np.array([n + square, losses + 2, wins + 2])

    def solved(x):
        return (x[0] + x[1] - 1) / (x[1] + x[2] - 1)

    step = 1e-30
    slopes = np.array([solved(moved + 1j * h).imag / step for h in np.eye(3) * step])
    variances = moved * (1 - moved) / counts
    middle = solved(moved)
    shift = 2 * square * (middle * variances[2] - (1 - middle) * variances[1])
    half = quantile * math.sqrt(slopes**2 @ variances)
    return np.clip([theta, middle + shift - half, middle + shift + half], 0, 1)


@pytest.mark.parametrize("judge", JUDGES)
def test_equals_a_matrix_inverse_on_real_judges(judge):
    label, preference = labels_and_preferences(judge)
    label, decision = decided(label), decided(preference)
    gold = np.random.default_rng(1).random(len(label)) < 0.4
    known = np.where(gold, label, np.nan)
    ours = rogan_gladen(known, decision, np.arange(len(label)))
    quantile = t_quantile(0.95, gold.sum() - 1)
    expected = independent(label, decision, gold, quantile)
    assert (ours.value, ours.lower, ours.upper) == pytest.approx(expected, abs=1e-9)


def test_by_hand():
    """20 labels for a win, 18 of them seen; 20 for a loss, 15 seen; 50 wins among 100 others."""
    label = np.concatenate([np.ones(20), np.zeros(20), np.full(100, np.nan)])
    decision = np.concatenate([
        np.ones(18), np.zeros(2), np.ones(5), np.zeros(15), np.ones(50), np.zeros(50)
    ])  # fmt: skip
    ours = rogan_gladen(label, decision, np.arange(140))
    assert (ours.sensitivity, ours.specificity) == (0.9, 0.75)
    assert ours.value == pytest.approx((0.5 + 0.75 - 1) / (0.9 + 0.75 - 1))
    assert ours.lower < ours.value < ours.upper


def test_copies_count_once():
    """Every instruction twice: the design effect of two undoes the doubled numbers."""
    rng = np.random.default_rng(2)
    label = (rng.random(200) < 0.7).astype(float)
    decision = np.where(rng.random(200) < 0.8, label, 1 - label)
    known = np.where(np.arange(200) < 80, label, np.nan)
    once = rogan_gladen(known, decision, np.arange(200))
    twice = rogan_gladen(np.tile(known, 2), np.tile(decision, 2), np.tile(np.arange(200), 2))
    heavy = rogan_gladen(known, decision, np.arange(200), np.full(200, 3.0))
    for other in (twice, heavy):
        assert (other.lower, other.upper) == pytest.approx((once.lower, once.upper))


def test_no_number_for_a_coin_or_one_outcome():
    known = np.concatenate([np.tile([0.0, 1.0], 10), np.full(20, np.nan)])
    assert rogan_gladen(known, np.tile([1.0, 0.0], 20), np.arange(40)) is None
    assert rogan_gladen(known, np.ones(40), np.arange(40)) is None
    assert rogan_gladen(np.where(known == 0, 1, known), np.ones(40), np.arange(40)) is None
    right = np.nan_to_num(known, nan=1.0)
    assert rogan_gladen(known, right, np.arange(40)).value == 1
    assert rogan_gladen(known[11:], right[11:], np.arange(29)) is None  # nine labels
