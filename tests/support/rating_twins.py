"""Plain twins of the rating kernels, from definitions; and tournaments to try them on."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from steelyard_kernels import links

MASK = 2**64 - 1


def naive_below(limit, seed, number):
    z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return ((z ^ (z >> 31)) >> 32) * limit >> 32


def naive_stream(seed, part):
    value = 0xCBF29CE484222325
    for byte in f"{seed}/{part}".encode():
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value


def naive_counts(clusters, start, end, seed):
    out = np.zeros((clusters, end - start), np.int64)
    for replicate in range(start, end):
        stream = naive_stream(seed, replicate)
        for draw in range(clusters):
            out[naive_below(clusters, stream, draw), replicate - start] += 1
    return out


def probabilities(model, d, e):
    """P(win), P(loss), P(tie), as the papers define them."""
    one, other = math.exp(d / 2), math.exp(-d / 2)
    if model == links.DAVIDSON:
        total = one + other + math.exp(e)
        return one / total, other / total, math.exp(e) / total
    if model == links.RAO_KUPPER:
        theta = math.exp(e)
        win, loss = one / (one + theta * other), other / (other + theta * one)
        return win, loss, 1 - win - loss
    return one / (one + other), other / (one + other), None


def row_value(model, d, e, preference, tie):
    """Log-likelihood of one comparison of weight 1."""
    win, loss, even = probabilities(model, d, e)
    if even is None:
        return preference * math.log(win) + (1 - preference) * math.log(loss)
    return (
        (preference - tie / 2) * math.log(win)
        + (1 - preference - tie / 2) * math.log(loss)
        + tie * math.log(even)
    )


def value(model, rows, at):
    """Log-likelihood of (i, j, preference, tie, weight) rows."""
    return sum(w * row_value(model, at[i] - at[j], at[-1], y, t) for i, j, y, t, w in rows)


def slope(function, at, step=1e-5):
    """Numerical gradient."""
    at = np.asarray(at, dtype=np.float64)
    return np.array(
        [(function(at + h) - function(at - h)) / (2 * step) for h in np.eye(len(at)) * step]
    )


def naive_products(model, rows, clusters, at):
    """Sum of g g' over clusters, each g by differences."""
    sums = {}
    for row, cluster in zip(rows, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0) + slope(lambda x, r=row: value(model, [r], x), at)
    return sum(np.outer(g, g) for g in sums.values())


def naive_corrected_products(model, rows, clusters, at, inverse):
    """Sum of g g' over clusters with g = (I - L H^-1)^(-1/2) g, by eigenvalues.

    L is what a cluster adds to the information: for each row, its weight's share of the curvature
    of all rows of its pair.
    """
    sums, parts = {}, {}
    for row, cluster in zip(rows, clusters, strict=True):
        met = [other for other in rows if other[:2] == row[:2]]
        share = row[4] / sum(other[4] for other in met)
        curve = -slope(lambda x, m=met: slope(lambda z: value(model, m, z), x, 1e-4), at, 1e-4)
        gradient = slope(lambda x, r=row: value(model, [r], x), at)
        sums[cluster] = sums.get(cluster, 0) + gradient
        parts[cluster] = parts.get(cluster, 0) + share * curve
    total = 0
    for cluster, gradient in sums.items():
        leverage, vectors = np.linalg.eig(parts[cluster] @ inverse)
        power = np.maximum(1 - leverage.real, 1e-9) ** -0.5
        moved = (vectors @ np.diag(power) @ np.linalg.inv(vectors)).real @ gradient
        total = total + np.outer(moved, moved)
    return total


def minorise(points):
    """Bradley-Terry by Hunter's MM algorithm (Annals of Statistics 32, 2004)."""
    strength = np.ones(len(points))
    total = points + points.T
    for _ in range(100_000):
        below = (total / (strength[:, None] + strength[None, :])).sum(axis=1)
        moved = points.sum(axis=1) / below
        moved /= np.exp(np.log(moved).mean())
        if np.abs(np.log(moved / strength)).max() < 1e-13:
            break
        strength = moved
    return np.log(strength)


def naive_groups(beats):
    """Mutually reachable groups, by transitive closure."""
    size = len(beats)
    reach = beats | np.eye(size, dtype=bool)
    for k in range(size):
        reach |= reach[:, [k]] & reach[[k], :]
    return np.array([min(np.flatnonzero(reach[i] & reach[:, i])) for i in range(size)])


def naive_elo(games, competitors, k):
    rating = [1000.0] * competitors
    for i, j, outcome in games:
        expected = 1 / (1 + 10 ** ((rating[j] - rating[i]) / 400))
        rating[i] += k * (outcome - expected)
        rating[j] -= k * (outcome - expected)
    return rating


@st.composite
def games(draw, ties=True, most=5):
    """Rows (i, j, preference, tie, weight) with i < j, and their clusters.

    Everyone meets the next one with a soft outcome, so that strengths are finite.
    """
    size = draw(st.integers(2, most))
    soft = st.floats(0.05, 0.95)
    rows = []

    def add(i, j):
        y = draw(soft)
        tie = draw(st.floats(0.05, 0.9)) * 2 * min(y, 1 - y) if ties else 0.0
        rows.append((i, j, y, tie, draw(st.sampled_from([1.0, 0.5, 2.0]))))

    for i in range(size - 1):
        add(i, i + 1)
    for _ in range(draw(st.integers(1, 12))):
        i = draw(st.integers(0, size - 2))
        add(i, draw(st.integers(i + 1, size - 1)))
    more = len(rows) - 2
    clusters = [0, 1, *draw(st.lists(st.integers(0, 4), min_size=more, max_size=more))]
    return size, rows, clusters


def simulate(rng, *, competitors=6, instructions=80, ties="mean", shared=0.6):
    """A tournament whose truth is known: rows i, j, preference, tie, cluster; and strengths.

    Inside an instruction all comparisons share each competitor's luck (Gumbel) with probability
    `shared`, so that outcomes depend on each other while each one alone is exactly Bradley and
    Terry's. `ties="mean"`: a verdict is the mean of two such reads, and disagreement is a tie.
    `ties="davidson"`: single outcomes by Davidson's model, each given up to three times.
    Competitors are met unequally often, and instructions are of unequal size.
    """
    truth = rng.normal(0, 0.7, competitors)
    truth -= truth.mean()
    popularity = rng.dirichlet(np.full(competitors, 3.0)) + 0.05
    popularity /= popularity.sum()
    sizes = rng.integers(2, 14, instructions)
    cluster = np.repeat(np.arange(instructions), sizes)
    count = len(cluster)
    i = rng.choice(competitors, count, p=popularity)
    j = (i + rng.integers(1, competitors, count)) % competitors
    i, j = np.minimum(i, j), np.maximum(i, j)
    if ties == "davidson":
        return truth, _davidson(rng, truth, i, j, cluster)
    reads = []
    for _ in range(2):
        luck = rng.gumbel(size=(instructions, competitors))
        own = rng.gumbel(size=(count, 2))
        common = rng.random(count) < shared
        a = truth[i] + np.where(common, luck[cluster, i], own[:, 0])
        b = truth[j] + np.where(common, luck[cluster, j], own[:, 1])
        reads.append(a > b)
    preference = (reads[0].astype(float) + reads[1]) / 2
    return truth, (i, j, preference, (preference == 0.5).astype(float), cluster)


def _davidson(rng, truth, i, j, cluster):
    odds = np.stack([(truth[i] - truth[j]) / 2, (truth[j] - truth[i]) / 2, np.full(len(i), -0.7)])
    share = np.exp(odds) / np.exp(odds).sum(axis=0)
    drawn = rng.random(len(i))
    outcome = np.where(drawn < share[0], 1.0, np.where(drawn < share[0] + share[1], 0.0, 0.5))
    again = np.repeat(np.arange(len(i)), rng.integers(1, 4, len(i)))
    outcome = outcome[again]
    return i[again], j[again], outcome, (outcome == 0.5).astype(float), cluster[again]


def comparisons(rows, **more):
    """Rows of (model_a, model_b, preference) as a table, with more columns."""
    a, b, y = zip(*rows, strict=True)
    return pa.table({"model_a": a, "model_b": b, "preference": pa.array(y, pa.float64()), **more})
