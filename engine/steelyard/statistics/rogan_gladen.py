"""Rates corrected for how often a judge errs in either direction, with both errors estimated.

A judge says "wins" in p of the rows without gold; gold shows how often it says so where gold does
(sensitivity) and how often it says "loses" where gold does (specificity). Then

    theta = (p + specificity - 1) / (sensitivity + specificity - 1)

is the rate by gold (Rogan and Gladen, American Journal of Epidemiology 107, 1978). Where a
prediction-powered mean needs gold to be a random sample, this needs the judge to err as often among
the others as on gold of the same outcome, whatever the share of wins in gold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Float64
from steelyard.statistics.clusters import Codes
from steelyard.statistics.intervals import t_quantile
from steelyard.statistics.prediction_powered import enough_gold


@dataclass(frozen=True, slots=True)
class JudgedShare:
    """What a judge says and how often it is right, each with its number of observations."""

    wins: float  # share of "wins" among the rows without gold
    rows: float
    specificity: float
    losses: float  # labels for a loss
    sensitivity: float
    gains: float  # labels for a win

    @property
    def corrected(self) -> float:
        """Theta, kept in [0, 1]; the judge has to be better than a coin."""
        theta = (self.wins + self.specificity - 1) / (self.sensitivity + self.specificity - 1)
        return min(max(theta, 0.0), 1.0)

    def interval(self, quantile: float) -> tuple[float, float]:
        """Return bounds of theta in [0, 1] (Lee et al., arXiv 2511.21140).

        They are Lang and Reiczigel's (Preventive Veterinary Medicine 113, 2014): the delta method
        after each share was moved towards a half, plus a correction of the middle.

        Args:
            quantile: standard errors to either side, such as 1.96.

        Returns:
            Both bounds; 0 and 1 if the moved shares are those of a coin.
        """
        square = quantile**2
        p = (self.rows * self.wins + square / 2) / (self.rows + square)
        specificity = (self.losses * self.specificity + 1) / (self.losses + 2)
        sensitivity = (self.gains * self.sensitivity + 1) / (self.gains + 2)
        better = sensitivity + specificity - 1
        if better <= 0:
            return 0.0, 1.0
        theta = (p + specificity - 1) / better
        of_losses = specificity * (1 - specificity) / (self.losses + 2)
        of_gains = sensitivity * (1 - sensitivity) / (self.gains + 2)
        middle = theta + 2 * square * (theta * of_gains - (1 - theta) * of_losses)
        variance = p * (1 - p) / (self.rows + square)
        variance += (1 - theta) ** 2 * of_losses + theta**2 * of_gains
        reach = quantile * math.sqrt(variance) / better
        return min(max(middle - reach, 0.0), 1.0), min(max(middle + reach, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class CorrectedRate:
    """A rate corrected for the judge's errors."""

    value: float
    lower: float
    upper: float
    sensitivity: float
    specificity: float


def rogan_gladen(
    label: Float64,
    decision: Float64,
    cluster: Codes,
    row_weight: Float64 | None = None,
    level: float = 0.95,
) -> CorrectedRate | None:
    """Correct the rate of wins by a judge's hard decisions.

    Labels and decisions may be halves: a tie is half a win and half a loss. Clusters enter as a
    design effect, at least 1, by which all three numbers of observations are divided.

    Args:
        label: [n], in [0, 1]; NaN where a row has no gold.
        decision: [n], the judge's: 1, 0, or 0.5 for a tie.
        cluster: [n]; rows of one cluster may depend on each other.
        row_weight: [n], not negative; None: each is 1.
        level: of the interval.

    Returns:
        The rate; None with too little gold (`enough_gold`), gold of one outcome only,
            or a judge that does not beat a coin.
    """
    mass = np.ones(len(label)) if row_weight is None else row_weight
    has_gold = np.isfinite(label)
    win = np.where(has_gold, label, 0.0) * mass
    loss = np.where(has_gold, 1 - label, 0.0) * mass
    if not (enough_gold(has_gold, cluster) and win.any() and loss.any()):
        return None
    other = np.where(has_gold, 0.0, mass)
    wins, sensitivity = (float(part @ decision / part.sum()) for part in (other, win))
    specificity = float(loss @ (1 - decision) / loss.sum())
    if sensitivity + specificity <= 1:
        return None
    share = JudgedShare(
        wins, _count(other, mass), specificity, _count(loss, mass), sensitivity, _count(win, mass)
    )
    theta = share.corrected
    moved = other * (decision - wins) / other.sum()
    moved += (1 - theta) * loss * (1 - decision - specificity) / loss.sum()
    moved -= theta * win * (decision - sensitivity) / win.sum()
    _, codes = np.unique(cluster, return_inverse=True)
    sums = np.bincount(codes, weights=moved)
    alone = float(moved @ moved)
    design = max(float(sums @ sums) / alone, 1.0) if alone > 0 else 1.0
    effective = JudgedShare(
        wins, share.rows / design, specificity, share.losses / design,
        sensitivity, share.gains / design,
    )  # fmt: skip
    lower, upper = effective.interval(t_quantile(level, len(np.unique(cluster[has_gold])) - 1))
    return CorrectedRate(theta, lower, upper, sensitivity, specificity)


def _count(part: Float64, mass: Float64) -> float:
    """Return how many rows of weight 1 say as much as these parts of rows."""
    return float(part.sum() ** 2 / (part @ mass))
