"""Proper scoring rules for stated probabilities: Brier and logarithmic (arXiv 2510.00263)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized
from numbers import Real

from steelyard.errors import RewardRefused, escape
from steelyard.protocols import get_protocol
from steelyard.protocols.parsing import probability as read_probability
from steelyard.rewards.messages import Text, completion_text

PROTOCOL = "verbalized"  # the models answer its prompts, with its tag
EPSILON = 1e-3  # probabilities are kept this far from 0 and 1 before the logarithm


def brier(
    completions: Sequence[Text],
    probability: Sequence[float] | None = None,
    **columns: object,  # noqa: ARG001 - trainers pass all columns
) -> list[float]:
    """Return 1 - (p - y)^2, in [0, 1], or 0 if no probability p can be read.

    p is read in the same way as by the protocol `verbalized`: from the last `<probability>` tag.

    Args:
        completions: n texts or conversations.
        probability: the targets y, n numbers in [0, 1]: the probability that each completion
            should state, as an answer to the question in its prompt.
        **columns: further columns of the dataset, which are ignored.

    Raises:
        RewardRefused: there is no column `probability`, a target is missing or out of range, or a
            completion is not a text.
    """
    return _rewards(completions, probability, lambda p, y: 1 - (p - y) ** 2, 0.0)


def logarithmic(
    completions: Sequence[Text],
    probability: Sequence[float] | None = None,
    **columns: object,  # noqa: ARG001 - trainers pass all columns
) -> list[float]:
    """Return y log p' + (1 - y) log(1 - p') with p' = p clipped to [0.001, 0.999].

    The reward is in [log 0.001, 0], and log 0.001 if no probability p can be read. Arguments and
    errors are those of `brier`.
    """

    def reward(p: float, y: float) -> float:
        clipped = min(max(p, EPSILON), 1 - EPSILON)
        return y * math.log(clipped) + (1 - y) * math.log(1 - clipped)

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
            f"there are {count} completions and {given} column `probability`",
            remedy="train on a dataset with the target of each prompt in that column",
        )
    for number, target in enumerate(probability):
        is_number = isinstance(target, Real) and not isinstance(target, bool)
        if not is_number or not 0 <= target <= 1:  # NaN, too
            raise RewardRefused(
                f"the target `probability` is {escape(target)}",
                place=f"completion {number}",
                remedy="give every prompt a target from 0 to 1",
            )
    return [float(target) for target in probability]
