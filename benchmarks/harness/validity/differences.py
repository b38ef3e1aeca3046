"""Ratings of few soft games: how often is a significant difference wrong, or an interval off?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from harness.validity.claim import Claim
from steelyard.ranking.bradley_terry import CENTRE, POINTS, Ratings, rate
from steelyard.ranking.differences import compare
from steelyard.ranking.tournament import Tournament
from steelyard.statistics.small_clusters import holm
from steelyard_kernels.comparisons import rows_of

Float64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Draw = Callable[..., tuple[Float64, Tournament]]

SIZES = ((50, 8), (200, 10), (50, 40), (200, 60))  # competitors, and games of each
SHARED = ((8, 10), (20, 30))  # competitors, and instructions that all of them answer
LEVEL = 0.95


def simulate(draws: int) -> Iterator[Claim]:
    """Draw games between equal competitors, and between some that are not."""
    for competitors, games in SIZES:
        name = f"{competitors} competitors, {games} soft games each"
        yield from _claims(f"{name}, all equal", draws, _games, (competitors, games, 0.0))
        if competitors == SIZES[0][0]:
            yield from _claims(f"{name}, unequal", draws, _games, (competitors, games, 0.7))
    for competitors, instructions in SHARED:
        name = f"{competitors} competitors meet on {instructions} instructions"
        yield from _claims(f"{name}, all equal", draws, _shared, (competitors, instructions, 0.0))


def _claims(name: str, draws: int, draw: Draw, shape: tuple[int, int, float]) -> Iterator[Claim]:
    rng = np.random.default_rng(0)
    wrong, inside = np.zeros((draws, 2), np.bool_), np.zeros((draws, 2))
    for number in range(draws):
        truth, contest = draw(rng, *shape)
        ratings = rate(contest)
        better = truth[:, None] > truth[None, :]
        wanted = CENTRE + POINTS * (truth - truth.mean())
        plain, error = _plain(contest, ratings)
        wrong[number] = (plain & ~better).any(), (compare(ratings, LEVEL).better & ~better).any()
        reach = NormalDist().inv_cdf(0.5 + LEVEL / 2) * error
        inside[number, 0] = np.mean(abs(ratings.rating - wanted) <= reach)
        inside[number, 1] = np.mean((ratings.lower <= wanted) & (wanted <= ratings.upper))
    before, after = wrong.mean(axis=0)
    yield Claim(name, "family-wise error", before, after, 0, 1 - LEVEL, draws)
    before, after = inside.mean(axis=0)
    yield Claim(name, "coverage of ratings", before, after, 0.93, 0.97, draws)


def _plain(contest: Tournament, ratings: Ratings) -> tuple[NDArray[np.bool_], Float64]:
    """Return what was significant, and standard errors, by the plain sandwich and normal tails."""
    size, rows = contest.size, contest.rows
    strength = (ratings.rating - CENTRE) / POINTS
    i, j = rows.pair // size, rows.pair % size
    share = 1 / (1 + np.exp(strength[j] - strength[i]))
    information, gradient = np.zeros((size, size)), np.zeros((contest.clusters, size))
    for one, other, sign in ((i, j, 1), (j, i, -1)):
        np.add.at(information, (one, one), share * (1 - share))
        np.add.at(information, (one, other), -share * (1 - share))
        np.add.at(gradient, (contest.cluster, one), sign * (rows.preference - share))
    inverse = np.linalg.pinv(information)
    groups = contest.clusters
    covariance = inverse @ (gradient.T @ gradient) @ inverse * groups / (groups - 1) * POINTS**2
    spread = np.diag(covariance)
    error = np.sqrt(np.maximum(spread[:, None] + spread[None, :] - 2 * covariance, 1e-12))
    difference = ratings.rating[:, None] - ratings.rating[None, :]
    pairs = np.triu_indices(size, 1)
    z = abs(difference[pairs]) / error[pairs] / math.sqrt(2)
    p_value = np.ones((size, size))
    p_value[pairs] = holm(np.array([math.erfc(value) for value in z]))
    return (np.minimum(p_value, p_value.T) < 1 - LEVEL) & (difference > 0), np.sqrt(
        np.maximum(spread, 0)
    )


def _games(
    rng: np.random.Generator, competitors: int, games: int, spread: float
) -> tuple[Float64, Tournament]:
    """Draw rounds in which everyone meets someone; each game is a separate instruction."""
    truth = rng.normal(0, spread, competitors)
    rounds = np.stack([rng.permutation(competitors) for _ in range(games)])
    i, j = rounds[:, 0::2].ravel(), rounds[:, 1::2].ravel()
    share = 1 / (1 + np.exp(truth[j] - truth[i]))
    return truth, _contest(competitors, i, j, rng.beta(2 * share, 2 * (1 - share)))


def _shared(
    rng: np.random.Generator, competitors: int, instructions: int, spread: float
) -> tuple[Float64, Tournament]:
    """Draw all pairs on each instruction, where each competitor's response is good or bad."""
    truth = rng.normal(0, spread, competitors)
    quality = truth + rng.normal(0, 1.5, (instructions, competitors))
    i, j = np.triu_indices(competitors, 1)
    preference = 1 / (1 + np.exp(quality[:, j] - quality[:, i]))
    cluster = np.repeat(np.arange(instructions), len(i))
    i, j = np.tile(i, instructions), np.tile(j, instructions)
    return truth, _contest(competitors, i, j, preference.ravel(), cluster)


def _contest(
    competitors: int, i: Ints, j: Ints, preference: Float64, cluster: Ints | None = None
) -> Tournament:
    swapped = i > j
    clusters = np.arange(len(i)) if cluster is None else cluster
    return Tournament(
        competitors=tuple(f"m{number:03}" for number in range(competitors)),
        rows=rows_of(
            np.minimum(i, j) * competitors + np.maximum(i, j),
            np.where(swapped, 1 - preference, preference),
        ),
        swapped=swapped,
        cluster=clusters.astype(np.int32),
        clusters=int(clusters.max()) + 1,
        alone=0,
    )
