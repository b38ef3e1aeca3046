"""Several processes with one judge and one GPU each, fed with neighbouring prompts.

Prompts of a chunk keep their order, so those that share a beginning meet in the same engine. A
process gets its next chunk as soon as it has room, so no engine waits for another.

Each process has a thread here that sends and one that receives, so that the owner waits for none of
them: one that is dead or hangs (`patience.py`) fails the engine.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from typing_extensions import override

from steelyard.core.background import NotReady, Prefetch, Worker
from steelyard.core.batches import PromptBatch, ReadBatch, Workload
from steelyard.core.judges import Answer
from steelyard.core.work import EngineReport
from steelyard.errors import EngineFailed, JudgeUnavailable, SteelyardError, UsageError, escape
from steelyard.judge import processes
from steelyard.judge.base import EngineClock, Judge, JudgeSpec
from steelyard.judge.patience import LOADING, READING, Patience
from steelyard.judge.replica_process import ALIVE, VISIBLE, Factory, serve
from steelyard.judge.vllm.process import interrupts_held

_CHUNKS_AHEAD = 8  # a process that holds this many gets no more
_LOOK_SECONDS = 0.5
_LONGEST_LOOK = 1.0  # seconds that count as silence at most between two looks
# Seconds that a process may take to end after its work, and when the run is stopped.
_END_SECONDS, _STOP_SECONDS = 20.0, 2.0


class _Replica:
    """A process, as its owner sees it."""

    def __init__(self, number: int, process: BaseProcess, pipe: Connection) -> None:
        self.process, self.pipe = process, pipe
        self.name = f"replica {number} (process {process.pid})"
        self.outstanding = 0  # prompts sent and not yet read
        self.sender: Worker[Any] = Worker(pipe.send, waiting=None, name="replica-sender")
        self._vitals = processes.Vitals(lambda: [process.pid] if process.pid else [])
        self.patience = Patience(self.name, self._vitals, LOADING)

    def loaded(self) -> None:
        """Expect reads from now on."""
        self.patience = Patience(self.name, self._vitals, READING)

    def messages(self) -> Generator[tuple[_Replica, Any]]:
        """Yield what the process sends, and None at the end."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                yield self, self.pipe.recv()
        yield self, None

    def disconnect(self) -> None:
        """Let the process see the end of the pipe, and wake threads that wait for it."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.pipe.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)


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
        self._devices = assign_devices(spec.replicas, os.environ.get(VISIBLE))
        opened = factory(self._spec)  # never started here: only its files are read
        self.card, self.kind = opened.card, opened.kind
        self.encoder = opened.encoder
        self.context_length = opened.context_length
        self.images = opened.images
        self.clock = EngineClock()
        self._replicas: list[_Replica] = []
        self._messages: Prefetch[tuple[_Replica, Any]] | None = None
        self._size = chunk or 256
        self._looked = 0.0  # when, on the monotonic clock

    @override
    def start(self, workload: Workload, answer: Answer) -> EngineReport:
        """Load all engines at the same time."""
        self.close()
        share = max(1, workload.prompts // (len(self._devices) * _CHUNKS_AHEAD))
        self._size = self._chunk or min(256, share)
        try:
            with interrupts_held():
                for device in self._devices:
                    self._replicas.append(self._start_process(device))
            received = (replica.messages() for replica in self._replicas)
            self._messages = Prefetch(*received, ahead=None, name="replica-receiver")
            return self._await_reports((workload, answer))
        except OSError as error:
            self._kill()
            raise JudgeUnavailable(
                f"a judge process cannot be started: {escape(error)}",
                place=self.card.name,
                effect="nothing was read",
                remedy="raise the limits of processes and open files (`ulimit -u`, `ulimit -n`)",
            ) from error
        except BaseException:
            self._kill()
            raise

    def _start_process(self, device: str) -> _Replica:
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        with theirs:  # closed here at the end, so that the end of the child is noticed
            work = (theirs, self._factory, self._spec, device)
            process = context.Process(target=serve, args=work, daemon=False)
            process.start()
        return _Replica(len(self._replicas) + 1, process, mine)

    def _await_reports(self, question: tuple[Workload, Answer]) -> EngineReport:
        for replica in self._replicas:
            replica.sender.give(question)
        reports: dict[str, EngineReport] = {}
        while len(reports) < len(self._replicas):
            waiting = [replica for replica in self._replicas if replica.name not in reports]
            if (received := self._receive(waiting, _LOOK_SECONDS)) is not None:
                replica, reports[replica.name] = received
                replica.loaded()
        report = reports[self._replicas[0].name]
        report.settings["replicas"] = len(reports)
        return report

    @override
    def read(self, batches: Iterator[PromptBatch]) -> Iterator[ReadBatch]:
        if not self._replicas:
            raise EngineFailed("the judge was not started", remedy="run the same command again")
        chunks: Iterator[PromptBatch] | None = split(batches, self._size)
        mark = time.perf_counter()
        try:
            while chunks is not None or any(replica.outstanding for replica in self._replicas):
                if chunks is not None and not self._feed(chunks):
                    chunks = None
                busy = [replica for replica in self._replicas if replica.outstanding]
                # While input is still coming, an idle replica must not wait for a busy one.
                received = self._receive(busy, 0.05 if chunks else _LOOK_SECONDS)
                passed, mark = time.perf_counter() - mark, time.perf_counter()
                self.clock.total += passed
                self.clock.busy += passed * len(busy) / len(self._replicas)
                if received is not None and received[1] != ALIVE:
                    replica, read = received
                    replica.outstanding -= len(read)
                    yield read
        finally:
            if any(replica.outstanding for replica in self._replicas):
                self._kill()

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
                replica.sender.give(chunk)
            except OSError:
                self._raise_died(replica)

    def _receive(self, busy: list[_Replica], seconds: float) -> tuple[_Replica, Any] | None:
        """Return the next message and who sent it; None if none came in time.

        Raises:
            EngineFailed: a process has died, or one of the busy ones hangs.
        """
        assert self._messages is not None  # noqa: S101 - set by `start`
        try:
            received = self._messages.take(seconds)
        except NotReady:
            received = None
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, _LONGEST_LOOK), now
        if received is not None:
            received[0].patience.sign()
        try:
            for replica in busy:
                if received is None or replica is not received[0]:
                    replica.patience.wait(passed, self.owner)
        except EngineFailed as hung:
            self._kill()
            hung.place = self.card.name
            raise
        return None if received is None else self._opened(*received)

    def _opened(self, replica: _Replica, message: Any) -> tuple[_Replica, Any]:
        if message is None:
            self._raise_died(replica)
        if isinstance(message, SteelyardError):
            self._kill()
            raise message
        return replica, message

    def _raise_died(self, replica: _Replica) -> NoReturn:
        replica.process.join(5)
        code = replica.process.exitcode
        self._kill()
        raise EngineFailed(
            f"{replica.name} ended with exit code {code}",
            place=self.card.name,
            effect="prompts in flight were not read; they will be sent again",
            remedy="look for an out-of-memory message in dmesg, then run the same command again",
        )

    @override
    def close(self) -> None:
        """End all processes: a child ends when its pipe closes, and is killed if it does not."""
        for replica in self._replicas:
            replica.disconnect()
        patience = _STOP_SECONDS if self.owner.stopping() else _END_SECONDS
        deadline = time.monotonic() + patience
        for replica in self._replicas:
            replica.process.join(max(0.0, deadline - time.monotonic()))
        self._kill()

    def _kill(self) -> None:
        """End all processes at once, and the threads that serve them."""
        replicas, self._replicas = self._replicas, []
        messages, self._messages = self._messages, None
        alive = [replica.process.pid for replica in replicas if replica.process.is_alive()]
        for pid in processes.end(pid for pid in alive if pid is not None):
            self.owner.warn(processes.UNENDING.format(pid=pid, name=self.card.name))
        for replica in replicas:
            replica.disconnect()
            replica.sender.stop()
        if messages is not None:
            messages.close()
        for replica in replicas:
            replica.pipe.close()


def assign_devices(count: int, visible: str | None) -> list[str]:
    """Choose CUDAVISIBLE_DEVICES for each process.

    Raises:
        UsageError: the environment shows fewer devices than processes.
    """
    if visible is None:
        return [str(index) for index in range(count)]
    shown = [entry.strip() for entry in visible.split(",") if entry.strip()]
    if shown and len(shown) < count:
        raise UsageError(
            f"{count} replicas need {count} GPUs, and {VISIBLE} shows {len(shown)}",
            remedy=f"lower --replicas, or show more devices in {VISIBLE}",
        )
    return shown[:count] if shown else [""] * count


def split(batches: Iterator[PromptBatch], size: int) -> Iterator[PromptBatch]:
    """Cut batches into chunks of at most `size` prompts; an empty batch stays a batch."""
    for batch in batches:
        for start in range(0, max(1, len(batch)), size):
            yield batch.slice(start, start + size)
