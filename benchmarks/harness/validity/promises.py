"""Thresholds of trust: how often is agreement below what was promised?"""

from __future__ import annotations

from collections.abc import Iterator

from harness.validity.claim import Claim
from support.trust_data import GOLD_SHAPES, JUDGES, broken_and_found

AGREEMENT = 0.9
ALLOWED = 0.05  # share of fits that may break a promise at a confidence of 95%


def simulate(draws: int) -> Iterator[Claim]:
    """Fit thresholds to gold that is wrong for whole instructions."""
    for shape, (instructions, _) in GOLD_SHAPES.items():
        for judge in JUDGES:
            broken, _ = broken_and_found(
                shape, judge, draws, agreement=AGREEMENT, instructions=instructions
            )
            name = f"threshold for {AGREEMENT:.0%}: {instructions:,} instructions {shape}, {judge}"
            yield Claim(name, "broken promises", None, broken / draws, 0, ALLOWED, draws)
