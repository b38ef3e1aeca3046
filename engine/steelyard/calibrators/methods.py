"""The methods of calibration by name, each from raw reads and gold to a curve.

Every fit takes soft targets (shares of votes) and weighs a pair by its votes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from steelyard.calibrators.features import Features, Gold, unit_of
from steelyard.calibrators.linear import TERMS, Linear
from steelyard.calibrators.piecewise import (
    Histogram,
    PiecewiseLinear,
    histogram_bins,
    isotonic_knots,
)
from steelyard.calibrators.stacked import Stacked, fit_stacked
from steelyard.statistics.logistic import fit, log_loss, logit, sigmoid
from steelyard.statistics.means import mean

Curve: TypeAlias = Linear | PiecewiseLinear | Histogram | Stacked

# A prior so weak (standard deviation 31, more for scores that differ by less than 1) that it shows
# only where gold leaves a coefficient open: without it, gold that the judge always gets right would
# ask for an infinite slope.
RIDGE = 1e-3
# Slopes of a temperature, for scores that differ by 1 or more: it never reverses a preference.
FLATTEST, STEEPEST = 1e-3, 1e3
SLOPES = {"logit", "log_a", "log_b"}  # 1 where nothing is to be calibrated


@dataclass(frozen=True, slots=True)
class Method:
    """A way to fit a curve. METHODS lists them from the simplest on."""

    fit: Callable[[Features, Gold], Curve]
    needs: tuple[str, ...] = ()  # fields of Features that have to be there
    learns: bool = True  # from gold; else a reference that `auto` shows and does not choose


def _regressed(features: Features, gold: Gold, names: tuple[str, ...]) -> Linear:
    constants, intervals = _constants(features, gold, names)
    terms = np.stack([TERMS[name].values(features, constants) for name in names], axis=1)
    slopes = np.array([name in SLOPES for name in names])
    ridge = RIDGE * np.where(slopes, unit_of(features.score), 1.0) ** 2
    fitted = fit(terms, gold.preference, gold.weights, gold.groups, ridge, prior=slopes * 1.0)
    coefficients = dict(zip(names, fitted.coefficients.tolist(), strict=True))
    bounds = fitted.intervals()
    intervals |= {
        name: (low, high)
        for name, (low, high) in zip(names, bounds.tolist(), strict=True)
        if np.isfinite([low, high]).all()
    }
    return Linear(coefficients, intervals, constants)


def _constants(
    features: Features, gold: Gold, names: tuple[str, ...]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    constants: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    if "order" in names and features.score_ab is not None and features.score_ba is not None:
        shift = mean((features.score_ab - features.score_ba) / 2, gold.groups)
        constants["first_position"] = shift.value
        low, high = shift.interval()
        if low is not None and high is not None:
            intervals["first_position"] = (low, high)
    if "length" in names and features.longer is not None:
        constants["length_scale"] = float(features.longer.std()) or 1.0
    return constants, intervals


def _batch(features: Features, gold: Gold) -> Linear:  # noqa: ARG001 - needs no gold
    reads = [read for read in (features.score_ab, features.score_ba) if read is not None]
    if len(reads) < 2:
        reads = [features.score]
    means = np.array([sigmoid(read).mean() for read in reads])
    return Linear({"logit": 1.0, "intercept": -float(logit(means).mean())})


def contextual(preference: float) -> Linear:
    """Divide by what the judge says about a pair without content (Zhao et al., ICML 2021).

    `preference` is P(a is better) of such a pair, orders combined as for the others.
    """
    return Linear({"logit": 1.0, "intercept": -float(logit(np.array(preference)))})


def direction(features: Features, gold: Gold) -> Linear:
    """Return a straight line in logits, whose slope is negative for a judge that is reversed."""
    return _regressed(features, gold, ("logit", "intercept"))


def _temperature(features: Features, gold: Gold) -> Linear:
    curve = _regressed(features, gold, ("logit",))
    low, high = (bound / unit_of(features.score) for bound in (FLATTEST, STEEPEST))

    def clamped(slope: float) -> float:
        return min(max(slope, low), high)

    slope = clamped(curve.coefficients["logit"])
    intervals = {name: (clamped(a), clamped(b)) for name, (a, b) in curve.intervals.items()}
    return Linear({"logit": slope}, intervals)


def _beta(features: Features, gold: Gold) -> Linear:
    """Fit beta calibration with slopes that are not negative (Kull, Silva Filho and Flach 2017).

    The likelihood is concave: where its maximum has a negative slope, a slope is 0 at the best
    point that is allowed, and the other is fitted again.
    """
    whole = _regressed(features, gold, ("log_a", "log_b", "intercept"))
    if _rises(whole):
        return whole
    parts = [_regressed(features, gold, (slope, "intercept")) for slope in ("log_a", "log_b")]
    rising = [part for part in parts if _rises(part)]
    if not rising:
        return _regressed(features, gold, ("intercept",))

    def loss(curve: Linear) -> float:
        return float(gold.weights @ log_loss(curve.preference(features), gold.preference))

    return min(rising, key=loss)


def _rises(curve: Linear) -> bool:
    return all(curve.coefficients.get(name, 0.0) >= 0 for name in ("log_a", "log_b"))


def _linear(*names: str) -> Method:
    needs = {need for name in names for need in TERMS[name].needs}
    return Method(lambda features, gold: _regressed(features, gold, names), tuple(sorted(needs)))


METHODS: dict[str, Method] = {
    "none": Method(lambda _features, _gold: Linear({"logit": 1.0}), learns=False),
    "batch": Method(_batch, learns=False),
    "temperature": Method(_temperature),
    "platt": _linear("logit", "intercept"),
    "length": _linear("logit", "intercept", "length"),
    "position": _linear("logit", "intercept", "order"),
    "stacked": Method(fit_stacked, ("members",)),
    "beta": Method(_beta),
    "histogram": Method(lambda x, y: histogram_bins(x.score, y.preference, y.weights)),
    "isotonic": Method(lambda x, y: isotonic_knots(x.score, y.preference, y.weights)),
}
# What a user may name: also the choice among those, and the method for a content-free pair.
CHOICES = ("auto", *METHODS, "contextual")


def available(features: Features) -> list[str]:
    """Return the methods for which these features are enough, from the simplest on."""
    return [
        name
        for name, method in METHODS.items()
        if all(getattr(features, need) is not None for need in method.needs)
    ]
