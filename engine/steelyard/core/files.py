"""Files that somebody else may have made, read up to a limit; folders for unfinished files."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def read_file(path: Path, most: int) -> bytes:
    """Return the bytes of a file, at most `most`.

    Raises:
        OSError: it cannot be read, or is a folder, a pipe or a device, which may never end.
        ValueError: it has more bytes.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:  # noqa: PTH123 - a handle
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        raw = file.read(most + 1)
    if len(raw) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return raw


def make_temporary_folder(prefix: str) -> Path:
    """Make a private folder among temporary files.

    Raises:
        OSError: it cannot be made.
    """
    try:
        return Path(tempfile.mkdtemp(prefix=prefix))
    except FileNotFoundError:  # also where no file can be opened to try folders with
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        raise


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Yield a new private folder, which is removed afterwards with all that is in it.

    Also where the block ends because no more files can be opened.
    """
    folder = make_temporary_folder(prefix)
    spare = None
    try:
        spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # what the removal opens
        yield folder
    finally:
        if spare is not None:
            os.close(spare)
            _remove(folder)
        else:
            folder.rmdir()


def _remove(folder: Path) -> None:
    """Remove a folder that only this user can write to, with one open at a time."""
    for path in [folder / name for name in os.listdir(folder)]:  # noqa: PTH208 - closes it
        if path.is_dir() and not path.is_symlink():
            _remove(path)
        else:
            path.unlink()
    folder.rmdir()
