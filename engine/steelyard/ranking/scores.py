"""Scores without a likelihood: average win rate, Newman's, eigenvector, PageRank, Elo.

Each takes points [K, K] (a tie is half a point to both) from `Tournament.points`.
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
    """An iteration did not converge."""

    code = "rating"


def win_matrix(points: Float64) -> Float64:
    """Return [K, K]: the row's share of points against the column; NaN if they never met."""
    total = points + points.T
    return np.asarray(points / np.where(total > 0, total, np.nan))


def average_win_rate(points: Float64) -> Float64:
    """Return [K], in [0, 1]: the mean of a competitor's win rates over its opponents."""
    rates = win_matrix(points)
    met = ~np.isnan(rates)
    return np.asarray(np.where(met, rates, 0).sum(axis=1) / np.maximum(met.sum(axis=1), 1))


def newman(points: Float64, ties: Float64) -> tuple[Float64, float]:
    """Run Newman's iteration for Davidson's model (JMLR 24, 2023, equations 27 and 28).

    Args:
        points: [K, K].
        ties: [K, K], symmetric.

    Returns:
        strengths [K], positive, and the parameter for ties, half of Davidson's nu.

    Raises:
        NotConverged: some strength is not finite.
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

    state = _iterate(step, np.append(np.ones(len(points)), 0.5), "Newman's iteration")
    return state[:-1], float(state[-1])


def eigenvector(points: Float64) -> Float64:
    """Return the leading eigenvector [K] of points, of length 1 (Bonacich, AJS 92, 1987).

    Whoever beats high scores scores high. The power iteration runs on points + c I, which has the
    same eigenvectors and converges if points alone swing between two groups that met only each
    other, such as a baseline and its challengers.
    """
    size = len(points)
    c = points.sum() / size / 2

    def step(state: Float64) -> Float64:
        moved = points @ state + c * state
        return np.asarray(moved / np.linalg.norm(moved))

    return _iterate(step, np.full(size, 1 / np.sqrt(size)), "the power iteration")


def pagerank(points: Float64) -> Float64:
    """Return where a walker from losers to winners stays; [K], sum 1 (Brin and Page, 1998).

    A competitor passes its weight on in proportion to points lost, with probability DAMPING;
    otherwise, and from a competitor that lost none, the walker goes to anyone.
    """
    size = len(points)
    lost = points.sum(axis=0)
    steps = np.where(lost > 0, points / np.where(lost > 0, lost, 1), 1 / size)

    def step(state: Float64) -> Float64:
        return np.asarray(DAMPING * (steps @ state) + (1 - DAMPING) / size)

    return _iterate(step, np.full(size, 1 / size), "PageRank")


def elo(contest: Tournament, *, shuffles: int, seed: int) -> tuple[Float64, Float64, Float64]:
    """Compute Elo ratings, which begin at 1000, with k = 4.

    Args:
        contest: the comparisons, in their order.
        shuffles: the number of random orders to average over; 0: that order.
        seed: of the random orders.

    Returns:
        rating, and the bounds of the middle 95% over the orders; each [K].
    """
    played = play(contest.rows, contest.size, k=ELO_STEP, shuffles=shuffles, seed=seed)
    low, high = np.quantile(played, [0.025, 0.975], axis=0)
    return played.mean(axis=0), low, high


def _iterate(step: Callable[[Float64], Float64], state: Float64, name: str) -> Float64:
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
        f"{name} does not converge on these comparisons",
        remedy="use --method bradley-terry, which also rates those who won or lost all",
    )
