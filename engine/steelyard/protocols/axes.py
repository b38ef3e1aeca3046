"""What is asked about a pair: the axes along which its prompts stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Int64
from steelyard.protocols.protocol import ORDERS


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion of a rubric."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class AxisPosition:
    """Where prompts stand on the axes; arrays of one length, numbers from 0."""

    judge: Int64
    variant: Int64
    criterion: Int64
    sample: Int64
    swapped: Int64  # 1: response_b stands first, or alone


@dataclass(frozen=True, slots=True)
class PromptAxes:
    """What is asked about every pair.

    A pair's prompts come in the order of these axes, outermost first: judge, variant (of the
    prompt), criterion, sample, order.

    Attributes:
        shows: see Protocol.
        judges: how many.
        variants: how many.
        samples: how many.
        criteria: of every pair; empty where there are none, or rows bring their own.
        row_criteria: whether rows bring their own.
    """

    shows: str = "pair"
    judges: int = 1
    variants: int = 1
    samples: int = 1
    criteria: tuple[Criterion, ...] = ()
    row_criteria: bool = False

    @property
    def orders(self) -> tuple[str, ...]:
        """The words for the orders, that with response_a first before the other."""
        return ORDERS[self.shows]

    def place(self, at: Int64, count: Int64, orders: Int64) -> AxisPosition:
        """Where prompts stand.

        Args:
            at: number of each prompt within its pair, from 0.
            count: prompts of its pair.
            orders: in how many orders its pair is shown; 1 for a response alone.
        """
        sample, inner = self.samples, orders
        criteria = count // (self.judges * self.variants * sample * orders)
        at, swapped = np.divmod(at, inner)
        at, which = np.divmod(at, sample)
        at, criterion = np.divmod(at, criteria)
        judge, variant = np.divmod(at, self.variants)
        return AxisPosition(judge, variant, criterion, which, swapped)
