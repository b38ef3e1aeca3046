"""A replica, as its process runs: it reads what the owner sends, until the owner ends the pipe."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection

from steelyard.core.background import NotReady, Prefetch
from steelyard.core.batches import PromptBatch
from steelyard.errors import EngineFailed, SteelyardError, escape
from steelyard.judge.base import NOTHING_READY, Judge, JudgeSpec
from steelyard.judge.patience import Owner
from steelyard.judge.vllm.process import OWNER_VARIABLE, end_with_owner

Factory = Callable[[JudgeSpec], Judge]
VISIBLE = "CUDA_VISIBLE_DEVICES"
ALIVE = "alive"  # sent while the engine completes steps, but no read
_ALIVE_SECONDS = 1.0


def serve(pipe: Connection, factory: Factory, spec: JudgeSpec, device: str) -> None:
    """Run a child process: start the judge once, and read until the pipe closes."""
    os.environ[VISIBLE] = device
    os.environ[OWNER_VARIABLE] = str(os.getppid())
    end_with_owner()
    judge: Judge | None = None
    try:
        workload, answer = pipe.recv()
        judge = factory(spec)
        judge.owner = Owner(progress=_Heartbeat(pipe))
        report = judge.start(workload, answer)
        inbox = _Inbox(pipe)
        pipe.send(report)
        for read in judge.read(inbox.batches()):
            inbox.outstanding -= len(read)
            pipe.send(read)
    except (EOFError, BrokenPipeError):
        return  # the owner has ended, or has closed the judge
    except SteelyardError as error:
        _send_last(pipe, error)
    except Exception as error:
        cause = f"{type(error).__name__}: {escape(error, 200)}"
        failed = EngineFailed(f"a judge process failed: {cause}", remedy="run it again")
        _send_last(pipe, failed)
    finally:
        if judge is not None:
            judge.close()


def _send_last(pipe: Connection, error: SteelyardError) -> None:
    with contextlib.suppress(OSError):  # the owner may be gone
        pipe.send(error)


class _Heartbeat:
    """Tells the owner, now and then, that the engine completes steps."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._next = pipe, 0.0

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _ALIVE_SECONDS
            self._pipe.send(ALIVE)


class _Inbox:
    """Takes chunks off the pipe at once, so that an owner that sends never waits for the engine.

    It has no bound: if this process stopped receiving while its own reads fill the pipe back, both
    processes would wait for each other. The owner bounds what it sends. The thread ends when the
    owner closes the pipe, or with the process.
    """

    def __init__(self, pipe: Connection) -> None:
        self._chunks = Prefetch(_received(pipe), ahead=None, name="inbox")
        self.outstanding = 0

    def batches(self) -> Iterator[PromptBatch]:
        """Yield chunks as they come, and empty ones while there is other work."""
        while True:
            try:
                chunk = self._chunks.take(0 if self.outstanding else None)
            except NotReady:
                yield NOTHING_READY
                continue
            if chunk is None:
                return
            self.outstanding += len(chunk)
            yield chunk


def _received(pipe: Connection) -> Generator[PromptBatch]:
    with contextlib.suppress(EOFError, OSError):
        while True:
            yield pipe.recv()
