"""Several processes with one judge and one GPU each, fed with neighbouring prompts.

Prompts of a chunk keep their order, so those that share a beginning meet in the same engine. A
process gets its next chunk as soon as it has room, so no engine waits for another.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from typing_extensions import override

from steelyard.core.batches import PromptBatch, ReadBatch, Workload
from steelyard.core.judges import Answer
from steelyard.core.work import EngineReport
from steelyard.errors import EngineFailed, SteelyardError, UsageError, escape
from steelyard.judge.base import NOTHING_READY, EngineClock, Judge, JudgeSpec
from steelyard.judge.vllm.process import OWNER_VARIABLE, end_with_owner, interrupts_held

Factory = Callable[[JudgeSpec], Judge]
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_CHUNKS_AHEAD = 8  # a process that holds this many gets no more


@dataclass(slots=True)
class _Replica:
    process: BaseProcess
    pipe: Connection
    outstanding: int = 0  # prompts sent and not yet read


class ReplicatedJudge(Judge):
    """A judge in `spec.replicas` processes.

    Args:
        spec: of the judge; `replicas` is the number of processes.
        factory: opens a judge; a function at the top of a module, so that a child can import it.
        chunk: prompts sent at a time; by default the workload decides.
    """

    def __init__(self, spec: JudgeSpec, factory: Factory, *, chunk: int | None = None) -> None:
        self._spec = replace(spec, replicas=1)
        self._factory = factory
        self._chunk = chunk
        self._devices = assign_devices(spec.replicas, os.environ.get(_VISIBLE))
        opened = factory(self._spec)  # never started here: only its files are read
        self.card = opened.card
        self.encoder = opened.encoder
        self.context_length = opened.context_length
        self.images = opened.images
        self.clock = EngineClock()
        self._replicas: list[_Replica] = []
        self._size = chunk or 256

    @override
    def start(self, workload: Workload, answer: Answer) -> EngineReport:
        """Load all engines at the same time."""
        self.close()
        share = max(1, workload.prompts // (len(self._devices) * _CHUNKS_AHEAD))
        self._size = self._chunk or min(256, share)
        context = multiprocessing.get_context("spawn")
        with interrupts_held():
            for device in self._devices:
                mine, theirs = context.Pipe()
                work = (theirs, self._factory, self._spec, device)
                process = context.Process(target=serve, args=work, daemon=False)
                process.start()
                theirs.close()  # so that the end of the child is noticed here
                self._replicas.append(_Replica(process, mine))
                mine.send((workload, answer))
        reports = [self._receive(replica) for replica in self._replicas]
        report: EngineReport = reports[0]
        report.settings["replicas"] = len(reports)
        return report

    @override
    def read(self, batches: Iterator[PromptBatch]) -> Iterator[ReadBatch]:
        chunks: Iterator[PromptBatch] | None = split(batches, self._size)
        mark = time.perf_counter()
        while chunks is not None or any(replica.outstanding for replica in self._replicas):
            if chunks is not None and not self._feed(chunks):
                chunks = None
            busy = [replica for replica in self._replicas if replica.outstanding]
            # While input is still coming, an idle replica must not wait for a busy one.
            ready = wait([replica.pipe for replica in busy], 0.05 if chunks else None)
            passed, mark = time.perf_counter() - mark, time.perf_counter()
            self.clock.total += passed
            self.clock.busy += passed * len(busy) / len(self._replicas)
            for replica in busy:
                if replica.pipe in ready:
                    read: ReadBatch = self._receive(replica)
                    replica.outstanding -= len(read)
                    yield read

    def _feed(self, chunks: Iterator[PromptBatch]) -> bool:
        """Send chunks until every process has enough; return False when no chunk is left."""
        enough = self._size * _CHUNKS_AHEAD
        while True:
            replica = min(self._replicas, key=lambda replica: replica.outstanding)
            if replica.outstanding >= enough:
                return True
            chunk = next(chunks, None)
            if chunk is None:
                return False
            if not len(chunk):
                return True
            replica.outstanding += len(chunk)
            try:
                replica.pipe.send(chunk)
            except OSError:
                self._raise_died(replica)

    def _receive(self, replica: _Replica) -> Any:
        try:
            message = replica.pipe.recv()
        except (EOFError, OSError):
            self._raise_died(replica)
        if isinstance(message, SteelyardError):
            self.close()
            raise message
        return message

    def _raise_died(self, replica: _Replica) -> NoReturn:
        replica.process.join(5)
        code = replica.process.exitcode
        self.close()
        raise EngineFailed(
            f"a judge process ended with exit code {code}",
            place=self.card.name,
            effect="prompts in flight were not read; they will be sent again",
            remedy="look for an out-of-memory message in dmesg, then run the same command again",
        )

    @override
    def close(self) -> None:
        """End all processes: a child ends when its pipe closes."""
        replicas, self._replicas = self._replicas, []
        for replica in replicas:
            replica.pipe.close()
        for replica in replicas:
            replica.process.join(20)
            if replica.process.is_alive():
                replica.process.kill()
                replica.process.join()


def assign_devices(count: int, visible: str | None) -> list[str]:
    """Choose CUDA_VISIBLE_DEVICES for each process.

    Raises:
        UsageError: the environment shows fewer devices than processes.
    """
    if visible is None:
        return [str(index) for index in range(count)]
    shown = [entry.strip() for entry in visible.split(",") if entry.strip()]
    if shown and len(shown) < count:
        raise UsageError(
            f"{count} replicas need {count} GPUs, and {_VISIBLE} shows {len(shown)}",
            remedy=f"lower --replicas, or show more devices in {_VISIBLE}",
        )
    return shown[:count] if shown else [""] * count


def split(batches: Iterator[PromptBatch], size: int) -> Iterator[PromptBatch]:
    """Cut batches into chunks of at most `size` prompts; an empty batch stays a batch."""
    for batch in batches:
        for start in range(0, max(1, len(batch)), size):
            yield batch.slice(start, start + size)


def serve(pipe: Connection, factory: Factory, spec: JudgeSpec, device: str) -> None:
    """Run a child process: start the judge once, and read until the pipe closes."""
    os.environ[_VISIBLE] = device
    os.environ[OWNER_VARIABLE] = str(os.getppid())
    end_with_owner()
    judge: Judge | None = None
    try:
        workload, answer = pipe.recv()
        judge = factory(spec)
        report = judge.start(workload, answer)
        inbox = _Inbox(pipe)
        pipe.send(report)
        for read in judge.read(inbox.batches()):
            inbox.outstanding -= len(read)
            pipe.send(read)
    except (EOFError, BrokenPipeError):
        return  # the owner has ended, or has closed the judge
    except SteelyardError as error:
        pipe.send(error)
    except Exception as error:
        cause = f"{type(error).__name__}: {escape(error, 200)}"
        pipe.send(EngineFailed(f"a judge process failed: {cause}", remedy="run it again"))
    finally:
        if judge is not None:
            judge.close()


class _Inbox:
    """Takes chunks off the pipe at once, so that an owner that sends never waits for the engine.

    Its queue has no bound, unlike that of `core.background.Prefetch`: if this process stopped
    receiving while its own reads fill the pipe back, both processes would wait for each other. The
    owner bounds what it sends. The thread ends when the owner closes the pipe, or with the process.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._chunks: queue.SimpleQueue[PromptBatch | None] = queue.SimpleQueue()
        self.outstanding = 0
        threading.Thread(target=self._receive, name="inbox", daemon=True).start()

    def _receive(self) -> None:
        try:
            while True:
                self._chunks.put(self._pipe.recv())
        except (EOFError, OSError):
            self._chunks.put(None)

    def batches(self) -> Iterator[PromptBatch]:
        """Yield chunks as they come, and empty ones while there is other work."""
        while True:
            try:
                chunk = self._chunks.get(block=not self.outstanding)
            except queue.Empty:
                yield NOTHING_READY
                continue
            if chunk is None:
                return
            self.outstanding += len(chunk)
            yield chunk
