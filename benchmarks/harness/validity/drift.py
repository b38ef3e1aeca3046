"""Drift of preferences: false alarms, and whether the smallest shift reported is noticed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.validity.claim import Claim
from steelyard.core.schemas import Float64, Int64
from steelyard.statistics.drift import Reference, measure_drift
from steelyard.statistics.logistic import sigmoid

# Instructions of the calibration set and of the scored pairs, pairs of each, and the correlation
# of an instruction's logits.
SHAPES = [(600, 3000, 1, 0.0), (100, 300, 10, 0.5), (60, 400, 20, 0.3), (40, 200, 30, 0.8)]
ALARMS, NOTICED = 0.02, 0.8


def draw_preferences(
    draw: np.random.Generator, instructions: int, each: int, correlation: float
) -> tuple[Float64, Int64]:
    """Return preferences of pairs whose instruction moves all of them, and the instructions."""
    groups = np.repeat(np.arange(instructions), each)
    shared = draw.normal(0, np.sqrt(correlation), instructions)[groups]
    return sigmoid(2 * (shared + draw.normal(0, np.sqrt(1 - correlation), len(groups)))), groups


def simulate(draws: int) -> Iterator[Claim]:
    """Compare pairs of one population, and pairs that are shifted by what would be noticed."""
    for known, scored, each, correlation in SHAPES:
        alarms = np.zeros((draws, 2))
        noticed = np.zeros(draws)
        for seed in range(draws):
            draw = np.random.default_rng(seed)
            old, old_groups = draw_preferences(draw, known, each, correlation)
            new, new_groups = draw_preferences(draw, scored, each, correlation)
            alarms[seed, 0] = measure_drift(Reference.of(old), new).drifted
            reference = Reference.of(old, old_groups)
            found = measure_drift(reference, new, new_groups)
            alarms[seed, 1] = found.drifted
            # A share of instructions moves above all others: the distance is that share.
            moved = draw.random(scored)[new_groups] < found.smallest
            noticed[seed] = measure_drift(reference, np.where(moved, 1.0, new), new_groups).drifted
        before, after = alarms.mean(axis=0).tolist()
        name = f"{known:,} and {scored:,} instructions of {each}, correlation {correlation:g}"
        yield Claim(f"{name}, no drift", "false alarms", before, after, 0, ALARMS, draws)
        yield Claim(
            f"{name}, smallest shift", "shifts noticed", None, float(noticed.mean()), NOTICED, 1,
            draws,
        )  # fmt: skip
