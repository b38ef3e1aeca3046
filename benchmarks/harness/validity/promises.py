"""Thresholds of trust at a first look: how often is agreement below what was promised?"""

from __future__ import annotations

from collections.abc import Iterator

from harness.validity.claim import Claim
from support.trust_data import GOLD_SHAPES, broken_and_found

ALLOWED = 0.05  # share of fits that may break a promise at a confidence of 95%
MANY = 1200  # tested instructions, with which thresholds exist
CAREFUL = "just too bad", "wrong when sure"  # judges whose errors are easily overlooked


def simulate(draws: int) -> Iterator[Claim]:
    """Fit thresholds to gold that is wrong for whole instructions."""
    for agreement in (0.9, 0.6):
        for shape, (usual, _) in GOLD_SHAPES.items():
            instructions = MANY if agreement > 0.6 else usual
            for judge in CAREFUL:
                broken, _ = broken_and_found(
                    shape, judge, draws, agreement=agreement, instructions=instructions
                )
                name = f"threshold for {agreement:.0%}: {instructions:,} {shape}, {judge}"
                yield Claim(name, "broken promises", None, broken / draws, 0, ALLOWED, draws)
    for shape in ("of 1 pair", "of 10 pairs", "of 15 pairs", "of 1 to 29 pairs"):
        _, found = broken_and_found(shape, "good", draws, agreement=0.9, instructions=MANY)
        name = f"threshold for 90%: {MANY:,} {shape}, good"
        yield Claim(name, "thresholds found", None, found / draws, 0.99, 1, draws)
