"""What a judge wrote -> numbers, or the place of its verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steelyard.core.judges import Answer
from steelyard.core.schemas import Float64
from steelyard.judge.base import Encoder
from steelyard.protocols.parsing import find_label, probability, two_scores

NO_ANSWER = "the text holds no answer"


class TextReader:
    """Reads texts as `Answer.kind` says.

    Args:
        answer: how.
        encoder: the judge's.
    """

    def __init__(self, answer: Answer, encoder: Encoder) -> None:
        self._answer, self._encoder = answer, encoder
        self._labels = frozenset(answer.labels.token_ids)

    def strip(self, ids: Sequence[int]) -> list[int]:
        """The ids without the one that ended the text."""
        ids = list(ids)
        return ids[:-1] if ids and ids[-1] in self._answer.ends else ids

    def text(self, ids: Sequence[int]) -> str:
        """What they say."""
        return self._encoder.decode(ids)

    def numbers(self, text: str) -> list[float] | None:
        """Two scores, or a probability; None: the text holds no answer."""
        if self._answer.kind == "scores":
            scores = two_scores(text, self._answer.low, self._answer.high)
            return None if scores is None else list(scores)
        found = probability(text, self._answer.tag)
        return None if found is None else [found]

    def verdict_at(self, ids: Sequence[int], text: str) -> int | None:
        """Which of the ids is the label of the verdict that the text gives.

        None where it gives none, or spells it with a token that is no form of a label.
        """
        found = find_label(text, self._answer.labels.names)
        if found is None:
            return None
        low, high = 0, len(ids)  # the shortest beginning whose text reaches past the label's start
        while low < high:
            middle = (low + high) // 2
            if len(self._encoder.decode(ids[:middle])) > found[1]:
                high = middle
            else:
                low = middle + 1
        at = low - 1
        label = self._answer.labels.variants[found[0]]
        fits = 0 <= at < len(ids) and ids[at] in {variant.token_id for variant in label}
        return at if fits else None


# Probabilities come from a softmax in float32: their sum over all labels may pass 1 by rounding.
MASS_TOLERANCE = 1e-3


def merge_variants(logprobs: Float64, starts: Sequence[int]) -> tuple[Float64, Float64]:
    """Merge the surface forms of each label by log-sum-exp.

    Args:
        logprobs: n x variants, natural logarithms, label after label.
        starts: first column of each label.

    Returns:
        Label log-probabilities (n x labels) and label mass (n, in [0, 1]). Rows with a value that
        is not finite, or whose mass passes 1 by more than rounding, come back as NaN: they are no
        reads, and `is_read` tells them apart.
    """
    if not starts:  # the protocol reads no labels
        return np.zeros((len(logprobs), 0)), np.full(len(logprobs), np.nan)
    with np.errstate(invalid="ignore", over="ignore"):  # such rows are marked below
        merged = np.logaddexp.reduceat(logprobs, np.asarray(starts), axis=1)
        mass = np.exp(merged).sum(axis=1)
    bad = ~np.isfinite(logprobs).all(axis=1) | ~(mass <= 1.0 + MASS_TOLERANCE)
    merged[bad] = np.nan
    mass[bad] = np.nan
    return merged, np.minimum(mass, 1.0)


def is_read(label_mass: Float64) -> np.typing.NDArray[np.bool_]:
    """Which rows of `merge_variants` hold a read."""
    return np.isfinite(label_mass)
