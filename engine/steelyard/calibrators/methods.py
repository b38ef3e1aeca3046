"""The methods of calibration by name: raw reads and gold -> a curve.

Every fit takes soft targets (shares of votes) and weighs a pair by its votes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.linear import TERMS, Linear
from steelyard.calibrators.piecewise import (
    Histogram,
    PiecewiseLinear,
    histogram_bins,
    isotonic_knots,
)
from steelyard.core.schemas import Float64
from steelyard.statistics.clustered_logistic import LogisticData, cluster_mean, fit_logistic
from steelyard.statistics.logistic import logit, sigmoid

Curve: TypeAlias = Linear | PiecewiseLinear | Histogram

FLATTEST, STEEPEST = 1e-3, 1e3  # of a temperature's slope: it never turns a preference round
HISTOGRAM_BINS = 10


@dataclass(frozen=True, slots=True)
class Method:
    """A way to fit a curve. Methods stand in METHODS from the simplest on."""

    fit: Callable[[Features, Gold], Curve]
    needs: tuple[str, ...] = ()  # fields of Features that have to be there
    learns: bool = True  # from gold; else a reference that `auto` shows and does not choose


def _regressed(features: Features, gold: Gold, names: tuple[str, ...]) -> Linear:
    constants, intervals = _constants(features, gold, names)
    terms = np.stack([TERMS[name].values(features, constants) for name in names], axis=1)
    prior = np.array([name in {"logit", "log_a", "log_b"} for name in names], dtype=np.float64)
    fit = fit_logistic(LogisticData(terms, gold.preference, gold.weights, gold.groups, prior))
    coefficients = dict(zip(names, fit.coefficients.tolist(), strict=True))
    intervals |= {
        name: (low, high) for name, (low, high) in zip(names, fit.intervals.tolist(), strict=True)
    }
    return Linear(coefficients, intervals, constants)


def _constants(
    features: Features, gold: Gold, names: tuple[str, ...]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    constants: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    if "order" in names and features.score_ab is not None and features.score_ba is not None:
        half = (features.score_ab - features.score_ba) / 2
        constants["first_position"], interval = cluster_mean(half, gold.groups)
        intervals["first_position"] = (float(interval[0]), float(interval[1]))
    if "length" in names and features.longer is not None:
        constants["length_scale"] = float(features.longer.std()) or 1.0
    return constants, intervals


def _none(features: Features, gold: Gold) -> Linear:  # noqa: ARG001 - the form of all
    return Linear({"logit": 1.0})


def _batch(features: Features, gold: Gold) -> Linear:  # noqa: ARG001 - needs no gold
    reads = [one for one in (features.score_ab, features.score_ba) if one is not None]
    if len(reads) < 2:
        reads = [features.score]
    means = np.array([sigmoid(read).mean() for read in reads])
    return Linear({"logit": 1.0, "intercept": -float(logit(means).mean())})


def contextual(preference: float) -> Linear:
    """Divide by what the judge says of a pair without content (Zhao et al., ICML 2021).

    Args:
        preference: P(a is better) of such a pair, orders combined as for the others.
    """
    return Linear({"logit": 1.0, "intercept": -float(logit(np.array(preference)))})


def _temperature(features: Features, gold: Gold) -> Linear:
    fit = _regressed(features, gold, ("logit",))
    slope = min(max(fit.coefficients["logit"], FLATTEST), STEEPEST)
    return Linear({"logit": slope}, fit.intervals)


def _beta(features: Features, gold: Gold) -> Linear:
    """Kull, Silva Filho and Flach (AISTATS 2017); a negative slope is left out, as there."""
    names: tuple[str, ...] = ("log_a", "log_b", "intercept")
    fit = _regressed(features, gold, names)
    for name in ("log_a", "log_b"):
        if fit.coefficients[name] < 0:
            names = tuple(one for one in names if one != name)
            fit = _regressed(features, gold, names)
    return fit


def _isotonic(features: Features, gold: Gold) -> PiecewiseLinear:
    return isotonic_knots(features.score, gold.preference, gold.weights)


def _histogram(features: Features, gold: Gold) -> Histogram:
    return histogram_bins(features.score, gold.preference, gold.weights, HISTOGRAM_BINS)


def _linear(*names: str) -> Method:
    needs = {need for name in names for need in TERMS[name].needs}
    return Method(lambda features, gold: _regressed(features, gold, names), tuple(sorted(needs)))


METHODS: dict[str, Method] = {
    "none": Method(_none, learns=False),
    "batch": Method(_batch, learns=False),
    "temperature": Method(_temperature),
    "platt": _linear("logit", "intercept"),
    "length": _linear("logit", "intercept", "length"),
    "position": _linear("logit", "intercept", "order"),
    "beta": Method(_beta),
    "histogram": Method(_histogram),
    "isotonic": Method(_isotonic),
}
# What a user may name: also the choice among those, and one that needs a content-free pair.
CHOICES = ("auto", *METHODS, "contextual")


def available(features: Features) -> list[str]:
    """Methods for which these features are enough, from the simplest on."""
    return [
        name
        for name, method in METHODS.items()
        if all(getattr(features, need) is not None for need in method.needs)
    ]


def log_loss(preference: Float64, targets: Float64) -> Float64:
    """Cross-entropy of n soft targets, in nats."""
    p = np.clip(preference, 1e-15, 1 - 1e-15)
    return np.asarray(-targets * np.log(p) - (1 - targets) * np.log(1 - p))
