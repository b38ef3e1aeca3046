"""What a judge wrote -> numbers, or the place of its verdict."""

from __future__ import annotations

from collections.abc import Sequence

from steelyard.judge.base import Encoder
from steelyard.protocols.parsing import find_label, probability, two_scores
from steelyard.records import Answer

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
