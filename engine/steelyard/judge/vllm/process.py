"""Judges as processes: output out of the way, Ctrl-C kept from engines, no orphans."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import multiprocessing
import os
import re
import select
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from multiprocessing import resource_tracker

OWNER_VARIABLE = "STEELYARD_OWNER_PID"
SPAWN_VARIABLE = "VLLM_ENABLE_V1_MULTIPROCESSING"
_DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # threads run here: a fork could hang
    "TOKENIZERS_PARALLELISM": "true",
}
_TAIL = 1 << 16  # bytes of a log in which a cause is looked for
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CAUSE = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception)): (\S.*)$")


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Child processes begun inside never see Ctrl-C: they inherit SIGINT as blocked.

    A terminal sends SIGINT to every process of the group, and vLLM's engine process takes it as an
    order to drop its requests. Other threads of this process still take the signal, so a handler
    here runs as usual, at the latest when the block ends.
    """
    # Beginning a child begins this tracker first, and that would unblock the signal again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def engine_surroundings(log: OutputLog, *, spawn: bool) -> Iterator[bool]:
    """Environment, output and signals as an engine should find them while it is built.

    Variables that the user has set stay as they are; all are put back at the end, also those that
    vLLM changes for its children. A log level asked for shows vLLM's output on stderr.

    Args:
        log: takes the output.
        spawn: whether vLLM should use a process of its own; the environment may say otherwise.

    Yields:
        Whether it will.
    """
    before, hook = dict(os.environ), sys.excepthook
    asked = "VLLM_LOGGING_LEVEL" in before
    for key, value in {**_DEFAULTS, SPAWN_VARIABLE: str(int(spawn))}.items():
        os.environ.setdefault(key, value)
    os.environ[OWNER_VARIABLE] = str(os.getpid())
    try:
        with interrupts_held(), log.capturing(stderr=not asked), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # vLLM's and torch's own
            yield os.environ[SPAWN_VARIABLE] == "1"
    finally:
        for key in os.environ.keys() - before.keys():
            del os.environ[key]
        os.environ.update(before)
        sys.excepthook = hook  # torch puts a rank before every traceback
        if not asked:  # what vLLM would log here, it raises as well
            logging.getLogger("vllm").setLevel(logging.CRITICAL)


def refuse_rerun() -> None:
    """Stop where a new process runs the script that began it, before it begins one of its own.

    vLLM's engine process does so on a GPU, and tells no more than that it did not start. The owner
    finds this error in its log.

    Raises:
        RuntimeError: this process is being set up.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "the engine's process runs the script that loads the judge again: put what the script"
            ' does under `if __name__ == "__main__":`'
        )


def settle_llvmlite() -> None:
    """Let a CPU engine start in a process that has imported Numba.

    While it starts, vLLM 0.32 asks every object of every module for its `__dict__`. The one by
    which Numba's llvmlite calls LLVM takes any name for a function's and answers with a wrapper of
    it, at which vLLM fails. It answers from this table first.
    """
    with contextlib.suppress(Exception):
        from llvmlite.binding import ffi

        ffi.lib._fntab.setdefault("__dict__", {})


def uncompiled(spawned: bool) -> contextlib.AbstractContextManager[object]:
    """Steps of an engine in this process without torch.compile.

    On a CPU the first read would wait 2 to 7 seconds for a part of vLLM's sampler to be compiled,
    and reading is no faster for it.
    """
    if spawned:
        return contextlib.nullcontext()
    import torch

    stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


class OutputLog:
    """A nameless file that takes what engines print, so that it never mixes with our output."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the engine
        # Children write at the end whatever this process does with its own position.
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_APPEND)

    @contextlib.contextmanager
    def capturing(self, *, stderr: bool) -> Iterator[None]:
        """Redirect descriptor 1, and 2 if wanted; children begun inside keep it for life.

        Without `stderr`, descriptor 1 goes to 2: stdout stays clean in any case.
        """
        _flush()
        saved = os.dup(1), os.dup(2)
        try:
            if stderr:
                os.dup2(self._file.fileno(), 2)
            os.dup2(2, 1)
            yield
        finally:
            _flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])

    def cause(self) -> str | None:
        """The last exception that the log tells of, as `Kind: message`, or None."""
        size = os.fstat(self._file.fileno()).st_size
        tail = os.pread(self._file.fileno(), _TAIL, max(0, size - _TAIL))
        found = None
        for line in _COLOUR.sub("", tail.decode("utf-8", "replace")).splitlines():
            found = _CAUSE.search(line) or found
        return f"{found[1]}: {found[2]}" if found else None

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


def end_with_owner() -> None:
    """In a child process: end at once when the process named in the environment ends.

    A killed owner cannot tell its engine, and vLLM's engine process then waits for requests for
    ever, with the GPU's memory in its hand. A process that stands between is ended as well.
    """
    owner = int(os.environ.get(OWNER_VARIABLE, "0"))
    if owner and owner != os.getpid():
        threading.Thread(target=_end_after, args=(owner,), daemon=True).start()


def _end_after(owner: int) -> None:
    _await_end(owner)
    # Not simply getppid(): an orphan's parent is init or a user's session.
    between = multiprocessing.parent_process()
    if between is not None and between.pid not in {None, owner} and between.pid == os.getppid():
        with contextlib.suppress(OSError):
            os.kill(between.pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _await_end(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:  # kernels and sandboxes without pidfd
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                time.sleep(1.0)
        return
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.poll()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
