"""From log-probabilities and texts to labels and numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from steelyard.core.judges import Answer
from steelyard.core.schemas import Float64
from steelyard.judge.base import Encoder
from steelyard.protocols.parsing import find_label, probability, two_scores

NO_ANSWER = "the text holds no answer"
# Probabilities come from a softmax in float32: their sum over all labels may pass 1 by rounding.
MASS_TOLERANCE = 1e-3


def merge_variants(logprobs: Float64, starts: Sequence[int]) -> tuple[Float64, Float64]:
    """Merge the surface forms of each label by log-sum-exp.

    Args:
        logprobs: n x variants, natural logarithms, label after label.
        starts: first column of each label.

    Returns:
        label log-probabilities (n x labels) and label mass (n, in [0, 1]). Rows with a value that
        is not finite, or whose mass passes 1 by more than rounding, are NaN: they are not reads.
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


class TextReader:
    """Reads what a judge wrote, as `Answer.kind` says."""

    def __init__(self, answer: Answer, encoder: Encoder) -> None:
        self._answer, self._encoder = answer, encoder

    def text(self, sampled: Sequence[int]) -> tuple[list[int], str]:
        """Return the ids without the one that ended the text, and the text."""
        ids = list(sampled)
        if ids and ids[-1] in self._answer.ends:
            ids.pop()
        return ids, self._encoder.decode(ids)

    def numbers(self, text: str) -> list[float] | None:
        """Return two scores, or a probability; None: the text holds no answer."""
        if self._answer.kind == "scores":
            scores = two_scores(text, self._answer.low, self._answer.high)
            return None if scores is None else list(scores)
        value = probability(text, self._answer.tag)
        return None if value is None else [value]

    def verdict_position(self, ids: Sequence[int], text: str) -> int | None:
        """Return the index of the id that is the label of the text's verdict.

        None where the text has no verdict, or spells it with a token that is not a label's.
        """
        verdict = find_label(text, self._answer.labels.names)
        if verdict is None:
            return None
        label, start = verdict
        # The shortest beginning of the ids whose text reaches past the label's start.
        counts = range(len(ids) + 1)
        position = bisect_right(counts, start, key=lambda n: len(self._encoder.decode(ids[:n]))) - 1
        forms = {variant.token_id for variant in self._answer.labels.variants[label]}
        fits = 0 <= position < len(ids) and ids[position] in forms
        return position if fits else None
