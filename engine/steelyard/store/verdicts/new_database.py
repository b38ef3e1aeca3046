"""A database file that is being written, and replaces an earlier one once it is whole."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedWriter

from steelyard.store.disk import is_alive
from steelyard.store.durable import TEMPORARY, writing
from steelyard.store.folder import Folder
from steelyard.store.rundir import DATABASE
from steelyard.store.sql import MEMORY_LIMIT, folder_for_files, machine_memory


@dataclass(frozen=True, slots=True)
class NewFile:
    """A database that is being written: a name in a folder."""

    folder: Folder
    name: str

    @property
    def path(self) -> str:
        """Its path, for DuckDB."""
        return self.folder.new_path(self.name)

    @property
    def spill(self) -> tuple[Folder, str]:
        """The folder for what does not fit into the memory, and its name."""
        return self.folder, f"{self.name}.spill"

    def remove(self) -> None:
        """Remove it, and its log."""
        for entry in (self.name, f"{self.name}.wal"):
            self.folder.remove(entry)


def with_enough_memory(
    write: Callable[[NewFile, int], dict[str, int]], new: NewFile
) -> dict[str, int]:
    """Write a database, with twice the memory while it is not enough: the reads are paid.

    Args:
        write: takes the file and a factor of the memory that should do.
        new: the file.

    Raises:
        MemoryError: half of the machine's memory is not enough.
    """
    factor = 1
    while True:
        try:
            return write(new, factor)
        except MemoryError:
            factor *= 2
            if factor * MEMORY_LIMIT > machine_memory() // 2:
                raise
            new.remove()


@contextmanager
def replacing(folder: Folder, name: str) -> Iterator[NewFile]:
    """Yield a new database, which replaces the one of this name once it is whole."""
    mine = f"{name}.{platform.node()}-"
    new = NewFile(folder, f"{mine}{os.getpid()}{TEMPORARY}")
    again = "run the command again"
    if name == DATABASE:
        again = f"`steelyard compact {folder.path}` writes it again"
    try:
        with writing(folder.path / name, "the run is intact; this file was not written", again):
            _remove_leftovers(folder, mine)
            with folder_for_files(folder) as place:
                written = NewFile(place, new.name)
                yield written
                if place is not folder:
                    copy(written, new)
            folder.sync(new.name)
            folder.remove(f"{name}.wal")  # of somebody who wrote to the old one and crashed
            folder.publish(new.name, name)
    finally:
        with suppress(OSError):
            new.remove()


def copy(old: NewFile, new: NewFile) -> None:
    """Copy a database into a new one."""
    with (
        old.folder.open(old.name) as source,
        BufferedWriter(new.folder.create(new.name)) as copy,
    ):
        shutil.copyfileobj(source, copy, 1 << 20)


def _remove_leftovers(folder: Folder, prefix: str) -> None:
    """Remove what a killed process of this machine left of the same work."""
    for entry in folder.names():
        number = entry.removeprefix(prefix).partition(".")[0]
        if entry.startswith(prefix) and number.isdecimal() and not is_alive(int(number)):
            folder.remove_tree(entry)
