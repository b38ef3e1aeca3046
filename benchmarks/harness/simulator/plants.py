"""Known bugs, put back on purpose: the simulator has to find each."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from steelyard.store.disk import RawFile
from steelyard.store.folder import Folder
from steelyard.store.reads import parts


class _OldWorker:
    """The worker that waited for a second end mark when its last item failed."""

    def __init__(self, handle, *, waiting, name, flush, flush_after) -> None:
        self._handle, self._flush, self._flush_after = handle, flush, flush_after
        self._queue: queue.Queue = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def give(self, item) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def close(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while self._handle_next():
                pass
        except BaseException as error:
            self._error = error
            while self._queue.get() is not None:
                pass

    def _handle_next(self) -> bool:
        try:
            item = self._queue.get(timeout=self._flush_after())
        except queue.Empty:
            self._flush()
            return True
        if item is None:
            self._flush()
            return False
        self._handle(item)
        return True


def _last_part_hang() -> None:
    parts.Worker = _OldWorker


def _missing_fsync() -> None:
    """Name files before they are forced to the disk."""
    RawFile.sync = lambda _: None


def _missing_folder_fsync() -> None:
    """Give names that are not forced to the disk."""
    sync = Folder.sync

    def files_only(self, name: str = "") -> None:
        if name and not (self.path / name).is_dir():
            sync(self, name)

    Folder.sync = files_only


def _journal_cut() -> None:
    """Leave what an append has written when the rest cannot be written."""
    append = Folder.append

    def keep(self, name: str, data: bytes, *, durable: bool = True) -> None:
        disk = self.disk
        truncate, disk.truncate = disk.truncate, lambda *_: None
        try:
            append(self, name, data, durable=durable)
        finally:
            disk.truncate = truncate

    Folder.append = keep


PLANTS: dict[str, Callable[[], None]] = {
    "last-part-hang": _last_part_hang,
    "missing-fsync": _missing_fsync,
    "missing-folder-fsync": _missing_folder_fsync,
    "journal-cut": _journal_cut,
}
