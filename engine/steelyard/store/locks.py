"""A lock that ends with its process: by `flock`, else by POSIX locks, else by process number."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from steelyard.store.disk import is_alive, now
from steelyard.store.folder import Folder

# What file systems answer that have no locks of any kind.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_OWNER = re.compile(r"process (\d+) on (\S+) since (\S*)")
_held: set[str] = set()  # files that this process has locked


class Held(Exception):
    """Another process has the lock; `owner` is what it wrote of itself, or empty."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


@contextmanager
def holding(files: Folder, name: str) -> Iterator[None]:
    """Hold the lock of a file, which is made if it is not there.

    Raises:
        Held: another process has it.
        OSError: the file cannot be written.
    """
    place = _place(files, name)
    if place in _held:  # POSIX locks do not ask their own process
        raise Held(f"process {os.getpid()}, this one")
    try:
        handle = files.lock(name, fcntl.LOCK_EX | fcntl.LOCK_NB, os.O_RDWR | os.O_CREAT)
    except BlockingIOError:
        raise Held(_owner(files, name)) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        if _owner_lives(files, name):
            raise Held(_owner(files, name)) from None
        handle = files.open_handle(name, os.O_RDWR | os.O_CREAT)
    disk = files.disk
    _held.add(place)
    try:
        owner = f"process {os.getpid()} on {platform.node()} since {now()}"
        disk.truncate(handle, 0)
        disk.write(handle, owner.encode())
        yield
    finally:
        _held.discard(place)
        with suppress(OSError):
            disk.truncate(handle, 0)
        disk.close(handle)


def is_held(files: Folder, name: str) -> bool:
    """Return whether a process has the lock now.

    Raises:
        OSError: the disk does not say.
    """
    if _place(files, name) in _held:  # a POSIX lock would end when the file was closed
        return True
    try:
        handle = files.lock(name, fcntl.LOCK_SH | fcntl.LOCK_NB, os.O_RDONLY)
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return _owner_lives(files, name)
    files.disk.close(handle)
    return False


def held_since(files: Folder, name: str) -> datetime | None:
    """Return when the process that has the lock got it, by what it wrote; None: it is not known."""
    owner = _OWNER.match(_owner(files, name))
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(owner[3]).astimezone(UTC) if owner else None
    return None


def _place(files: Folder, name: str) -> str:
    return os.path.realpath(files.path / name)


def _owner_lives(files: Folder, name: str) -> bool:
    """Return whether the process that a lock file names may be at work, without asking locks."""
    owner = _OWNER.match(_owner(files, name))
    if owner is None or owner[2] != platform.node():
        return owner is not None  # another machine cannot be asked
    return is_alive(int(owner[1]))


def _owner(files: Folder, name: str) -> str:
    try:
        return files.read(name)[:80].decode("ascii", "replace").strip()
    except OSError:
        return ""
