"""Rewards for a probability that a model states: Brier and logarithmic (arXiv 2510.00263)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized
from numbers import Real

from steelyard.errors import RewardRefused, escape
from steelyard.protocols import get_protocol
from steelyard.protocols.parsing import probability as read_probability
from steelyard.rewards.messages import Text, completion_text

PROTOCOL = "verbalized"  # whose prompts are answered, and whose tag is read
EPSILON = 1e-3  # how near to 0 and 1 a probability may come before its logarithm is taken


def brier(
    completions: Sequence[Text],
    probability: Sequence[float] | None = None,
    **columns: object,  # noqa: ARG001 - a trainer hands over all that it has
) -> list[float]:
    """1 - (p - y)^2, in [0, 1]; 0 where no probability p can be read.

    p is read as the protocol `verbalized` reads it: the last `<probability>` tag of the text.

    Args:
        completions: n texts or conversations.
        probability: the column of targets y, n numbers in [0, 1]: the probability that should be
            written, in the direction of the question that the prompt asks.
        **columns: not looked at.

    Raises:
        RewardRefused: there is no column of targets, one of them is missing or out of range, or a
            completion is no text.
    """
    return _rewards(completions, probability, lambda p, y: 1 - (p - y) ** 2, 0.0)


def logarithmic(
    completions: Sequence[Text],
    probability: Sequence[float] | None = None,
    **columns: object,  # noqa: ARG001 - a trainer hands over all that it has
) -> list[float]:
    """The reward y log p' + (1 - y) log(1 - p') with p' = p cut to [0.001, 0.999].

    It is in [log 0.001, 0], and log 0.001 where no probability p can be read. Arguments and errors
    are those of `brier`.
    """

    def reward(p: float, y: float) -> float:
        cut = min(max(p, EPSILON), 1 - EPSILON)
        return y * math.log(cut) + (1 - y) * math.log(1 - cut)

    return _rewards(completions, probability, reward, math.log(EPSILON))


def _rewards(
    completions: Sequence[Text],
    probability: Sequence[float] | None,
    reward: Callable[[float, float], float],
    unparsable: float,
) -> list[float]:
    targets = _targets(probability, len(completions))
    tag = get_protocol(PROTOCOL).tag
    stated = [
        read_probability(completion_text(completion, f"completion {number}"), tag)
        for number, completion in enumerate(completions)
    ]
    return [unparsable if p is None else reward(p, y) for p, y in zip(stated, targets, strict=True)]


def _targets(probability: Sequence[float] | None, count: int) -> list[float]:
    given = f"{len(probability)} values in the" if isinstance(probability, Sized) else "no"
    if not isinstance(probability, Sized) or len(probability) != count:
        raise RewardRefused(
            f"{count} completions, and {given} column `probability`",
            remedy="train on a dataset with the target of each prompt in a column of that name",
        )
    for number, target in enumerate(probability):
        counts = isinstance(target, Real) and not isinstance(target, bool)
        if not counts or not 0 <= target <= 1:  # NaN, too
            raise RewardRefused(
                f"the target `probability` is {escape(target)}",
                place=f"completion {number}",
                remedy="give every prompt a number from 0 to 1",
            )
    return [float(target) for target in probability]
