"""Files at any path that are whole or not there, and errors that say why one was not written.

A file gets a temporary name, is forced to the disk, is renamed, and its folder is forced to the
disk. What is inside a run directory is written by `folder.Folder`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from steelyard.errors import UsageError, machine_fault
from steelyard.store.disk import DISK, sync_folder

TEMPORARY = ".tmp"
PARQUET = {"compression": "zstd", "compression_level": 1, "write_page_checksum": True}
# Files of texts and digests, read once: a dictionary of them saves nothing and takes time.
SCRATCH = {**PARQUET, "use_dictionary": False, "write_statistics": False}


@contextmanager
def writing(
    path: Path,
    effect: str = "all parts committed before are valid",
    again: str = "run `steelyard resume` on the run directory",
) -> Iterator[None]:
    """Turn the operating system's refusals to write into errors that say what to do.

    Args:
        path: what is written.
        effect: what the failure means.
        again: what to do when its cause is gone.

    Raises:
        DiskFull: no room, or over a quota or size limit.
        EnvironmentFault: read-only, no permission, an input/output error, no memory.
    """
    try:
        yield
    except (OSError, MemoryError) as error:
        fault = machine_fault(error, str(path), doing="write", effect=effect, again=again)
        raise fault from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to read into errors that say what to do.

    Raises:
        EnvironmentFault: no permission, too many open files, an input/output error.
    """
    try:
        yield
    except (OSError, MemoryError) as error:
        effect = "nothing was computed from it"
        raise machine_fault(error, str(path), doing="read", effect=effect) from error


def check_out(out: Path, begins: bytes, read: Iterable[Path | None] = (), skip: int = 0) -> None:
    """Check that a result replaces nothing but an earlier result of its kind.

    Args:
        out: the file to write.
        begins: how a file of its kind begins, after `skip` bytes.
        read: files that the result is made of.
        skip: bytes before `begins`.

    Raises:
        UsageError: it would replace something else.
    """
    remedy = "move it away, or name another file with --out"
    if not out.parent.is_dir():
        problem = "the folder for the result does not exist"
        remedy = "make the folder, or name another file with --out"
    elif out.resolve() in {path.resolve() for path in read if path is not None}:
        problem = "the result would replace one of the inputs"
    elif out.exists() and (not out.is_file() or not _begins(out, begins, skip)):
        problem = "this is not an earlier result, and would be overwritten"
    else:
        return
    raise UsageError(problem, place=str(out), effect="nothing was written", remedy=remedy)


def check_new(out: Path) -> None:
    """Check that a file can be written that is not there yet.

    Raises:
        UsageError: something has its name, or its folder is missing or a run directory.
    """
    if not out.parent.is_dir():
        problem = "the folder for the result does not exist"
    elif out.exists() or out.is_symlink():
        problem = "there is something of that name already"
    elif (out.parent / "run.json").exists():
        problem = "that is inside a run directory"
    else:
        return
    raise UsageError(
        problem, place=str(out), effect="nothing was written", remedy="name a new file"
    )


def _begins(path: Path, begins: bytes, skip: int) -> bool:
    with path.open("rb") as stream:
        return stream.read(skip + len(begins))[skip:] == begins


def sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        if path.is_dir():
            sync_folder(DISK, handle)
        else:
            os.fsync(handle)
    finally:
        os.close(handle)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished temporary file its name, durably."""
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a result atomically; bytes of paths in it that are not UTF-8 become escapes."""
    temporary = path.with_name(path.name + TEMPORARY)
    with writing(path, "nothing was written", "run the command again"):
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        publish(temporary, path)


def file_digest(path: Path) -> str:
    """Hash a file's bytes with xxh3_128, to 32 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, xxhash.xxh3_128).hexdigest()
