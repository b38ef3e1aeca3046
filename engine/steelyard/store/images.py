"""The images of a run, each once, in files named by their digests.

They are written while a run is planned, and are durable before its plan is. They may be removed
with the plan's texts once the run is complete.
"""

from __future__ import annotations

import os
from pathlib import Path

from steelyard.core.images import image_digest
from steelyard.errors import IntegrityFault
from steelyard.store.durable import TEMPORARY, writing


class ImageStore:
    """A folder of images: `<first two digits>/<digest>`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, digest: str, raw: bytes) -> None:
        """Keep an image; it is durable after `sync`.

        Raises:
            DiskFull: there is no room.
            EnvironmentFault: it cannot be written.
        """
        path = self._path(digest)
        if path.exists() and path.stat().st_size == len(raw):
            return
        temporary = path.with_name(path.name + TEMPORARY)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(raw)
            temporary.replace(path)

    def sync(self) -> None:
        """Force everything to the disk, at once: a sync for each of a million files takes hours."""
        if self._folder.exists():
            os.sync()

    def get(self, digest: str) -> bytes:
        """Return an image's bytes.

        Raises:
            IntegrityFault: they are missing, or not those that were kept.
        """
        path = self._path(digest)
        try:
            raw = path.read_bytes()
        except OSError:
            raw = b""
        if image_digest(raw) != digest:
            raise IntegrityFault(
                "an image of the run is damaged or missing",
                place=str(path),
                effect="its pairs cannot be judged by this plan; its reads are intact",
                remedy="score the same input into a new run directory with `--reuse` of this one",
            )
        return raw

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest
