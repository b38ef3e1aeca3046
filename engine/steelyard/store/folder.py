"""A folder of ours: every entry is opened relative to its handle, and never through a link.

Names are relative, with `/` between their parts. What is written is whole or not there: it gets a
temporary name, is forced to the disk, is renamed, and its folder is forced to the disk.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from steelyard.errors import IntegrityFault, escape
from steelyard.store import disk as system
from steelyard.store.disk import DISK, Disk, RawFile
from steelyard.store.durable import PARQUET, TEMPORARY
from steelyard.store.parquet_file import ParquetFileWriter

_MOST_BYTES = 1 << 29  # of a record or log that is read whole
_HANDLES = Path("/proc/self/fd")  # paths without any syntax, for libraries that open files


class Folder:
    """A folder by its path, which may not exist yet.

    A missing entry is FileNotFoundError, a refusal of the operating system OSError: callers say
    what that means (`durable.writing`). A link, pipe or device in place of a file or a folder is
    an IntegrityFault.
    """

    def __init__(self, path: Path, disk: Disk = DISK, inside: str = "") -> None:
        self.path = path / inside
        self.disk = disk
        self._root, self._inside = path, inside
        self._kept: dict[str, int] = {}
        weakref.finalize(self, _close_all, disk, self._kept)

    def inside(self, name: str) -> Folder:
        """Return a folder in this one."""
        return Folder(self._root, self.disk, f"{self._inside}/{name}" if self._inside else name)

    def make(self) -> None:
        """Make the folder and all above it that are missing, durably."""
        if self._inside:
            with self._holder("") as (folder, name), suppress(FileExistsError):
                self.disk.make_folder(name, folder)
                system.sync_folder(self.disk, folder)
            return
        above = [path for path in self._root.absolute().parents if not path.exists()]
        for path in reversed(above):
            self._make_top(path)
        with suppress(PermissionError) if self.exists() else nullcontext():
            self._make_top(self._root.absolute())  # one may enter what one may not list

    def exists(self, name: str = "") -> bool:
        """Return whether there is such an entry, be it a link."""
        try:
            self._status(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def size(self, name: str) -> int:
        """Return the bytes of a file, or of all files that are directly in a folder."""
        try:
            status = self._status(name)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        if not system.is_folder(status):
            return status.st_size
        return sum(self.size(f"{name}/{entry}") for entry in self.names(name, folders=False))

    def names(self, name: str = "", *, folders: bool = True) -> list[str]:
        """Return the names of a folder's entries, sorted; with `folders` also those of folders."""
        with self._open_folder(name) as handle:
            entries = sorted(self.disk.names(handle))
            status = self.disk.status
            return [x for x in entries if folders or not system.is_folder(status(x, handle))]

    def open(self, name: str) -> io.BufferedReader:
        """Open a file for reading."""
        return io.BufferedReader(RawFile(self.disk, self.open_handle(name, os.O_RDONLY)))

    def read(self, name: str) -> bytes:
        """Return a file's bytes; one that no run of ours can have made is refused."""
        if self.size(name) > _MOST_BYTES:
            raise _strange(self.path / name, "file of a possible size")
        with self.open(name) as stream:
            return stream.read()

    def digest(self, name: str) -> str:
        """Hash a file's bytes with xxh3_128, to 32 hex digits."""
        with self.open(name) as stream:
            return hashlib.file_digest(stream, xxhash.xxh3_128).hexdigest()

    def create(self, name: str) -> RawFile:
        """Open a new file for writing, in place of what has its name."""
        self.remove(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        return RawFile(self.disk, self.open_handle(name, flags), writes=True)

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, whole or not at all."""
        with self._replacing(name) as stream:
            stream.write(data)

    def write_table(self, name: str, table: pa.Table, **options: Any) -> None:  # noqa: ANN401
        """Write a Parquet file, whole or not at all, with page checksums."""
        with self._replacing(name) as stream:
            pq.write_table(table, stream, **{**PARQUET, **options})

    def parquet(self, name: str, schema: pa.Schema, **options: Any) -> ParquetFileWriter:  # noqa: ANN401
        """Open a new Parquet file, to which batches are added; its caller makes it durable."""
        return ParquetFileWriter(self.create(name), schema, options)

    def append(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Add to a file, wholly or not at all; `durable` forces it to the disk."""
        new = not self.exists(name)
        handle = self.open_handle(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            before = self.disk.status_of(handle).st_size
            try:
                written = self.disk.write(handle, data)
                while written < len(data):
                    written += self.disk.write(handle, data[written:])
                if durable:
                    self.disk.sync(handle)
            except OSError:
                self.disk.truncate(handle, before)
                raise
        finally:
            self.disk.close(handle)
        if new and durable:
            self.sync(_parent(name))

    def publish(self, temporary: str, name: str) -> None:
        """Give a finished file or folder its name, durably."""
        self.sync(temporary)
        self.move(temporary, name)
        self.sync(_parent(name))

    def move(self, name: str, new_name: str) -> None:
        """Rename an entry; it is durable after a `sync` of its folder."""
        with self._holder(name) as (folder, old), self._holder(new_name) as (new_folder, new):
            self.disk.rename(old, folder, new, new_folder)

    def sync(self, name: str = "") -> None:
        """Force a file, or a folder's entries, to the disk."""
        if not system.is_folder(self._status(name)):
            handle = self.open_handle(name, os.O_RDONLY)
            try:
                self.disk.sync(handle)
            finally:
                self.disk.close(handle)
        else:
            with self._open_folder(name) as handle:
                system.sync_folder(self.disk, handle)

    def remove(self, name: str) -> None:
        """Remove a file or a link, if it is there."""
        with self._holder(name) as (folder, last), suppress(FileNotFoundError):
            self.disk.remove(last, folder)

    def remove_tree(self, name: str) -> None:
        """Remove an entry with all that is in it, if it is there; a link, and not its target."""
        with self._holder(name) as (folder, last), suppress(FileNotFoundError):
            if system.is_folder(self.disk.status(last, folder)):
                self.disk.remove_tree(last, folder)
            else:
                self.disk.remove(last, folder)

    def lock(self, name: str, operation: int, flags: int) -> int:
        """Open and lock a file; return its handle, which holds the lock.

        Raises:
            BlockingIOError: another process holds it.
        """
        handle = self.open_handle(name, flags)
        try:
            self.disk.lock(handle, operation)
        except BaseException:
            self.disk.close(handle)
            raise
        return handle

    def library_path(self, name: str) -> str:
        """Return a path for a library that opens files by itself: no part of it has a syntax.

        It goes through the handle of the file's folder, which stays open as long as this object.
        """
        self._require_file(name, self._status(name))
        return self.new_path(name)

    def new_path(self, name: str) -> str:
        """Return such a path for a file that a library makes."""
        folder, _, last = name.rpartition("/")
        if not _HANDLES.is_dir():
            return str(self.path / name)
        if folder not in self._kept:
            self._kept[folder] = self._open(folder)
        return f"{_HANDLES}/{self._kept[folder]}/{last}"

    @contextmanager
    def _replacing(self, name: str) -> Iterator[io.BufferedWriter[RawFile]]:
        temporary = name + TEMPORARY
        try:
            with self.create(temporary) as raw, io.BufferedWriter(raw) as stream:
                yield stream
                stream.flush()
                raw.sync()
            self.move(temporary, name)
            self.sync(_parent(name))
        except BaseException:
            with suppress(OSError):
                self.remove(temporary)
            raise

    @contextmanager
    def _holder(self, name: str) -> Iterator[tuple[int, str]]:
        """Open the folder of an entry; give its handle and the entry's own name."""
        *folders, last = [x for x in f"{self._inside}/{name}".split("/") if x]
        handle = self.disk.open_folder(str(self._root))
        try:
            for number, folder in enumerate(folders):
                inner = self._open_in(folder, handle, self._root.joinpath(*folders[: number + 1]))
                self.disk.close(handle)
                handle = inner
            yield handle, last
        finally:
            self.disk.close(handle)

    @contextmanager
    def _open_folder(self, name: str) -> Iterator[int]:
        handle = self._open(name)
        try:
            yield handle
        finally:
            self.disk.close(handle)

    def _open(self, name: str) -> int:
        """Open a folder; its caller closes it."""
        if not (name or self._inside):
            return self.disk.open_folder(str(self._root))
        with self._holder(name) as (folder, last):
            return self._open_in(last, folder, self.path / name)

    def _open_in(self, name: str, folder: int, path: Path) -> int:
        try:
            return self.disk.open_folder(name, folder)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise _strange(path, "folder") from None
            raise

    def open_handle(self, name: str, flags: int) -> int:
        """Open a regular file; one that is written to has no other name (hard link)."""
        with self._holder(name) as (folder, last):
            try:
                handle = self.disk.open_file(last, flags, folder)
            except OSError as error:
                if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
                    raise _strange(self.path / name, "file") from None
                raise
        try:
            status = self.disk.status_of(handle)
            self._require_file(name, status)
            if flags & (os.O_WRONLY | os.O_RDWR) and status.st_nlink > 1:
                raise _strange(self.path / name, "file that is nowhere else")
        except BaseException:
            self.disk.close(handle)
            raise
        return handle

    def _require_file(self, name: str, status: os.stat_result) -> None:
        if not system.is_file(status):
            raise _strange(self.path / name, "file")

    def _status(self, name: str) -> os.stat_result:
        if not (name or self._inside):
            return self._root.stat()
        with self._holder(name) as (folder, last):
            return self.disk.status(last, folder)

    def _make_top(self, path: Path) -> None:
        """Make a folder; if it is there, who made it may have been killed before it was durable."""
        folder = self.disk.open_folder(str(path.parent))
        try:
            with suppress(FileExistsError):
                self.disk.make_folder(path.name, folder)
            system.sync_folder(self.disk, folder)
        finally:
            self.disk.close(folder)


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _close_all(disk: Disk, handles: dict[str, int]) -> None:
    for handle in handles.values():
        disk.close(handle)


def _strange(path: Path, wanted: str) -> IntegrityFault:
    return IntegrityFault(
        f"this is not a {wanted}: links, pipes and devices inside a run directory are not followed",
        place=escape(path, 400),
        effect="nothing was read from it or written to it",
        remedy="remove it, or copy the run directory with `cp -rL` if its links are yours",
    )
