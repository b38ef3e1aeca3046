"""The choice of a method by cross-validation over instructions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.methods import METHODS, available
from steelyard.core.schemas import Float64, Int64
from steelyard.statistics.logistic import log_loss
from steelyard.statistics.means import mean

FOLDS = 5


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

    Chosen is the simplest method that is within one standard error of the best (Breiman et al.
    1984), where the standard error is that of the difference between losses on the same pairs.
    Methods that learn nothing from gold are there for comparison: with little gold they would be
    within a standard error too often, and one parameter is simple enough. Folds, which `seed`
    draws, are of instructions, so that an instruction never helps to predict itself.
    """
    folds = grouped_folds(gold.groups, FOLDS, seed)
    losses = {name: _held_out(name, features, gold, folds) for name in available(features)}
    weights = gold.weights
    means = {name: float(weights @ loss / weights.sum()) for name, loss in losses.items()}
    learning = [name for name in losses if METHODS[name].learns]
    best = min(learning, key=means.__getitem__)
    behind = {name: mean(x - losses[best], gold.groups, weights) for name, x in losses.items()}
    errors = {name: gap.standard_error or 0.0 for name, gap in behind.items()}
    chosen = next(name for name in learning if behind[name].value <= errors[name])
    return [
        Candidate(name, means[name], gap.value, errors[name], chosen=name == chosen)
        for name, gap in behind.items()
    ]


def grouped_folds(groups: Int64, folds: int, seed: int) -> Int64:
    """Return the fold of each of n rows; rows of a group share a fold.

    Groups go to the emptiest fold, from the largest on, so that folds are near in size.
    """
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    draw = np.random.default_rng(seed).permutation(len(counts))
    order = draw[np.argsort(-counts[draw], kind="stable")]
    sizes = np.zeros(min(folds, len(counts)), dtype=np.int64)
    fold = np.zeros(len(counts), dtype=np.int64)
    for group in order.tolist():
        fold[group] = np.argmin(sizes)
        sizes[fold[group]] += counts[group]
    return fold[inverse]


def _held_out(name: str, features: Features, gold: Gold, folds: Int64) -> Float64:
    losses = np.empty(len(gold))
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        curve = METHODS[name].fit(features.take(~test), gold.take(~test))
        losses[test] = log_loss(curve.preference(features.take(test)), gold.preference[test])
    return losses
