"""Opens inputs, on this machine or through an fsspec driver."""

from __future__ import annotations

import errno
import os
import re
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from steelyard.errors import EnvironmentFault, InputRefused, SteelyardError, escape, machine_fault

# Protocols with an extra of ours; any other driver that fsspec knows is used if installed.
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
# The machine's or the network's trouble, as opposed to a file that is not what it should be.
_MACHINE = frozenset(
    {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM}
    | {errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH}
)


def protocol(text: str) -> str:
    """Return `s3` for `s3://bucket/key`; empty for a path on this machine, `file://` included."""
    match = _URL.match(text)
    name = match.group(1).lower() if match else ""
    return "" if name in {"file", "local"} else name


def local_path(text: str) -> str:
    """Return an input on this machine as an absolute path without `..`, with links if possible."""
    match = _URL.match(text)
    plain = Path(text[match.end() :] if match else text).expanduser().absolute()
    short = Path(os.path.normpath(plain))
    if ".." in plain.parts and plain.exists() and not (short.exists() and short.samefile(plain)):
        return str(plain.resolve())
    return str(short)


@lru_cache(maxsize=32)
def driver(name: str) -> Any:  # noqa: ANN401 (fsspec has no types)
    """Return the fsspec file system of a protocol.

    Raises:
        EnvironmentFault: its package is missing, or it cannot start (credentials, network).
        InputRefused: the protocol is unknown.
    """
    try:
        return fsspec.filesystem(name)
    except ImportError as error:
        extra = EXTRAS.get(name)
        wanted = f"pip install 'steelyard[{extra}]'" if extra else "install the driver's package"
        raise EnvironmentFault(
            f"reading {name}:// needs a package that is not installed ({escape(error)})",
            effect="nothing was read",
            remedy=wanted,
        ) from error
    except ValueError as error:
        raise InputRefused(
            f"unknown protocol {escape(name)}://",
            remedy="give a path, or a URL that starts with s3://, gs:// or hf://",
        ) from error
    except Exception as error:  # drivers raise what their client libraries raise
        raise remote_fault(f"{name}://", error) from error


def disk_fault(place: str, error: Exception) -> EnvironmentFault | None:
    """Return the error for an OSError about the machine; None for any other exception."""
    if not isinstance(error, OSError) or error.errno not in _MACHINE:
        return None
    effect = "nothing in this file was scored"
    return machine_fault(error, place, doing="be read", effect=effect, again="start again")


def remote_fault(place: str, error: Exception) -> SteelyardError:
    """Return the error for a driver's exception, whatever its type."""
    if isinstance(error, SteelyardError):
        return error
    if isinstance(error, FileNotFoundError):
        return InputRefused("no such file", place=place, remedy="check the address")
    return EnvironmentFault(
        f"cannot be read: {type(error).__name__}: {escape(error, 200)}",
        place=place,
        effect="nothing in this file was scored",
        remedy="check the address, the credentials and the network, then start again",
    )


def open_file(path: str) -> pa.NativeFile:
    """Open a file for random access; the caller closes it.

    Raises:
        OSError: or, from a driver, anything.
    """
    name = protocol(path)
    if not name:
        if not stat.S_ISREG(os.stat(os.fsencode(path)).st_mode):  # noqa: PTH116 (as bytes)
            raise OSError("is not a file; opening it might never return")
        return pa.OSFile(os.fsencode(path), mode="rb")
    return pa.PythonFile(driver(name).open(path, "rb"), mode="r")
