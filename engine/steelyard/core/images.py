"""Images: which files are accepted, their digests, and what a judge is shown of them."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import xxhash

from steelyard.errors import IntegrityFault, JudgeUnavailable, escape

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_IMAGES = 8  # per row
IMAGE_BYTES = 16 << 20  # per file
IMAGE_PIXELS = 50_000_000  # a small file can unpack to far more than memory holds
# Decoders that are not asked for are not run on foreign bytes.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# Part of the keys of prompts with images: raise it when equal bytes would be shown differently.
IMAGE_RULE = "1: first frame, upright, on white, RGB; before the text of the user message"

_DIGESTS = Annotated[
    list[Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]],
    msgspec.Meta(max_length=MOST_IMAGES),
]
_BOMB = f"has more than {IMAGE_PIXELS:,} pixels"


class BadImageError(Exception):
    """Bytes that are not accepted as an image; the text says why."""


def image_digest(raw: bytes) -> str:
    """Hash a file's bytes with xxh3_128, to 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(raw)


def write_digests(digests: Sequence[str]) -> str:
    """Write the digests of a row's images, in their order, as one text for the plan."""
    return json.dumps(list(digests))


def read_digests(text: str | None) -> tuple[str, ...]:
    """Read what `write_digests` wrote; null means no images.

    Raises:
        IntegrityFault: it is not a list of digests, which become names of files.
    """
    if text is None:
        return ()
    try:
        return tuple(msgspec.json.decode(text, type=_DIGESTS))
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise IntegrityFault(
            f"the images of a row are not digests: {escape(error, 200)}",
            effect="the plan cannot be judged; reads are intact",
            remedy="score the same input into a new run directory with `--reuse` of this one",
        ) from None


def decode_image(raw: bytes) -> Image:
    """Decode a file as a judge is shown it: RGB, upright, transparent parts white, first frame.

    Raises:
        BadImageError: it is not in FORMATS, is damaged, or exceeds IMAGE_BYTES or IMAGE_PIXELS.
        JudgeUnavailable: Pillow is missing.
    """
    image, operations = _pillow()
    if len(raw) > IMAGE_BYTES:
        raise BadImageError(f"has {len(raw):,} bytes; the limit is {IMAGE_BYTES:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit of pixels is a warning
            opened = image.open(io.BytesIO(raw), formats=FORMATS)
            width, height = opened.size
            if width * height > IMAGE_PIXELS:
                raise BadImageError(_BOMB)
            opened.load()
            return _plain(image, operations.exif_transpose(opened))
    except BadImageError:
        raise
    except image.DecompressionBombError:  # more than Pillow opens at all
        raise BadImageError(_BOMB) from None
    except Exception as error:  # decoders raise what they like on damaged bytes
        raise BadImageError("cannot be decoded as PNG, JPEG, WebP, GIF, BMP or TIFF") from error


def _plain(image: Any, upright: Image) -> Image:  # noqa: ANN401 - Pillow's module
    if upright.mode in {"RGBA", "LA", "PA"} or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        white = image.new("RGBA", layer.size, "white")
        upright = image.alpha_composite(white, layer)
    return upright.convert("RGB")


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise JudgeUnavailable(
            "the input has images, and the package Pillow, which reads them, is missing",
            effect="nothing was read",
            remedy="pip install pillow (it comes with vLLM), or leave images out: --map images=",
        ) from error
    return Image, ImageOps
