"""Compiled kernels on disk: shared by processes, damaged, and impossible to write."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from steelyard_kernels import jit, prefix

# Calls a kernel that calls another; prints its result and whether it came from the disk.
USE = """
import numpy as np
from steelyard_kernels import prefix
tokens = np.arange(6, dtype=np.int32) % 3
shared = prefix.common_prefix(tokens, np.array([0, 3, 6]), np.arange(2))
print(shared.tolist(), sum(prefix._neighbours.stats.cache_hits.values()))
"""
COMPILED, LOADED = "[0, 3] 0\n", "[0, 3] 1\n"


def begin(folder):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", USE], env=environment, **pipes)


def end(process):
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert err == ""
    return out


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache folder, filled by three processes that began at once."""
    folder = tmp_path_factory.mktemp("cache")
    for process in [begin(folder) for _ in range(3)]:
        assert end(process) in {COMPILED, LOADED}
    return folder


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_processes_share_what_was_compiled(filled):
    before = files(filled)
    assert len(before) == 2  # no file twice, nothing half-written
    assert end(begin(filled)) == LOADED
    assert files(filled) == before


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "folder"])
def test_damaged_files_are_compiled_again_and_replaced(filled, damage):
    for path in files(filled):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        cut = {"cut": content[:100], "flipped": content, "empty": b"", "folder": b""}
        path.write_bytes(cut[damage])
        if damage == "folder":  # can be neither read nor replaced
            path.unlink()
            path.mkdir()
            (path / "file").touch()
    assert end(begin(filled)) == COMPILED
    assert end(begin(filled)) == (COMPILED if damage == "folder" else LOADED)


def test_without_a_folder_to_write_to_kernels_work(monkeypatch):
    def refuse(self, function):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(jit.FunctionCache, "__init__", refuse)
    assert jit.kernel(lambda x: x + 1)(2) == 3


def test_a_full_disk_is_no_error(monkeypatch, tmp_path):
    def refuse(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jit.Path, "write_bytes", refuse)
    store = jit._Files(tmp_path, "name")
    with pytest.raises(OSError, match="No space"):
        store.save("key", "data")
    assert files(tmp_path) == []
    cache = object.__new__(jit._Cache)
    cache.save_overload("signature", "data")
    assert cache.load_overload("signature", "context") is None


def test_the_name_of_a_file_holds_all_that_it_depends_on(tmp_path, monkeypatch):
    store = jit._Files(tmp_path, "name")
    store.save("key", "data")
    assert store.load("key") == "data"
    assert not store._path("other").exists()
    assert not jit._Files(tmp_path, "other")._path("key").exists()
    monkeypatch.setattr(jit, "_sources", lambda: "an edited kernel")
    assert not store._path("key").exists()
    store.flush()
    assert files(tmp_path) == []


def test_inputs_of_any_kind_are_compiled_once_and_not_written_to():
    tokens, offsets = np.arange(40, dtype=np.int64), np.array([0, 20, 40], dtype=np.int32)
    frozen = tokens.astype(np.int32)
    frozen.flags.writeable = False
    for given in (tokens, tokens.astype(np.int32), frozen, np.repeat(frozen, 2)[::2]):
        assert prefix.lexicographic_order(given, offsets)[0].tolist() == [0, 1]
    assert len(prefix._sort.signatures) == 1
    column = jit.column(tokens, np.int64)
    assert np.shares_memory(column, tokens)
    with pytest.raises(ValueError, match="read-only"):
        column[0] = 1


def test_commands_without_a_kernel_do_not_load_numba():
    code = "import sys, steelyard_kernels; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
