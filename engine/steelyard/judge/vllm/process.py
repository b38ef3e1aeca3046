"""Engines as processes: output captured, Ctrl-C kept away, no orphans."""

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
from collections.abc import Callable, Iterator
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
    """Keep Ctrl-C from child processes that are started inside: they inherit SIGINT as blocked.

    A terminal sends SIGINT to every process of the group, and vLLM's engine process then drops its
    requests. Other threads of this process still take the signal, so a handler here runs as usual,
    at the latest when the block ends.
    """
    # Starting a child starts this tracker first, which would unblock the signal again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def engine_surroundings(log: OutputLog, *, spawn: bool) -> Iterator[bool]:
    """Set environment, output and signals for an engine while it is built.

    Variables that the user has set stay as they are; all are restored at the end, also those that
    vLLM changes for its children. If the user has set vLLM's log level, its output goes to stderr.

    Args:
        log: takes the output.
        spawn: whether vLLM should use a separate process; the environment may override it.

    Yields:
        whether it will use one.
    """
    before, hook = dict(os.environ), sys.excepthook
    shown = "VLLM_LOGGING_LEVEL" in before
    for key, value in {**_DEFAULTS, SPAWN_VARIABLE: str(int(spawn))}.items():
        os.environ.setdefault(key, value)
    os.environ[OWNER_VARIABLE] = str(os.getpid())
    try:
        with interrupts_held(), log.capturing(stderr=not shown), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # vLLM's and torch's own
            yield os.environ[SPAWN_VARIABLE] == "1"
    finally:
        for key in os.environ.keys() - before.keys():
            del os.environ[key]
        os.environ.update(before)
        sys.excepthook = hook  # torch puts a rank before every traceback
        if not shown:  # what vLLM would log here, it raises as well
            logging.getLogger("vllm").setLevel(logging.CRITICAL)


def refuse_rerun() -> None:
    """Stop a new process that runs its owner's script, before it starts another process.

    vLLM's engine process runs the script on a GPU, and reports only that it did not start. The
    owner takes this error from its log.

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

    While it starts, vLLM 0.32 asks every object of every module for its `__dict__`. The object
    through which Numba's llvmlite calls LLVM takes any name for a function and returns a wrapper of
    it, at which vLLM fails. Names in this table are looked up first.
    """
    with contextlib.suppress(Exception):
        from llvmlite.binding import ffi

        ffi.lib._fntab.setdefault("__dict__", {})


def uncompiled(spawned: bool) -> contextlib.AbstractContextManager[object]:
    """Run an engine in this process without torch.compile.

    On a CPU the first read would wait 2 to 7 seconds until a part of vLLM's sampler is compiled,
    and reading would not become faster.
    """
    if spawned:
        return contextlib.nullcontext()
    import torch

    stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


class OutputLog:
    """A file without a name that takes what engines print, apart from our own output."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the engine
        # Children append, whatever the position of this process in the file.
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_APPEND)
        self._stderr: int | None = None  # where descriptor 2 leads outside of `capturing`
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def capturing(self, *, stderr: bool) -> Iterator[None]:
        """Redirect descriptor 1, and 2 if wanted; children started inside keep the redirection.

        Without `stderr`, descriptor 1 goes to 2: stdout stays clean in any case.
        """
        _flush()
        saved = os.dup(1), os.dup(2)
        try:
            if stderr:
                os.dup2(self._file.fileno(), 2)
            os.dup2(2, 1)
            self._stderr = saved[1]
            yield
        finally:
            with self._lock:
                self._stderr = None
                _flush()
                os.dup2(saved[0], 1)
                os.dup2(saved[1], 2)
                os.close(saved[0])
                os.close(saved[1])

    def show(self, warn: Callable[[str], None], text: str) -> None:
        """Warn the user, on stderr, also while it is captured; from any thread."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._stderr is None:
                warn(text)
                return
            captured = os.dup(2)
            os.dup2(self._stderr, 2)
            try:
                warn(text)
            finally:
                os.dup2(captured, 2)
                os.close(captured)

    def cause(self) -> str | None:
        """Return the last exception in the log, as `Kind: message`, or None."""
        size = os.fstat(self._file.fileno()).st_size
        tail = os.pread(self._file.fileno(), _TAIL, max(0, size - _TAIL))
        last = None
        for line in _COLOUR.sub("", tail.decode("utf-8", "replace")).splitlines():
            last = _CAUSE.search(line) or last
        return f"{last[1]}: {last[2]}" if last else None

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


def end_with_owner() -> None:
    """End this child process as soon as the owner, a process named in the environment, ends.

    A killed owner cannot stop its engine: vLLM's engine process would wait for requests for ever
    and keep the GPU's memory. A process between owner and child is ended as well.
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
