"""What vLLM takes with a prompt: sampling parameters and images. Made without vLLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

from steelyard.core.images import BadImageError, decode_image
from steelyard.core.judges import Answer
from steelyard.errors import IntegrityFault
from steelyard.store.images import ImageStore

_DECODED = 16  # images kept decoded: a pair's prompts follow each other


class Sampling:
    """Makes the sampling parameters of requests, by vLLM's class `SamplingParams`.

    `seeded` gives each prompt a separate seed, so that it gets the same text again.
    """

    def __init__(self, parameters: Callable[..., Any], answer: Answer, *, seeded: bool) -> None:
        self._parameters, self._answer, self._seeded = parameters, answer, seeded

    def __call__(self, key: bytes | None) -> Any:
        """Return parameters for the prompt with this key; None: for the label alone."""
        if key is None or not self._answer.writes:
            return self._label
        if not self._answer.temperature or not self._seeded:
            return self._text
        seeded = self._text.clone()
        seeded.seed = int.from_bytes(key[:4], "little")
        return seeded

    @cached_property
    def _label(self) -> Any:
        return self._make(logprob_token_ids=self._answer.labels.token_ids, flat_logprobs=True)

    @cached_property
    def _text(self) -> Any:
        answer, labels = self._answer, {}
        if answer.labels.names:  # read at every position: it is not known where the verdict will be
            labels = {"logprob_token_ids": answer.labels.token_ids, "flat_logprobs": True}
        return self._make(
            max_tokens=answer.max_tokens,
            temperature=answer.temperature,
            stop_token_ids=list(answer.ends),
            **labels,
        )

    def _make(self, **chosen: Any) -> Any:
        defaults = {"max_tokens": 1, "temperature": 0.0, "detokenize": False}
        return self._parameters(**defaults | chosen)


def image_prompt(store: ImageStore, ids: list[int], digests: Sequence[str]) -> dict[str, Any]:
    """Make a prompt in which the engine puts each image in the position of its placeholder.

    By the digests the engine sees which images are equal: it processes equal images once, and
    shares blocks of its prefix cache between equal images only. `ids` holds one placeholder per
    image.

    Raises:
        IntegrityFault: an image is damaged or missing.
    """
    return {
        "prompt_token_ids": ids,
        "multi_modal_data": {"image": [_decoded(store, digest) for digest in digests]},
        "multi_modal_uuids": {"image": list(digests)},
    }


def render_prompt(engine: Any, prompt: dict[str, Any]) -> Any:
    """Let the engine's own renderer process a prompt, where the engine has a renderer."""
    render = getattr(getattr(engine, "renderer", None), "render_cmpl", None)
    return prompt if render is None else render([prompt])[0]


@lru_cache(_DECODED)
def _decoded(store: ImageStore, digest: str) -> Any:
    try:
        return decode_image(store.get(digest))
    except BadImageError as error:  # planning keeps what can be decoded
        raise IntegrityFault(
            f"an image of the run {error}",
            place=digest,
            effect="its pairs cannot be judged; reads are intact",
            remedy="score the same input into a new run directory with `--reuse` of this one",
        ) from error
