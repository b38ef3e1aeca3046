"""The metrics as formulas over sums; docs/calibration.md has their equations and sources.

All take sums [..., WIDTH] and return values [...], NaN where the sums leave a metric undefined.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from steelyard.core.schemas import Float64
from steelyard.evaluation.metrics.pairs import TIE
from steelyard.evaluation.metrics.sums import block

Metric = Callable[[Float64], Float64]
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _ratio(numerator: Float64, denominator: Float64) -> Float64:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(denominator > 0, numerator / denominator, np.nan))


def mean_of(name: str) -> Metric:
    """Return the metric that is the mean of a block of (number, sum)."""
    return lambda sums: _ratio(block(sums, name)[..., 1], block(sums, name)[..., 0])


def _confusion(sums: Float64) -> Float64:
    cells = block(sums, "confusion")
    return cells.reshape(*cells.shape[:-1], 3, 3)


def agreement(sums: Float64) -> Float64:
    """Return the share of pairs whose verdict names the class that gold names."""
    cells = _confusion(sums)
    return _ratio(np.trace(cells, axis1=-2, axis2=-1), cells.sum(axis=(-2, -1)))


def decided_agreement(sums: Float64) -> Float64:
    """Return the agreement where verdict and gold both name a side: one half is chance."""
    cells = _confusion(sums)[..., :TIE, :TIE]
    return _ratio(np.trace(cells, axis1=-2, axis2=-1), cells.sum(axis=(-2, -1)))


def macro_f1(sums: Float64) -> Float64:
    """Average F1 over those of the three classes that gold or verdicts name."""
    cells = _confusion(sums)
    hits = np.diagonal(cells, axis1=-2, axis2=-1)
    named = cells.sum(axis=-1) + cells.sum(axis=-2)
    scores = np.where(named > 0, 2 * hits / np.maximum(named, 1), 0)
    return _ratio(scores.sum(axis=-1), (named > 0).sum(axis=-1))


def chance(sums: Float64) -> Float64:
    """Return how often verdicts and gold would agree if one knew nothing of the other."""
    cells = _confusion(sums)
    total = cells.sum(axis=(-2, -1))
    return _ratio((cells.sum(axis=-1) * cells.sum(axis=-2)).sum(axis=-1), total**2)


def kappa(sums: Float64) -> Float64:
    """Return Cohen's kappa between verdicts and gold."""
    return _ratio(agreement(sums) - chance(sums), 1 - chance(sums))


def _gaps(sums: Float64, name: str) -> tuple[Float64, Float64, Float64]:
    """Return each bin's share of pairs (0 if empty), |mean p - mean y| and mean y."""
    bins = block(sums, name)
    number = bins[..., 0]
    inside = np.maximum(number, 1)
    total = number.sum(axis=-1, keepdims=True)
    outcome = bins[..., 2] / inside
    return _ratio(number, total), np.abs(bins[..., 1] - bins[..., 2]) / inside, outcome


def ece(name: str) -> Metric:
    """Return the expected calibration error over the bins of a block, as a metric."""

    def value(sums: Float64) -> Float64:
        share, gap, _ = _gaps(sums, name)
        return np.asarray((share * gap).sum(axis=-1))

    return value


def ece_debiased(name: str) -> Metric:
    """Return the ECE over the bins of a block less what chance adds to it (Kumar et al. 2019).

    Within a bin the mean outcome is taken as normal around what was seen; the mean of |normal| has
    a closed form, so nothing is sampled. At least 0.
    """

    def value(sums: Float64) -> Float64:
        share, gap, outcome = _gaps(sums, name)
        number = np.maximum(block(sums, name)[..., 0], 1)
        spread = np.sqrt(np.maximum(outcome * (1 - outcome), 0) / number)
        scaled = gap / np.where(spread > 0, spread, 1)
        normal = np.sqrt(2 / np.pi) * np.exp(-(scaled**2) / 2)
        folded = spread * normal + gap * _erf(scaled / 2**0.5)
        error = (share * (2 * gap - np.where(spread > 0, folded, gap))).sum(axis=-1)
        return np.asarray(np.where(error < 0, 0, error))

    return value


def reliability(sums: Float64) -> Float64:
    """Return Murphy's (1973) first term: mean squared distance of bins' mean p to outcomes."""
    share, gap, _ = _gaps(sums, "bins_preference")
    return np.asarray((share * gap**2).sum(axis=-1))


def resolution(sums: Float64) -> Float64:
    """Return Murphy's second term: how far bins' outcomes are from their mean; more is better."""
    share, _, outcome = _gaps(sums, "bins_preference")
    base = mean_of("binary")(sums)[..., None]
    return np.asarray((share * (outcome - base) ** 2).sum(axis=-1))


def uncertainty(sums: Float64) -> Float64:
    """Return Murphy's third term: the variance of outcomes, which no judge can change."""
    base = mean_of("binary")(sums)
    return base * (1 - base)


def within_bins(sums: Float64) -> Float64:
    """Return the Brier score less Murphy's terms, due to binning (Stephenson et al. 2008)."""
    return np.asarray(
        mean_of("brier")(sums) - reliability(sums) + resolution(sums) - uncertainty(sums)
    )


def auc(sums: Float64) -> Float64:
    """Return the area under the ROC curve, on gold without ties (`sums._auc`)."""
    number_a, ranks_a, number_b, ranks_b, area = np.moveaxis(block(sums, "auc"), -1, 0)
    whole = _ratio(area, block(sums, "pairs")[..., 0])
    return _ratio(ranks_a, number_a) + _ratio(ranks_b, number_b) - whole


def annotators_chance(sums: Float64) -> Float64:
    """Return how often two annotators would agree if votes were drawn from all votes."""
    votes = block(sums, "annotators")[..., 2:]
    return np.asarray((_ratio(votes, votes.sum(axis=-1, keepdims=True)) ** 2).sum(axis=-1))


def fleiss_kappa(sums: Float64) -> Float64:
    """Return annotators' agreement above chance (Fleiss 1971), for any number of votes per pair."""
    by_chance = annotators_chance(sums)
    return _ratio(mean_of("annotators")(sums) - by_chance, 1 - by_chance)


METRICS: dict[str, Metric] = {
    "mse": mean_of("squared"),
    "vote_log_loss": mean_of("vote_loss"),
    "agreement": agreement,
    "decided_agreement": decided_agreement,
    "vote_agreement": mean_of("vote_share"),
    "macro_f1": macro_f1,
    "kappa": kappa,
    "share_a": mean_of("binary"),
    "log_loss": mean_of("log_loss"),
    "brier": mean_of("brier"),
    "reliability": reliability,
    "resolution": resolution,
    "uncertainty": uncertainty,
    "within_bins": within_bins,
    "ece": ece("bins_preference"),
    "ece_confidence": ece("bins_confidence"),
    "ece_debiased": ece_debiased("bins_mass"),
    "auc": auc,
    "both_orders": mean_of("both_orders"),
    "consistency": mean_of("consistent"),
    "mean_deviation": mean_of("deviation"),
    "first_position": mean_of("first"),
    "longer_preferred": mean_of("longer"),
    "longer_gold": mean_of("longer_gold"),
    "mass_shortfall": mean_of("shortfall"),
    "annotator_agreement": mean_of("annotators"),  # of two annotators of a pair
    "fleiss_kappa": fleiss_kappa,
}
# Calibration errors by their bins: sampling error only adds to them, so replicates lie too high.
ECE_BINS = {
    "ece": "bins_preference",
    "ece_confidence": "bins_confidence",
    "ece_debiased": "bins_mass",
}
