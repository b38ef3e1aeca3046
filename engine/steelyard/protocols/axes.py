"""What is asked about a pair: the axes along which its prompts differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from steelyard.core.schemas import Int64
from steelyard.protocols.protocol import ORDERS

HEAVIEST = 1e6  # weight of a criterion
_Count = Annotated[int, Meta(ge=1, le=1000)]


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion of a rubric."""

    text: str
    weight: Annotated[float, Meta(gt=0, lt=HEAVIEST)] = 1.0


@dataclass(frozen=True, slots=True)
class AxisPosition:
    """Positions of prompts on the axes; arrays of one length, numbers from 0."""

    judge: Int64
    variant: Int64
    criterion: Int64
    sample: Int64
    swapped: Int64  # 1: response_b comes first, or alone


@dataclass(frozen=True, slots=True)
class PromptAxes:
    """What is asked about every pair.

    A pair's prompts come in the order of these axes, outermost first: judge, variant (of the
    prompt), criterion, sample, order.
    """

    shows: Literal["pair", "response"] = "pair"  # as in a protocol
    judges: _Count = 1
    variants: _Count = 1  # of the prompt
    samples: _Count = 1  # per prompt
    criteria: tuple[Criterion, ...] = ()  # of every pair; empty where rows have their own
    row_criteria: bool = False  # whether rows have their own criteria

    @property
    def orders(self) -> tuple[str, ...]:
        """Names of the orders; in the first, response_a comes first."""
        return ORDERS[self.shows]

    @property
    def one_per_order(self) -> bool:
        """Whether every pair is asked about at most once in each order."""
        more = self.judges * self.variants * self.samples * max(len(self.criteria), 1) > 1
        return not (more or self.row_criteria)

    def locate(self, number: Int64, count: Int64, orders: Int64) -> AxisPosition:
        """Find prompts on the axes.

        Args:
            number: of each prompt within its pair, from 0.
            count: prompts of its pair.
            orders: number of orders in which its pair is shown; 1 for a single response.
        """
        criteria = count // (self.judges * self.variants * self.samples * orders)
        rest, swapped = np.divmod(number, orders)
        rest, sample = np.divmod(rest, self.samples)
        rest, criterion = np.divmod(rest, criteria)
        judge, variant = np.divmod(rest, self.variants)
        return AxisPosition(judge, variant, criterion, sample, swapped)
