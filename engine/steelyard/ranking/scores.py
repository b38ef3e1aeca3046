"""Scores without a likelihood: average win rate, Newman's, eigenvector, PageRank, Elo.

Each takes points [K, K] (a tie is half a point to both) as `Tournament.points` gives them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from steelyard.core.schemas import Float64
from steelyard.errors import SteelyardError
from steelyard.ranking.tournament import Tournament
from steelyard_kernels.elo import elo as play

CLOSE = 1e-12  # of two rounds, relative
ROUNDS = 100_000
DAMPING = 0.85
ELO_STEP = 4.0


class NotConverged(SteelyardError):
    """An iteration did not come to rest."""

    code = "rating"


def win_matrix(points: Float64) -> Float64:
    """[K, K]: share of the row's points against the column; NaN where they never met."""
    total = points + points.T
    return np.asarray(points / np.where(total > 0, total, np.nan))


def average_win_rate(points: Float64) -> Float64:
    """[K], in [0, 1]: mean of a competitor's win rates, each opponent counting alike."""
    rates = win_matrix(points)
    met = ~np.isnan(rates)
    mean: Float64 = np.where(met, rates, 0).sum(axis=1) / np.maximum(met.sum(axis=1), 1)
    return mean


def newman(points: Float64, ties: Float64) -> tuple[Float64, float]:
    """Newman's iteration for Davidson's model (JMLR 24, 2023, equations 27 and 28).

    Args:
        points: [K, K].
        ties: [K, K], symmetric.

    Returns:
        strengths [K], positive, and the parameter for ties, half of Davidson's nu.

    Raises:
        NotConverged: some strength is not finite: see `strengths.rate`.
    """
    wins = points - ties / 2

    def step(state: Float64) -> Float64:
        strength, v = state[:-1], state[-1]
        root = np.sqrt(np.outer(strength, strength))
        total = strength[:, None] + strength[None, :]
        below = total + 2 * v * root
        won = (points * (strength[None, :] + v * root) / below).sum(axis=1)
        lost = (points.T * (1 + v * root / strength[:, None]) / below).sum(axis=1)
        drawn = (ties * total / below).sum() / 2
        decided = 2 * (wins * root / below).sum()
        return np.append(won / lost, drawn / decided)

    found = _settle(step, np.append(np.ones(len(points)), 0.5), "Newman's iteration")
    return found[:-1], float(found[-1])


def eigenvector(points: Float64) -> Float64:
    """[K], length 1: the leading eigenvector of points (Bonacich, AJS 92, 1987).

    Whoever beats high scores scores high. The power iteration runs on points + c I, which has the
    same eigenvectors and comes to rest where points alone swing between two groups that met only
    each other, such as a baseline and its challengers.
    """
    size = len(points)
    c = points.sum() / size / 2

    def step(state: Float64) -> Float64:
        moved = points @ state + c * state
        return np.asarray(moved / np.linalg.norm(moved))

    return _settle(step, np.full(size, 1 / np.sqrt(size)), "the power iteration")


def pagerank(points: Float64, damping: float = DAMPING) -> Float64:
    """[K], sums to 1: where a walker stays who goes from loser to winner (Brin and Page, 1998).

    Args:
        points: [K, K]; a competitor passes its weight on in proportion to points lost.
        damping: probability of such a step; otherwise, and from one that lost none, to anyone.
    """
    size = len(points)
    lost = points.sum(axis=0)
    steps = np.where(lost > 0, points / np.where(lost > 0, lost, 1), 1 / size)

    def step(state: Float64) -> Float64:
        return np.asarray(damping * (steps @ state) + (1 - damping) / size)

    return _settle(step, np.full(size, 1 / size), "PageRank")


def elo(contest: Tournament, *, shuffles: int, seed: int) -> tuple[Float64, Float64, Float64]:
    """Elo's ratings, from 1000, k = 4.

    Args:
        contest: the comparisons, in their order.
        shuffles: 0: in that order; else the mean over so many random ones.
        seed: of these.

    Returns:
        rating, and the lowest and highest over the orders without 2.5% at either end; each [K].
    """
    played = play(contest.rows, contest.size, k=ELO_STEP, shuffles=shuffles, seed=seed)
    low, high = np.quantile(played, [0.025, 0.975], axis=0)
    return played.mean(axis=0), low, high


def _settle(step: Callable[[Float64], Float64], state: Float64, name: str) -> Float64:
    for _ in range(ROUNDS):
        with np.errstate(all="ignore"):
            moved = step(state)
        change = np.abs(moved - state).max()
        state = moved
        if not np.isfinite(change):
            break
        if change <= CLOSE * np.abs(state).max():
            return state
    raise NotConverged(
        f"{name} does not come to rest on these comparisons",
        remedy="use the method bradley-terry, which also rates those who won or lost all",
    )
