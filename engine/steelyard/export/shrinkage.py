"""What noise adds to the claims of selected pairs, and how it is taken away.

The best of many noisy measurements is best partly by luck: the winner's curse. The log-odds of a
verdict on responses i and j are taken as scale x (t_i - t_j + e), where strengths t and noise e
are normal with mean 0. Given all verdicts on an instruction, strengths have a normal posterior,
whose mean is a ridge regression. Unlike the verdicts, it needs no correction for the choice of a
pair (Efron, "Tweedie's formula and selection bias", JASA 2011).

The only unknown is the signal, the share of t_i - t_j in the variance of log-odds. It follows from
how much verdicts on the same responses contradict each other or, where they cannot, from how much
the two orders do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Float64
from steelyard.statistics.logistic import sigmoid

FEWEST = 30  # contradictions, or pairs read in both orders, from which noise is estimated
LEAST_SIGNAL = 0.02


@dataclass(slots=True)
class NoiseSums:
    """Sums over verdicts, from which the noise is estimated; `l` are exported log-odds."""

    verdicts: int = 0
    square: float = 0.0  # of l
    residual: float = 0.0  # squares of what strengths do not explain
    freedom: int = 0  # verdicts beyond those that strengths need
    orders: int = 0  # verdicts with both orders
    gap: float = 0.0  # halves of the difference between the logits of both orders
    gap_square: float = 0.0
    raw_square: float = 0.0  # of raw log-odds
    cross: float = 0.0  # l x raw log-odds
    decided: bool = True  # whether all preferences are 0, 0.5 or 1

    def add(
        self,
        preference: Float64,
        log_odds: tuple[Float64, Float64],
        gaps: Float64,
        fitted: Float64,
        unknowns: int,
    ) -> None:
        """Add m verdicts.

        Args:
            preference: m, in [0, 1].
            log_odds: m exported ones, and m raw ones.
            gaps: m, half of logit(preference_ab) - logit(preference_ba); NaN where it is unknown.
            fitted: m, the differences of least-squares strengths.
            unknowns: strengths that were fitted, less one for each component.
        """
        exported, raw = log_odds
        known = gaps[np.isfinite(gaps)]
        self.verdicts += len(exported)
        self.square += float(exported @ exported)
        self.residual += float(np.sum((exported - fitted) ** 2))
        self.freedom += len(exported) - unknowns
        self.orders += len(known)
        self.gap += float(known.sum())
        self.gap_square += float(known @ known)
        self.raw_square += float(raw @ raw)
        self.cross += float(exported @ raw)
        self.decided &= bool(np.isin(preference, (0.0, 0.5, 1.0)).all())


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """How strengths are estimated from noisy log-odds."""

    signal: float  # share of the log-odds' variance that is not noise, in (0, 1]
    scale: float  # log-odds of a verdict per unit of strength
    noise: float  # variance of the noise, in units of strength
    source: str  # what the noise was measured by: "verdicts" or "orders"

    @property
    def ridge(self) -> float:
        """Variance of the noise over that of strengths."""
        return 2 * (1 - self.signal) / self.signal

    def probability(self, difference: Float64, variance: Float64) -> Float64:
        """Return P(better) of n differences of strengths, with the variances of their errors.

        The mean of a sigmoid over a normal variable, as MacKay (1992) approximates it.
        """
        return sigmoid(difference / np.sqrt(1 + math.pi / 8 * variance))


def estimate_noise(sums: NoiseSums, *, calibrated: bool) -> Shrinkage | None:
    """Return how to shrink; None where the noise is unknown.

    It is unknown where too few verdicts could contradict each other, or where they are decisions
    without probabilities. The scale of calibrated log-odds is such that a verdict alone keeps its
    probability. Raw ones are taken at their word, but for the noise.
    """
    if sums.decided or not sums.square:
        return None
    variance = float(
        f"{sums.square / sums.verdicts:.9g}"
    )  # the same in whatever order sums are made
    if sums.freedom >= FEWEST:
        noise, source = sums.residual / sums.freedom, "verdicts"
    elif sums.orders >= FEWEST:
        spread = (sums.gap_square - sums.gap**2 / sums.orders) / (sums.orders - 1)
        slope = sums.cross / sums.raw_square if sums.raw_square else 0.0
        noise, source = slope**2 * spread, "orders"
    else:
        return None
    signal = round(min(max(1 - noise / variance, LEAST_SIGNAL), 1.0), 9)
    total = variance  # of strengths' differences and noise
    if calibrated:
        # A verdict alone: log-odds = signal x difference / sqrt(1 + pi/8 variance of its error),
        # and that variance is signal (1 - signal) total.
        error = math.pi / 8 * signal * (1 - signal)
        total = variance / max(signal**2 - error * variance, signal**2 / 4)
    scale = math.sqrt(variance / total)
    return Shrinkage(signal, scale, (1 - signal) * total, source)
