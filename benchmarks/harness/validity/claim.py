"""A claim about draws from a known truth, and whether the draws bear it out."""

from __future__ import annotations

import math
from dataclasses import dataclass

ALLOWED_ERRORS = 2.0  # standard errors of a share over draws


@dataclass(frozen=True, slots=True)
class Claim:
    """A share of draws, with the range in which it has to be.

    `before` is the share for the plain estimator that Steelyard's replaced, written out in the
    simulation; None where there was none.
    """

    simulation: str  # what is drawn: data and sizes
    measure: str  # "coverage", "family-wise error", "broken promises", ...
    before: float | None
    after: float
    low: float
    high: float
    draws: int

    @property
    def holds(self) -> bool:
        """Whether `after` is in its range, up to the error of that many draws."""
        return bool(self._room(self.low) <= self.after <= self._room(self.high, above=True))

    def _room(self, bound: float, *, above: bool = False) -> float:
        error = ALLOWED_ERRORS * math.sqrt(bound * (1 - bound) / self.draws)
        return bound + error if above else bound - error
