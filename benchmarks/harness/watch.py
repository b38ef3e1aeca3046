"""Watches folders by inotify: which of their entries any process opens, reads, writes or makes."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from types import TracebackType

_EVENT = struct.Struct("iIII")
_KINDS = {
    0x1: "read", 0x2: "written", 0x4: "changed", 0x20: "opened", 0x40: "moved away",
    0x80: "moved in", 0x100: "made", 0x200: "removed", 0x400: "removed", 0x800: "moved",
}  # fmt: skip
_FOLDER = 0x40000000  # what happened to a folder itself: listing it harms nobody


class Watch:
    """Collects what happens in some folders while it is open.

    Args:
        folders: watched without the folders inside them.

    Raises:
        OSError: inotify refuses.
    """

    def __init__(self, folders: list[Path]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._handle < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1 failed")
        self._folders: dict[int, Path] = {}
        for folder in folders:
            mask = 0
            for bit in _KINDS:
                mask |= bit
            number = self._libc.inotify_add_watch(self._handle, os.fsencode(folder), mask)
            if number < 0:
                raise OSError(ctypes.get_errno(), f"inotify_add_watch failed for {folder}")
            self._folders[number] = folder

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._handle)

    def events(self) -> list[str]:
        """Return what has happened since the last call, as `path was read`."""
        found = []
        while True:
            try:
                data = os.read(self._handle, 1 << 16)
            except BlockingIOError:
                return sorted(set(found))
            start = 0
            while start < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, start)
                start += _EVENT.size
                name = data[start : start + length].rstrip(b"\0")
                start += length
                if mask & _FOLDER and mask & 0x21:
                    continue
                words = [word for bit, word in _KINDS.items() if mask & bit]
                found.append(f"{self._folders[number] / os.fsdecode(name)} was {words[0]}")
