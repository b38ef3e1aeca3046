"""Corrected win rates and ratings: how often do intervals hold what people say?

`before` is the judge taken at its word: the mean of its preferences, or the ratings by its
verdicts, with their own intervals.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq

from harness.validity.claim import Claim
from steelyard.ranking.bradley_terry import POINTS, rate
from steelyard.ranking.differences import compare
from steelyard.ranking.tournament import Tournament
from steelyard.ranking.tuned_ratings import tuned_ratings
from steelyard.statistics.means import SHARE, mean
from steelyard.statistics.prediction_powered import prediction_powered_mean
from steelyard.statistics.rogan_gladen import rogan_gladen
from steelyard_kernels.comparisons import rows_of
from support.helpers import DATA

PAIRS, LABELS = 500, 100  # of a competitor, drawn from the crowd's
POINTS_OF = {"A": 1.0, "B": 0.0, "tie": 0.5}


def simulate(draws: int) -> Iterator[Claim]:
    rng = np.random.default_rng(2)
    yield from arena(draws, rng)
    for labels, low in ((10, 0.9), (20, 0.93), (60, 0.93), (300, 0.93)):
        yield from leaning(draws, labels, low, rng)
    yield from one_sided(draws, rng)
    yield from by_instruction(draws, rng)
    yield from chosen_gold(draws, rng)
    yield from ratings(draws, rng)
    yield favourites(draws, rng)


def inside(bounds: tuple[float, float], truth: float) -> bool:
    return bounds[0] <= truth <= bounds[1]


def coverage(
    name: str, hits: list[tuple[bool, bool]], draws: int, low: float = 0.93, high: float = 0.97
) -> Claim:
    before, after = np.mean(hits, axis=0)
    return Claim(name, "coverage", float(before), float(after), low, high, draws)


def narrower(name: str, ratios: list[float], draws: int) -> Claim:
    measure = "width of the interval / gold alone's"
    return Claim(name, measure, None, float(np.mean(ratios)), 0, 1, draws)


def crowd() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the crowd's shares and GPT-4's verdicts for each of 59 models, from its side."""
    votes, verdicts = (pq.read_table(DATA / f"arena/llmfao_{x}.parquet") for x in ("votes", "gpt4"))
    shares: dict[int, list[float]] = {}
    for pair, winner in zip(*(votes[x].to_pylist() for x in ("pair_id", "winner")), strict=True):
        shares.setdefault(pair, []).append(POINTS_OF[winner])
    rows: dict[str, list[tuple[float, float]]] = {}
    for verdict in verdicts.to_pylist():
        y, f = np.mean(shares[verdict["pair_id"]]), POINTS_OF[verdict["winner"]]
        rows.setdefault(verdict["model_a"], []).append((float(y), f))
        rows.setdefault(verdict["model_b"], []).append((1 - float(y), 1 - f))
    return [tuple(np.array(pairs).T) for pairs in rows.values()]  # type: ignore[misc]


def arena(draws: int, rng: np.random.Generator) -> Iterator[Claim]:
    """Draw pairs of each model from GPT-4's and the crowd's, or labels for all pairs that it has.

    Where the pairs are all there are, the crowd's own rate is known better than that of a sample:
    intervals hold it too often.
    """
    if not (DATA / "arena/llmfao_votes.parquet").exists():
        return
    drawn: list[tuple[bool, bool]] = []
    own: list[tuple[bool, bool]] = []
    ratios: list[float] = []
    for y, f in crowd():
        for _ in range(max(1, draws // 10)):
            some = rng.integers(0, len(y), PAIRS)
            known = np.where(np.arange(PAIRS) < LABELS, y[some], np.nan)
            drawn.append(held(known, f[some], y.mean(), ratios))
            order = rng.permutation(len(y))
            known = np.where(np.arange(len(y)) < max(len(y) // 3, 10), y[order], np.nan)
            own.append(held(known, f[order], y.mean()))
    name = "GPT-4 and the crowd of 59 models:"
    sampled = f"{name} {PAIRS} pairs, {LABELS} labels"
    yield coverage(sampled, drawn, len(drawn))
    yield narrower(sampled, ratios, len(ratios))
    yield coverage(f"{name} 30 to 664 pairs, a third labelled", own, len(own), high=1.0)


def held(
    known: np.ndarray, f: np.ndarray, truth: float, ratios: list[float] | None = None
) -> tuple[bool, bool]:
    """Return whether the naive and the corrected interval hold the truth; note the widths."""
    rows = np.arange(len(f))
    tuned = prediction_powered_mean(known, f, rows)
    assert tuned is not None
    bounds, alone = tuned.interval(), tuned.gold.interval()
    if ratios is not None:
        ratios.append((bounds[1] - bounds[0]) / (alone[1] - alone[0]))  # type: ignore[operator]
    naive = mean(f, rows, bounds=SHARE).interval()
    return inside(naive, truth), inside(bounds, truth)  # type: ignore[arg-type]


def leaning(
    draws: int, labels: int, low: float, rng: np.random.Generator, truth: float = 0.6
) -> Iterator[Claim]:
    """Draw a judge whose logits are those of people plus noise and a lean."""
    ratios: list[float] = []
    hits, rows = [], np.arange(11 * labels)
    for _ in range(draws):
        y, f = people_and_judge(rng, len(rows), truth)
        hits.append(held(np.where(rows < labels, y, np.nan), f, truth, ratios))
    name = f"leaning judge: {labels} labels, {10 * labels} other pairs"
    yield coverage(name, hits, draws, low, 0.97 if labels > LABELS else 1.0)
    yield narrower(name, ratios, draws)


def people_and_judge(
    rng: np.random.Generator, count: int, truth: float, skill: float = 0.7
) -> tuple[np.ndarray, np.ndarray]:
    y = rng.random(count) < truth
    signal = skill * np.where(y, 1.0, -1.0) + rng.standard_normal(count) * 0.6
    return y.astype(float), 1 / (1 + np.exp(-2 * signal - 0.8))


def one_sided(draws: int, rng: np.random.Generator) -> Iterator[Claim]:
    """Draw a judge that is hardly ever wrong, and a competitor that hardly ever loses."""
    hits, rows = [], np.arange(1000)
    for _ in range(draws):
        y = (rng.random(1000) < 0.9).astype(float)
        f = np.where(rng.random(1000) < np.where(y > 0, 0.97, 0.9), y, 1 - y)
        hits.append(held(np.where(rows < 60, y, np.nan), f, 0.9))
    yield coverage("nearly perfect judge of 9 in 10 wins: 60 labels", hits, draws, high=0.99)


def by_instruction(draws: int, rng: np.random.Generator) -> Iterator[Claim]:
    """Draw ten dependent pairs per instruction, some with labels; before: each a cluster."""
    hits = []
    cluster = np.repeat(np.arange(80), 10)
    for _ in range(draws):
        rates = rng.beta(2, 1.5, 80)
        y = (rng.random(800) < rates[cluster]).astype(float)
        f = np.clip(0.2 + 0.6 * y + 0.25 * rng.standard_normal(800), 0, 1)
        known = np.where(rng.random(800) < 0.3, y, np.nan)
        bounds = []
        for clusters in (np.arange(800), cluster):
            tuned = prediction_powered_mean(known, f, clusters)
            assert tuned is not None
            bounds.append(inside(tuned.interval(), 2 / 3.5))
        hits.append((bounds[0], bounds[1]))
    yield coverage("80 instructions of 10 dependent pairs, a third labelled", hits, draws)


def chosen_gold(draws: int, rng: np.random.Generator) -> Iterator[Claim]:
    """Draw hard verdicts, and gold with more wins than the rest: Rogan and Gladen's correction."""
    hits, rows, truth = [], np.arange(1200), 0.4
    for _ in range(draws):
        share = np.where(rows < 200, 0.65, truth)
        y = rng.random(1200) < share
        verdict = np.where(rng.random(1200) < np.where(y, 0.85, 0.7), y, ~y).astype(float)
        corrected = rogan_gladen(np.where(rows < 200, y, np.nan), verdict, rows)
        assert corrected is not None
        naive = mean(verdict[200:], rows[200:], bounds=SHARE).interval()
        own = inside((corrected.lower, corrected.upper), truth)
        hits.append((inside(naive, truth), own))  # type: ignore[arg-type]
    yield coverage("Rogan-Gladen: 200 labels with too many wins, 1,000 verdicts", hits, draws)


def favourites(draws: int, rng: np.random.Generator) -> Claim:
    """Draw ten equal competitors, of which a judge likes some better than others."""
    size, wrong = 10, []
    for _ in range(draws):
        first = rng.integers(0, size - 1, 5000)
        second = first + 1 + (rng.random(5000) * (size - 1 - first)).astype(int)
        y = rng.random(5000) < 0.5
        said = np.where(rng.random(5000) < 0.75, y, ~y)
        logit = np.where(said, 1.0, -1.0) + 0.1 * (second - first)
        contest = contest_of(first, second, 1 / (1 + np.exp(-logit)), size)
        known = np.where(rng.random(5000) < 0.1, y, np.nan)
        tuned = tuned_ratings(contest, known)
        assert tuned is not None
        names = contest.competitors
        wrong.append([bool(compare(x).better.any()) for x in (rate(contest), tuned.ratings(names))])
    before, after = np.mean(wrong, axis=0)
    name = "ten equal competitors, a judge with favourites: a tenth of 5,000 labelled"
    return Claim(name, "family-wise error", float(before), float(after), 0, 0.05, draws)


def contest_of(
    first: np.ndarray, second: np.ndarray, preference: np.ndarray, size: int
) -> Tournament:
    count = len(first)
    cluster = (np.arange(count) // 2).astype(np.int32)
    rows = rows_of(first * size + second, preference)
    names = tuple(f"m{k}" for k in range(size))
    return Tournament(names, rows, np.zeros(count, bool), cluster, int(cluster.max()) + 1, 0)


def ratings(draws: int, rng: np.random.Generator) -> Iterator[Claim]:
    """Draw eight competitors, a judge that favours four of them, and labels for a tenth."""
    size, hits, ratios = 8, [], []
    strength = np.linspace(0.9, -0.9, size)
    truth = 1000 + POINTS * strength
    for _ in range(draws):
        first = rng.integers(0, size - 1, 6000)
        second = first + 1 + (rng.random(6000) * (size - 1 - first)).astype(int)
        y = rng.random(6000) < 1 / (1 + np.exp(strength[second] - strength[first]))
        said = np.where(rng.random(6000) < 0.8, y, ~y)
        lean = 0.5 * ((first < 4) & (second >= 4))
        f = 1 / (1 + np.exp(-(np.where(said, 1.2, -1.2) + lean + rng.standard_normal(6000) * 0.4)))
        contest = contest_of(first, second, f, size)
        known = np.where(rng.random(6000) < 0.1, y, np.nan)
        tuned, alone = tuned_ratings(contest, known), tuned_ratings(contest, known, weight=0.0)
        naive = rate(contest)
        if tuned is None or alone is None:
            continue
        lower, upper = tuned.interval()
        for k in range(size):
            plain = (float(naive.lower[k]), float(naive.upper[k]))
            own = (float(lower[k]), float(upper[k]))
            hits.append((inside(plain, truth[k]), inside(own, truth[k])))
        ratios.append(float((tuned.standard_error / alone.standard_error).mean()))
    name = "ratings of 8 competitors: a tenth of 6,000 comparisons labelled"
    yield coverage(name, hits, draws)
    yield narrower(name, ratios, draws)
