"""The operating system's calls that a run directory needs, in one object that a test can replace.

Entries are opened relative to the handle of their folder and never through a link. Nothing here
decides anything: what a call means for a run is decided in `folder`, and above it.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
import stat
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

# What file systems answer that cannot force a folder to the disk (CIFS, FUSE, VirtualBox).
_NOT_FOR_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}


class Disk:
    """Calls of the operating system; `folder` is the handle of the folder that holds an entry."""

    def open_folder(self, name: str, folder: int | None = None) -> int:
        """Open a folder; if `folder` is given, follow no link in the last component of `name`."""
        link = 0 if folder is None else os.O_NOFOLLOW
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | link, dir_fd=folder)

    def open_file(self, name: str, flags: int, folder: int) -> int:
        """Open a file, and never wait for the other end of a pipe."""
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(name, flags, 0o644, dir_fd=folder)

    def close(self, handle: int) -> None:
        """Close a handle."""
        os.close(handle)

    def status(self, name: str, folder: int) -> os.stat_result:
        """Describe an entry, a link itself and not its target."""
        return os.stat(name, dir_fd=folder, follow_symlinks=False)

    def status_of(self, handle: int) -> os.stat_result:
        """Describe what is open."""
        return os.fstat(handle)

    def names(self, folder: int) -> list[str]:
        """List a folder's entries."""
        return os.listdir(folder)

    def read(self, handle: int, size: int) -> bytes:
        """Read up to `size` bytes from where the last read ended; none at the end."""
        return os.read(handle, size)

    def write(self, handle: int, data: ReadableBuffer) -> int:
        """Write bytes, perhaps not all of them; return how many."""
        return os.write(handle, data)

    def truncate(self, handle: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(handle, size)

    def sync(self, handle: int) -> None:
        """Force a file or a folder's entries to the disk."""
        os.fsync(handle)

    def make_folder(self, name: str, folder: int | None = None) -> None:
        """Make a folder."""
        os.mkdir(name, dir_fd=folder)

    def rename(self, name: str, folder: int, new_name: str, new_folder: int) -> None:
        """Give an entry another name, in place of what has that name."""
        os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder)

    def remove(self, name: str, folder: int) -> None:
        """Remove a file or a link."""
        os.unlink(name, dir_fd=folder)

    def remove_tree(self, name: str, folder: int) -> None:
        """Remove a folder with all that is in it."""
        shutil.rmtree(name, dir_fd=folder)

    def lock(self, handle: int, operation: int) -> None:
        """Lock a file, or raise BlockingIOError: by `flock`, else by POSIX locks."""
        try:
            fcntl.flock(handle, operation)
        except BlockingIOError:
            raise
        except OSError:  # NFS without a lock server, some FUSE file systems
            try:
                fcntl.lockf(handle, operation)
            except PermissionError as error:  # how POSIX may say that it is held
                raise BlockingIOError(error.errno, error.strerror) from None

    def sync_everything(self) -> None:
        """Force all file systems to the disk."""
        os.sync()

    def seconds(self) -> float:
        """Return the monotonic clock."""
        return time.monotonic()

    def now_ns(self) -> int:
        """Return nanoseconds since 1970."""
        return time.time_ns()


DISK = Disk()


def sync_folder(disk: Disk, handle: int) -> None:
    """Force a folder's entries to the disk, where its file system can do that."""
    try:
        disk.sync(handle)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise


def now() -> str:
    """Return the time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def is_alive(process: int) -> bool:
    """Return whether a process of this machine is at work."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def is_file(status: os.stat_result) -> bool:
    """Return whether an entry is a regular file."""
    return stat.S_ISREG(status.st_mode)


def is_folder(status: os.stat_result) -> bool:
    """Return whether an entry is a folder."""
    return stat.S_ISDIR(status.st_mode)


class RawFile(io.RawIOBase):
    """An open file whose every read and write is a call of a Disk; closes its handle."""

    def __init__(self, disk: Disk, handle: int, *, writes: bool = False) -> None:
        self._disk, self._handle, self._writes = disk, handle, writes

    @override
    def readable(self) -> bool:
        return not self._writes

    @override
    def writable(self) -> bool:
        return self._writes

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = 0, /) -> int:
        return os.lseek(self._handle, offset, whence)

    @override
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._disk.read(self._handle, len(view))
        view[: len(data)] = data
        return len(data)

    @override
    def write(self, data: ReadableBuffer, /) -> int:
        return self._disk.write(self._handle, data)

    @override
    def close(self) -> None:
        if not self.closed:
            super().close()
            self._disk.close(self._handle)

    def sync(self) -> None:
        """Force the file to the disk."""
        self._disk.sync(self._handle)
