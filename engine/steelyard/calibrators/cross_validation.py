"""The choice of a method by cross-validation over instructions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np

from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.folds import FOLDS, grouped_folds
from steelyard.calibrators.linear import Linear
from steelyard.calibrators.methods import METHODS, Curve, available
from steelyard.core.schemas import Float64, Int64
from steelyard.statistics.logistic import log_loss, sigmoid
from steelyard.statistics.means import mean

DRAW = 10  # pairs' worth of votes for the identity


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method's held-out loss, in nats per vote.

    Also its distance to the best method that learns, with its standard error over instructions;
    negative for a reference that is better than all of them.
    """

    method: str
    log_loss: float
    behind: float
    standard_error: float
    chosen: bool


def choose(features: Features, gold: Gold, seed: int) -> list[Candidate]:
    """Return the cross-validated log loss of every method, with the chosen method marked.

    Chosen is `none` if no method that learns beats it, where scores have a scale (`has_scale`).
    Else it is the simplest method that is within one standard error of the best (Breiman et al.
    1984): that of the difference between losses on the same pairs, and no more than that of what
    the best gains over `none`, so that a method is not forgiven more for being erratic. All are
    drawn to the identity (`fit_drawn`). Folds, which `seed` draws, are of instructions, so that an
    instruction never helps to predict itself.
    """
    folds = grouped_folds(gold.groups, FOLDS, seed)
    losses = {name: _held_out(name, features, gold, folds) for name in available(features)}
    weights = gold.weights
    means = {name: float(weights @ loss / weights.sum()) for name, loss in losses.items()}
    learning = [name for name in losses if METHODS[name].learns]
    best = min(learning, key=means.__getitem__)
    behind = {name: mean(x - losses[best], gold.groups, weights) for name, x in losses.items()}
    errors = {name: gap.standard_error or 0.0 for name, gap in behind.items()}
    chosen = next(x for x in learning if behind[x].value <= min(errors[x], errors["none"]))
    if features.has_scale and means["none"] <= means[best]:
        chosen = "none"
    return [
        Candidate(name, means[name], gap.value, errors[name], chosen=name == chosen)
        for name, gap in behind.items()
    ]


def fit_drawn(method: str, features: Features, gold: Gold) -> Curve:
    """Fit a method drawn to the identity, as if DRAW more pairs had said what the judge says.

    Below about 100 pairs it matters: there the scatter of a fit costs more than a judge's usual
    faults. Score differences, whose scale means nothing, are not drawn. Intervals of coefficients
    are those of the plain fit.
    """
    plain = METHODS[method].fit(features, gold)
    if not features.has_scale:
        return plain
    share, p = DRAW / len(gold) * gold.weights.mean(), sigmoid(features.score)
    more = share * np.stack([p, 1 - p, np.zeros(len(p))], axis=1)
    curve = METHODS[method].fit(features, replace(gold, votes=gold.votes + more))
    if isinstance(curve, Linear) and isinstance(plain, Linear):
        curve = msgspec.structs.replace(curve, intervals=plain.intervals)
    return curve


def _held_out(name: str, features: Features, gold: Gold, folds: Int64) -> Float64:
    losses = np.empty(len(gold))
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        curve = fit_drawn(name, features.take(~test), gold.take(~test))
        losses[test] = log_loss(curve.preference(features.take(test)), gold.preference[test])
    return losses
