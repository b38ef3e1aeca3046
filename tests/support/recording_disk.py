"""A Disk that keeps the order of its calls, and fails those that a test names."""

from __future__ import annotations

import fnmatch
import os

from steelyard.store.disk import Disk

QUIET = {"open_folder", "open_file", "close", "status", "status_of", "names", "read"}


class RecordingDisk(Disk):
    """Calls as (kind, name), names relative to `root`: `.` is the root itself, `..` its parent."""

    def __init__(self, root):
        self.root = root
        self.every = []
        self.handles = {}
        self._faults, self._most = [], {}

    @property
    def calls(self):
        """The calls that change or force something."""
        return [(kind, name) for kind, name, *_ in self.every if kind not in QUIET]

    def of(self, *kinds):
        """The calls of some kinds."""
        return [call for call in self.every if call[0] in kinds]

    def fail(self, kind, pattern, error, *, skip=0, times=1):
        """Have the next calls of a kind, on a name like this, fail; `error` is an errno."""
        self._faults.append([kind, pattern, error, skip, times])

    def shorten(self, pattern, most):
        """Have writes to a name like this write so many bytes at most, each time."""
        self._most[pattern] = most

    def _note(self, kind, name, *more):
        self.every.append((kind, name, *more))
        for fault in self._faults:
            wanted, pattern, error, skip, times = fault
            if wanted != kind or not fnmatch.fnmatch(name, pattern) or times <= 0:
                continue
            if skip:
                fault[3] -= 1
                continue
            fault[4] -= 1
            raise OSError(error, os.strerror(error))

    def _name(self, name, folder):
        if folder is None:
            return os.path.relpath(name, self.root)
        return os.path.normpath(f"{self.handles[folder]}/{name}")

    def open_folder(self, name, folder=None):
        full = self._name(name, folder)
        self._note("open_folder", full)
        handle = super().open_folder(name, folder)
        self.handles[handle] = full
        return handle

    def open_file(self, name, flags, folder):
        full = self._name(name, folder)
        self._note("open_file", full)
        handle = super().open_file(name, flags, folder)
        self.handles[handle] = full
        return handle

    def close(self, handle):
        self._note("close", self.handles.pop(handle, "?"))
        super().close(handle)

    def status(self, name, folder):
        self._note("status", self._name(name, folder))
        return super().status(name, folder)

    def names(self, folder):
        self._note("names", self.handles[folder])
        return super().names(folder)

    def read(self, handle, size):
        self._note("read", self.handles[handle])
        return super().read(handle, size)

    def write(self, handle, data):
        name = self.handles[handle]
        self._note("write", name, len(data))
        fitting = (most for pattern, most in self._most.items() if fnmatch.fnmatch(name, pattern))
        return super().write(handle, data[: next(fitting, len(data))])

    def truncate(self, handle, size):
        self._note("truncate", self.handles[handle], size)
        super().truncate(handle, size)

    def sync(self, handle):
        self._note("sync", self.handles[handle])
        super().sync(handle)

    def make_folder(self, name, folder=None):
        self._note("make_folder", self._name(name, folder))
        super().make_folder(name, folder)

    def rename(self, name, folder, new_name, new_folder):
        self._note("rename", self._name(name, folder), self._name(new_name, new_folder))
        super().rename(name, folder, new_name, new_folder)

    def remove(self, name, folder):
        self._note("remove", self._name(name, folder))
        super().remove(name, folder)

    def remove_tree(self, name, folder):
        self._note("remove_tree", self._name(name, folder))
        super().remove_tree(name, folder)

    def lock(self, handle, operation):
        self._note("lock", self.handles[handle])
        super().lock(handle, operation)

    def sync_everything(self):
        self._note("sync_everything", ".")
