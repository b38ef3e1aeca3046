"""Biases of a judge: verbosity that no name changes, and self-preference on the same opponents.

Before: length differences over their standard deviation, which depends on who comes first; the
plain difference of two means of a family's judge and of others, with a normal interval.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from harness.validity.claim import Claim
from steelyard.ranking.bias import families, verbosity
from steelyard.ranking.contextual import fit_contextual
from steelyard.ranking.tournament import tournament
from steelyard.statistics.logistic import sigmoid
from steelyard.statistics.means import mean

STRENGTHS = {"a-1": 0.8, "b-1": 0.0, "c-1": -0.8}
COUNT = 400


def simulate(draws: int) -> Iterator[Claim]:
    """Draw verdicts with a known bias of length, then of a judge for its own family."""
    yield from _verbosity(draws)
    yield _self_preference(draws)


def _verbosity(draws):
    rng, before, after, plain, changed = np.random.default_rng(3), 0, 0, 0, 0
    names = np.array(list(STRENGTHS))
    for _ in range(draws):
        a = rng.integers(0, 3, COUNT)
        b = (a + rng.integers(1, 3, COUNT)) % 3
        length = rng.normal(1000, 300, (2, COUNT)) + 300 * np.array([a == 0, b == 0])
        apart = length[0] - length[1]
        strength = np.array(list(STRENGTHS.values()))
        # 0.7 per unit of the difference over its root mean square
        effect = 0.7 * np.tanh(apart / np.sqrt((apart**2).mean()))
        y = (rng.random(COUNT) < sigmoid(strength[a] - strength[b] + effect)).astype(float)
        old, new = [], []
        for order in (names, np.roll(names, 1)):  # the same verdicts, with other names
            table = {"model_a": order[a], "model_b": order[b], "preference": y}
            contest = tournament(pa.table(table | {"instruction": np.arange(COUNT) // 4}))
            signed = np.where(contest.swapped, -apart, apart)
            fitted = fit_contextual(contest, np.tanh(signed / signed.std())[:, None])
            old.append((fitted.coefficients[0], fitted.standard_errors[0]))
            new.append(verbosity(contest, signed, np.full(COUNT, np.nan)))
        plain += abs(old[0][0] - old[1][0]) > 1e-6
        changed += abs(new[0].coefficient - new[1].coefficient) > 1e-6
        before += abs(old[0][0] - 0.7) <= 1.959964 * old[0][1]
        low, high = new[0].coefficient_interval
        after += low <= 0.7 <= high
    yield Claim("verbosity", "coverage", before / draws, after / draws, 0.93, 0.97, draws)
    yield Claim(
        "verbosity, other names", "changed numbers", plain / draws, changed / draws, 0, 0, draws
    )


def _self_preference(draws):
    """Draw a judge that mostly sees its family against the strong opponent, and another judge."""
    rng, before, after = np.random.default_rng(4), 0, 0
    wins = {"strong": 0.35, "weak": 0.75}
    for _ in range(draws):
        own = rng.random(COUNT) < 0.5
        strong = rng.random(COUNT) < np.where(own, 0.7, 0.3)
        opponent = np.where(strong, "strong", "weak")
        instruction = rng.integers(0, COUNT // 4, COUNT)
        shift = rng.normal(0, 0.08, COUNT // 4)[instruction]
        p = np.where(strong, wins["strong"], wins["weak"]) + 0.1 * own + shift
        y = rng.beta(8 * np.clip(p, 0.05, 0.95), 8 * (1 - np.clip(p, 0.05, 0.95)))
        columns = {"model_a": ["x-1"] * COUNT, "model_b": opponent, "preference": y}
        contest = tournament(pa.table(columns | {"instruction": instruction}))
        judge, nothing = np.where(own, 0, 1), np.full(COUNT, np.nan)
        family = next(
            f for f in families(contest, ["x-judge", "w-9"], judge, nothing) if f.family == "x"
        )
        sides = [mean(y[side], instruction[side]) for side in (own, ~own)]
        error = np.hypot(*(side.standard_error for side in sides))
        before += abs(sides[0].value - sides[1].value - 0.1) <= 1.959964 * error
        low, high = family.self_preference_estimate.interval()
        after += low <= 0.1 <= high
    name = "self-preference, other opponents for each judge"
    return Claim(name, "coverage", before / draws, after / draws, 0.93, 0.97, draws)
