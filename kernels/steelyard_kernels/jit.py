"""The only compile decorator. docs/decisions/0005-kernel-cache.md explains its cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pickle
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
import numpy as np
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=np.generic)
_DIGEST = hashlib.sha256().digest_size


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile at the first call, for the types of its arguments, or load earlier machine code.

    No Python objects, no fast-math; the interpreter's lock is free while it runs. Machine code is
    kept in NUMBA_CACHE_DIR, next to the source, or in the user's cache folder, whichever is the
    first that can be written. Otherwise each process compiles for itself.
    """
    compiled = numba.njit(nogil=True, fastmath=False)(function)
    with contextlib.suppress(Exception):  # no folder can be written: a cache is never required
        compiled._cache = _Cache(function)
    return compiled  # type: ignore[no-any-return]


def column(array: NDArray[Any], dtype: type[T]) -> NDArray[T]:
    """Return a contiguous read-only view of `array` as `dtype`, or a copy if it has to differ.

    Inputs pass through here: writable and read-only arrays are different types to the compiler,
    so one form means one compilation, and a kernel cannot write to its inputs.
    """
    view = np.ascontiguousarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view


class _Cache(FunctionCache):  # type: ignore[misc]  # Numba has no types
    """Numba's cache of a function with files that can be shared and damaged; see `_Files`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        name = f"{function.__module__}.{function.__qualname__}"
        self._cache_file = _Files(Path(self.cache_path), name)

    def load_overload(self, sig: object, target_context: object) -> object:
        with contextlib.suppress(Exception):  # a damaged or unreadable file counts as missing
            return super().load_overload(sig, target_context)
        return None

    def save_overload(self, sig: object, data: object) -> None:
        with contextlib.suppress(Exception):  # a full disk costs the next process a compilation
            super().save_overload(sig, data)


class _Files:
    """One file per compiled signature, named by a digest of all that it depends on.

    Numba's cache has an index of numbered files, and two processes that write at once can leave an
    index that points to the machine code of other types or of another processor.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name

    def load(self, key: object) -> object:
        content = self._path(key).read_bytes()
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            return None
        return pickle.loads(content[_DIGEST:])  # noqa: S301  # as trusted as .pyc files

    def save(self, key: object, data: object) -> None:
        content = dumps(data)  # Numba's pickle: it knows functions and types that pickle does not
        path = self._path(key)
        partial = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        try:
            partial.write_bytes(hashlib.sha256(content).digest() + content)
            partial.replace(path)  # a reader sees a whole file or none
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def flush(self) -> None:
        for path in self._folder.glob("steelyard-*.nbk"):
            path.unlink(missing_ok=True)

    def _path(self, key: object) -> Path:
        parts = (numba.__version__, sys.version, _sources(), self._name, key)
        return self._folder / f"steelyard-{hashlib.sha256(repr(parts).encode()).hexdigest()}.nbk"


@functools.cache
def _sources() -> str:
    """Return a digest of all kernels: machine code includes that of the kernels it calls."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
