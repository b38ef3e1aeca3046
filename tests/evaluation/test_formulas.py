"""Each metric from sums that are written down by hand; what they leave undefined is NaN."""

import math

import numpy as np
import pytest

from steelyard.evaluation.metrics import formulas
from steelyard.evaluation.metrics.formulas import ECE_BINS, METRICS
from steelyard.evaluation.metrics.sums import BLOCKS, SLICES, WIDTH


def row(**blocks):
    sums = np.zeros(WIDTH)
    for name, values in blocks.items():
        sums[SLICES[name]] = np.ravel(values)
    return sums


def bins(*cells):
    """(pairs, sum of p, sum of y) of the first bins; the others are empty."""
    table = np.zeros((10, 3))
    table[: len(cells)] = cells
    return table


EMPTY = row()


def value(metric, **blocks):
    """The metric of sums, which is the same alone and as a row among others."""
    sums = row(**blocks)
    alone = METRICS[metric](sums)
    rows = METRICS[metric](np.stack([EMPTY, sums, EMPTY]))
    assert rows.shape == (3,)
    assert np.isnan(rows[[0, 2]]).all(), "no pairs leave every metric undefined"
    cube = METRICS[metric](np.stack([[sums, EMPTY], [EMPTY, sums]]))
    assert cube.shape == (2, 2)
    assert METRICS[metric](np.empty((0, WIDTH))).shape == (0,)
    for same in (rows[1], cube[0, 0], cube[1, 1]):
        assert (same == alone) or (np.isnan(same) and np.isnan(alone))
    return float(alone)


# Predicted by gold: a, b, tie.
CELLS = [[5, 2, 1], [1, 4, 0], [2, 0, 3]]


def test_agreement_by_hand():
    assert value("agreement", confusion=CELLS) == pytest.approx(12 / 18)
    assert value("decided_agreement", confusion=CELLS) == pytest.approx(9 / 12)
    only_ties = [[0, 0, 4], [0, 0, 1], [2, 3, 5]]
    assert value("agreement", confusion=only_ties) == pytest.approx(5 / 15)
    assert math.isnan(value("decided_agreement", confusion=only_ties))
    half = [[0.25, 0, 0], [0.25, 0, 0], [0, 0, 0]]  # sums may be weighted
    assert value("agreement", confusion=half) == 0.5
    assert value("decided_agreement", confusion=half) == 0.5


@pytest.mark.parametrize(
    ("cells", "f1"),
    [
        # Of a 2 x 5 of 8 named and 8 gold, of b 2 x 4 of 5 + 6, of ties 2 x 3 of 5 + 4.
        (CELLS, (10 / 16 + 8 / 11 + 6 / 9) / 3),
        ([[3, 1, 0], [2, 4, 0], [0, 0, 0]], (6 / 9 + 8 / 11) / 2),  # nobody names ties
        ([[2, 0, 0], [0, 0, 0], [0, 0, 0]], 1.0),
        ([[0, 1, 0], [0, 0, 0], [0, 0, 0]], 0.0),  # one is named, the other is gold: twice 0
        ([[0, 0, 0], [0, 0, 0], [0, 0, 1]], 1.0),
        ([[1, 0, 0], [1, 0, 0], [0, 0, 0]], (2 / 3 + 0) / 2),
    ],
)
def test_macro_f1_by_hand(cells, f1):
    assert value("macro_f1", confusion=cells) == pytest.approx(f1)


def test_kappa_by_hand():
    # Named 8, 5, 5 and gold 8, 6, 4 of 18.
    chance = (8 * 8 + 5 * 6 + 5 * 4) / 18**2
    assert value("kappa", confusion=CELLS) == pytest.approx((12 / 18 - chance) / (1 - chance))
    # Named 4 and 6, gold 5 and 5 of 10.
    cells = [[3, 1, 0], [2, 4, 0], [0, 0, 0]]
    assert value("kappa", confusion=cells) == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert value("kappa", confusion=np.transpose(cells)) == pytest.approx(0.4)
    assert value("kappa", confusion=np.diag([3, 0, 3])) == 1.0
    assert value("kappa", confusion=[[0, 2, 0], [2, 0, 0], [0, 0, 0]]) == -1.0
    # All are one class: agreement is no better than chance, which is certain.
    assert math.isnan(value("kappa", confusion=np.diag([4, 0, 0])))


MEANS = {
    "mse": "squared", "vote_log_loss": "vote_loss", "vote_agreement": "vote_share",
    "share_a": "binary", "log_loss": "log_loss", "brier": "brier", "both_orders": "both_orders",
    "consistency": "consistent", "mean_deviation": "deviation", "first_position": "first",
    "longer_preferred": "longer", "longer_gold": "longer_gold", "mass_shortfall": "shortfall",
}  # fmt: skip


@pytest.mark.parametrize("metric", MEANS)
def test_means_are_sums_by_numbers(metric):
    assert value(metric, **{MEANS[metric]: [4, 3]}) == 0.75
    assert value(metric, **{MEANS[metric]: [0.5, 1]}) == 2.0
    assert math.isnan(value(metric, **{MEANS[metric]: [0, 0]}))
    others = {name: np.ones(size) for name, size in BLOCKS.items() if name != MEANS[metric]}
    assert math.isnan(METRICS[metric](row(**others)))


def test_what_is_undefined_is_nan_without_a_warning():
    assert math.isnan(formulas._ratio(np.array(1.0), np.array(0.0)))
    assert math.isnan(formulas._ratio(np.array(0.0), np.array(0.0)))
    assert math.isnan(formulas._ratio(np.array(1.0), np.array(-0.5)))
    assert formulas._ratio(np.array([1.0, 0.0]), np.array([0.5, 2.0])).tolist() == [2.0, 0.0]


# 4 pairs of mean 0.25 with 2 a's; 1 pair of 0.9, an a; 5 pairs of mean 0.6, with no a.
THREE = bins((4, 1, 2), (0, 0, 0), (1, 0.9, 1), (5, 3, 0))


def test_calibration_errors_by_hand():
    wanted = 0.4 * 0.25 + 0.1 * 0.1 + 0.5 * 0.6
    for metric, name in (("ece", "bins_preference"), ("ece_confidence", "bins_confidence")):
        assert value(metric, **{name: THREE}) == pytest.approx(wanted)
        assert ECE_BINS[metric] == name
        assert value(metric, **{name: bins((1, 0.25, 1))}) == 0.75
        assert value(metric, **{name: bins((2, 1, 1))}) == 0.0


def folded_normal(mean, deviation):
    """The mean of |x| for a normal x, by its closed form (Leone et al. 1961)."""
    z = mean / deviation
    return deviation * math.sqrt(2 / math.pi) * math.exp(-z * z / 2) + mean * math.erf(
        z / math.sqrt(2)
    )


def test_the_debiased_error_by_hand():
    # A bin's outcome varies by sqrt(y (1 - y) / n): 0.25 in the first bin, nothing in the others.
    first = 2 * 0.25 - folded_normal(0.25, 0.25)
    wanted = 0.4 * first + 0.1 * 0.1 + 0.5 * 0.6
    assert value("ece_debiased", bins_mass=THREE) == pytest.approx(wanted)
    # 16 pairs, 4 of them a's, of mean 0.5: 0.25 from an outcome that varies by 0.433 / 4.
    sixteen = bins((16, 8, 4))
    wanted = 2 * 0.25 - folded_normal(0.25, math.sqrt(0.25 * 0.75 / 16))
    assert value("ece_debiased", bins_mass=sixteen) == pytest.approx(wanted)
    # Without a distance the correction is all there is, and an error is not below 0.
    assert value("ece_debiased", bins_mass=bins((4, 2, 2))) == 0.0
    assert value("ece_debiased", bins_mass=bins((1, 0.25, 1))) == pytest.approx(0.75)
    assert value("ece_debiased", bins_mass=bins((1, 1, 1))) == 0.0


def test_a_tenth_of_a_million_pairs_is_hardly_corrected():
    certain = value("ece_debiased", bins_mass=bins((1e6, 5e5, 4e5)))
    assert certain == pytest.approx(0.1, abs=1e-6)


def test_murphys_terms_by_hand():
    blocks = {"bins_preference": THREE, "binary": [10, 3], "brier": [10, 2.5]}
    base = 0.3
    reliability = 0.4 * 0.25**2 + 0.1 * 0.1**2 + 0.5 * 0.6**2
    resolution = 0.4 * 0.2**2 + 0.1 * 0.7**2 + 0.5 * 0.3**2
    assert value("reliability", **blocks) == pytest.approx(reliability)
    assert value("resolution", **blocks) == pytest.approx(resolution)
    assert value("uncertainty", **blocks) == pytest.approx(base * 0.7)
    wanted = 0.25 - reliability + resolution - base * 0.7
    assert value("within_bins", **blocks) == pytest.approx(wanted)


def test_the_area_by_hand():
    # Three a's of ranks 0.5, 1, 1; two b's of ranks 1, 2/3. The area itself is 5/6.
    area = 2.5 / 3
    blocks = {"auc": [3, 2.5, 2, 5 / 3, 5 * area], "pairs": 5}
    assert value("auc", **blocks) == pytest.approx(area)
    # A resample in which an a counts twice: its mean rank changes, and that of the b's does not.
    again = {"auc": [4, 3.0, 2, 5 / 3, 6 * area], "pairs": 6}
    assert value("auc", **again) == pytest.approx(3 / 4 + area - area)
    assert math.isnan(value("auc", auc=[0, 0, 2, 1, 1], pairs=2))
    assert math.isnan(value("auc", auc=[2, 1, 0, 0, 1], pairs=2))


def test_fleiss_kappa_by_hand():
    # Two pairs of three votes: a a a, and a b tie. They agree in 1 and in 0 of the pairs of votes.
    blocks = {"annotators": [2, 1, 4, 1, 1]}
    chance = (16 + 1 + 1) / 36
    assert value("annotator_agreement", **blocks) == 0.5
    assert value("fleiss_kappa", **blocks) == pytest.approx((0.5 - chance) / (1 - chance))
    assert math.isnan(value("fleiss_kappa", annotators=[2, 2, 6, 0, 0]))  # chance is certain
    assert value("fleiss_kappa", annotators=[2, 2, 3, 3, 0]) == 1.0


def test_every_metric_is_here():
    tested = {*MEANS, "agreement", "decided_agreement", "macro_f1", "kappa", *ECE_BINS,
              "reliability", "resolution", "uncertainty", "within_bins", "auc",
              "annotator_agreement", "fleiss_kappa"}  # fmt: skip
    assert tested == set(METRICS)
