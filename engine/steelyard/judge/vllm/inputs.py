"""Prompts with images as vLLM takes them, made without vLLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from steelyard.core.batches import Workload
from steelyard.core.images import decode_image
from steelyard.core.judges import Answer
from steelyard.store.images import ImageStore

_HELD = 16  # decoded images at hand: a pair's prompts follow each other


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """The images of a run's prompts."""

    store: ImageStore

    @classmethod
    def of(cls, workload: Workload) -> ImageInputs | None:
        """Those that a workload names; None where it has none."""
        folder = workload.image_folder
        return None if folder is None else cls(ImageStore(Path(folder)))

    def prompt(self, ids: list[int], digests: Sequence[str]) -> dict[str, Any]:
        """A prompt in which the engine puts each image where its placeholder stands.

        The digests tell the engine which images are equal: an equal one is processed once, and
        blocks of its prefix cache are shared by equal images only.

        Args:
            ids: of the prompt, with one placeholder an image.
            digests: of its images, in their order.

        Raises:
            IntegrityFault: an image is damaged or missing.
        """
        return {
            "prompt_token_ids": ids,
            "multi_modal_data": {"image": [_decoded(self.store, one) for one in digests]},
            "multi_modal_uuids": {"image": list(digests)},
        }


def render_prompt(engine: Any, prompt: dict[str, Any]) -> Any:
    """The prompt as the engine's own renderer makes it; as it is where an engine has none."""
    render = getattr(getattr(engine, "renderer", None), "render_cmpl", None)
    return prompt if render is None else render([prompt])[0]


@lru_cache(_HELD)
def _decoded(store: ImageStore, digest: str) -> Any:
    return decode_image(store.get(digest))


class Sampling:
    """Makes the parameters; see `RequestQueue`.

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
