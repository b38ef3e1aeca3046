"""The choice of a method by cross-validation over instructions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.methods import METHODS, available, log_loss
from steelyard.core.schemas import Float64, Int64

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method's loss on instructions that it was not fitted on; nats a vote.

    `behind` is its distance to the best method that learns, with its standard error over
    instructions; negative for a reference that is better than all of them.
    """

    method: str
    log_loss: float
    behind: float
    standard_error: float
    chosen: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def choose(features: Features, gold: Gold, seed: int) -> list[Candidate]:
    """Every method's cross-validated log loss; one is chosen.

    Chosen is the simplest method that is within one standard error of the best (Breiman et al.
    1984): the standard error of the difference, which both methods' losses on the same pairs give.
    Methods that learn nothing from gold are there for comparison: with little gold they would be
    within a standard error too often, and one parameter is simple enough. Folds are of
    instructions, so that no instruction helps to predict itself.

    Args:
        features: n pairs.
        gold: of the same pairs.
        seed: of the folds.
    """
    folds = grouped_folds(gold.groups, FOLDS, seed)
    losses = {name: _held_out(name, features, gold, folds) for name in available(features)}
    weights = gold.weights
    means = {name: float(weights @ loss / weights.sum()) for name, loss in losses.items()}
    learning = [name for name in losses if METHODS[name].learns]
    best = min(learning, key=means.__getitem__)
    behind = {
        name: (means[name] - means[best], _error(loss - losses[best], weights, gold.groups))
        for name, loss in losses.items()
    }
    chosen = next(name for name in learning if behind[name][0] <= behind[name][1])
    return [
        Candidate(name, means[name], gap, error, chosen=name == chosen)
        for name, (gap, error) in behind.items()
    ]


def grouped_folds(groups: Int64, folds: int, seed: int) -> Int64:
    """The fold of each of n rows; rows of a group share one.

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


def _error(differences: Float64, weights: Float64, groups: Int64) -> float:
    """Standard error of the weighted mean over groups."""
    mean = weights @ differences / weights.sum()
    clusters = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(clusters, weights=weights * (differences - mean))
    count = len(sums)
    return float(np.sqrt(np.sum(sums**2) * count / max(count - 1, 1)) / weights.sum())
