"""A row's images -> their digests. Every image is decoded here, so that bad ones are rejected."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from steelyard.core.images import (
    IMAGE_BYTES,
    MOST_IMAGES,
    BadImageError,
    decode_image,
    image_digest,
    write_digests,
)
from steelyard.errors import escape
from steelyard.input.problems import Reason, RowProblems

# Takes the bytes of a good image under their digest.
Keep = Callable[[str, bytes], None]


class ImageReader:
    """Finds the images of rows; `keep` is given every image once.

    Paths are those of files in the shard's folder or below it, through links or not.
    """

    def __init__(self, keep: Keep | None = None) -> None:
        self._keep = keep
        self._good: set[str] = set()

    def read(self, values: pa.Array, folder: str | None, problems: RowProblems) -> pa.Array:
        """Return the digests of each row's images (images.write_digests); null if it has none.

        Too many images, or one that cannot be used, are a problem. `folder` is the shard's; None
        if that is not on this machine.
        """
        root = None if folder is None else Path(folder).resolve()
        texts: list[str | None] = []
        for row, value in enumerate(values):
            try:
                items = enumerate(_items(value), 1)
                digests = [self._digest(item, root, number) for number, item in items]
            except BadImageError as error:
                problems.add(np.arange(len(values)) == row, Reason.IMAGES, str(error))
                digests = []
            texts.append(write_digests(digests) if digests else None)
        return pa.array(texts, pa.string())

    def _digest(self, item: bytes | str | None, root: Path | None, number: int) -> str:
        try:
            raw = item if isinstance(item, bytes) else _read(item, root)
            digest = image_digest(raw)
            if digest not in self._good:
                decode_image(raw)
                if self._keep is not None:
                    self._keep(digest, raw)
                self._good.add(digest)
        except BadImageError as error:
            raise BadImageError(f"image {number} {error}") from None
        return digest


def _items(value: pa.Scalar) -> list[bytes | str | None]:
    """Return the bytes or path of each of a row's images; None for one that has neither."""
    if not value.is_valid:
        return []
    items = list(value.values) if pt.is_list(value.type) else [value]
    if len(items) > MOST_IMAGES:
        raise BadImageError(f"the row has {len(items)} images; the limit is {MOST_IMAGES}")
    return [_plain(item) for item in items]


def _plain(item: pa.Scalar) -> bytes | str | None:
    content = item.as_py()
    if isinstance(content, dict):
        raw = content.get("bytes")
        content = content.get("path") if raw is None else raw
    return content  # type: ignore[no-any-return]


def _read(path: str | None, root: Path | None) -> bytes:
    """Return the bytes of a file below the shard's folder."""
    if not path:
        raise BadImageError("has neither bytes nor a path")
    shown = escape(path)
    if root is None or "://" in path or path.startswith("data:"):
        raise BadImageError(f"is not a file in the shard's folder: {shown}")
    try:
        file = (root / path).resolve(strict=True)
        if not file.is_relative_to(root):
            raise BadImageError(f"lies outside the shard's folder: {shown}")
        facts = file.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise BadImageError(f"is not a file: {shown}")
        if facts.st_size > IMAGE_BYTES:
            raise BadImageError(f"has {facts.st_size:,} bytes; the limit is {IMAGE_BYTES:,}")
        return file.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL; RuntimeError: a loop
        cause = getattr(error, "strerror", None) or "the path is not valid"
        raise BadImageError(f"cannot be read ({cause}): {shown}") from None
