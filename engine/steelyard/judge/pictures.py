"""Prompts with images as vLLM takes them, made without vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from steelyard.batches import Workload
from steelyard.images import decode_image
from steelyard.store.images import ImageStore

_HELD = 16  # decoded images at hand: a pair's prompts follow each other


@dataclass(frozen=True, slots=True)
class Pictures:
    """The images of a run's prompts."""

    store: ImageStore

    @classmethod
    def of(cls, workload: Workload) -> Pictures | None:
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


def rendered(engine: Any, prompt: dict[str, Any]) -> Any:
    """The prompt as the engine's own renderer makes it; as it is where an engine has none."""
    render = getattr(getattr(engine, "renderer", None), "render_cmpl", None)
    return prompt if render is None else render([prompt])[0]


@lru_cache(_HELD)
def _decoded(store: ImageStore, digest: str) -> Any:
    return decode_image(store.get(digest))
