"""The images of a run, each once, in files named by their digests.

They are written while a run is planned, and are durable before its plan is. They may be removed
with the plan's texts once the run is complete.
"""

from __future__ import annotations

from contextlib import suppress
from io import BufferedWriter

from steelyard.core.images import IMAGE_BYTES, image_digest
from steelyard.errors import IntegrityFault
from steelyard.store.durable import TEMPORARY, reading, writing
from steelyard.store.folder import Folder


class ImageStore:
    """A folder of images: `<first two digits>/<digest>`."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def add(self, digest: str, raw: bytes) -> None:
        """Keep an image; it is durable after `sync`.

        Raises:
            DiskFull: there is no room.
            EnvironmentFault: it cannot be written.
        """
        name = _name(digest)
        with writing(self._folder.path / name):
            if self._folder.size(name) == len(raw):
                return
            self._folder.make()
            self._folder.inside(name.partition("/")[0]).make()
            with (
                self._folder.create(name + TEMPORARY) as raw_file,
                BufferedWriter(raw_file) as file,
            ):
                file.write(raw)
            self._folder.move(name + TEMPORARY, name)

    def sync(self) -> None:
        """Force everything to the disk, at once: a sync for each of a million files takes hours."""
        if self._folder.exists():
            self._folder.disk.sync_everything()

    def get(self, digest: str) -> bytes:
        """Return an image's bytes.

        Raises:
            IntegrityFault: they are missing, or not those that were kept.
            EnvironmentFault: the disk or the operating system does not give them.
        """
        name, raw = _name(digest), b""
        with reading(self._folder.path / name), suppress(FileNotFoundError):
            if self._folder.size(name) <= IMAGE_BYTES:
                raw = self._folder.read(name)
        if image_digest(raw) != digest:
            raise IntegrityFault(
                "an image of the run is damaged or missing",
                place=str(self._folder.path / name),
                effect="its pairs cannot be judged by this plan; its reads are intact",
                remedy="score the same input into a new run directory with `--reuse` of this one",
            )
        return raw


def _name(digest: str) -> str:
    return f"{digest[:2]}/{digest}"
