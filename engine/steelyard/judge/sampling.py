"""vLLM's parameters for one request."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from steelyard.records import Answer


class Sampling:
    """Makes the parameters; see `Feed`.

    Args:
        parameters: vLLM's class of them.
        answer: how answers are read.
        seeded: whether each prompt has a seed of its own, so that it gets the same text again.
    """

    def __init__(
        self, parameters: Callable[..., Any], answer: Answer, *, seeded: bool = True
    ) -> None:
        self._parameters, self._answer, self._seeded = parameters, answer, seeded

    def __call__(self, key: bytes | None) -> Any:
        """For the prompt with this key; for the label alone where it is None."""
        if key is None or not self._answer.writes:
            return self._label
        if not self._answer.temperature or not self._seeded:
            return self._text
        chosen = self._text.clone()
        chosen.seed = int.from_bytes(key[:4], "little")
        return chosen

    @cached_property
    def _label(self) -> Any:
        return self._made(logprob_token_ids=self._answer.labels.token_ids, flat_logprobs=True)

    @cached_property
    def _text(self) -> Any:
        answer = self._answer
        labels = {}
        if answer.labels.names:  # read where the verdict will turn out to be
            labels = {"logprob_token_ids": answer.labels.token_ids, "flat_logprobs": True}
        return self._made(
            max_tokens=answer.max_tokens,
            temperature=answer.temperature,
            stop_token_ids=list(answer.ends),
            **labels,
        )

    def _made(self, **chosen: Any) -> Any:
        return self._parameters(
            **{"max_tokens": 1, "temperature": 0.0, "detokenize": False} | chosen
        )
