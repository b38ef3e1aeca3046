"""Threads that hand on: one prepares what its owner takes, one works off what its owner gives.

Both hand items through a channel, which its thread ends whatever happens in it: no owner waits for
a thread that is gone, and every later call raises what ended it. Nothing waits by polling, and all
waits end with Ctrl-C: Python runs signal handlers while its main thread waits for a lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Generic, TypeVar

from steelyard.errors import EnvironmentFault, escape

T = TypeVar("T")  # never None, which marks an end


class NotReady(Exception):
    """Nothing came in time. A network disk raises TimeoutError, which would mean something else."""


class _Channel(Generic[T]):
    """Items in order, from those who give to the one who takes, until either side ends it.

    Args:
        room: items that may wait; None: any number.
        givers: how many have to finish until it ends.
    """

    def __init__(self, room: int | None, givers: int = 1) -> None:
        self._room, self._givers = room, givers
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self.error: BaseException | None = None

    def wait_for_room(self) -> bool:
        """Wait until an item may be put; return False if the channel has ended."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or self._room is None or len(self._items) < self._room
            )
            return not self._ended

    def put(self, item: T) -> bool:
        """Put an item as soon as there is room; return False if the channel has ended."""
        with self._changed:
            if not self.wait_for_room():
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self, seconds: float | None) -> T | None:
        """Take the next item, or None after the last; raise the error that the channel ended with.

        Raises:
            NotReady: there was none in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._ended, seconds):
                raise NotReady
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
            if self.error is not None:
                raise self.error
            return None

    def finish(self, error: BaseException | None = None) -> None:
        """Put nothing more; what was put is still there to take."""
        with self._changed:
            self._givers -= 1
            if error is not None or self._givers <= 0:
                self._end(error)

    def abandon(self, error: BaseException | None = None) -> None:
        """Take nothing more; what waits is dropped."""
        with self._changed:
            self._items.clear()
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self.error = self.error or error
        self._ended = True
        self._changed.notify_all()


class Prefetch(Generic[T]):
    """Runs generators, each in a thread, ahead of the thread that takes their items.

    Args:
        items: run and closed in the threads. The items of several come in the order in which they
            are made; an error in one of them ends all.
        ahead: items at most that are ready or in the making, besides the one taken last (several
            generators: each may be making one more); None: any number.
    """

    def __init__(self, *items: Generator[T], ahead: int | None, name: str) -> None:
        self._ready: _Channel[T] = _Channel(ahead, len(items))
        self._threads: list[threading.Thread] = []
        try:
            for generator in items:
                self._threads.append(_start(self._work, name, generator))
        except BaseException:
            self._ready.abandon()
            raise

    def __iter__(self) -> Iterator[T]:
        while (item := self.take()) is not None:
            yield item
            del item  # memory for the next one

    def take(self, seconds: float | None = None) -> T | None:
        """Return the next item, or None after the last one; raise what a generator raised.

        Wait `seconds` at most; None: until an item is ready.

        Raises:
            NotReady: nothing was ready in time.
        """
        return self._ready.get(seconds)

    def close(self) -> None:
        """End the threads, at the latest when the items in the making are ready; raise nothing."""
        self._ready.abandon()
        for thread in self._threads:
            thread.join()

    def _work(self, items: Generator[T]) -> None:
        error: BaseException | None = None
        try:
            with closing(items):
                while self._ready.wait_for_room():
                    self._ready.put(next(items))
        except StopIteration:
            pass
        except BaseException as raised:
            error = raised
        finally:
            self._ready.finish(error)


class Worker(Generic[T]):
    """Handles items in a thread, in the order in which they are given.

    After an error nothing more is handled, and every further call raises the error.

    Args:
        handle: called in the thread with each item.
        waiting: items that may wait; `give` blocks while there is no room. None: any number.
        flush: called in the thread at the end, and whenever no item came for a while.
        flush_after: seconds from now until it is called; None: only at the end.
    """

    def __init__(
        self,
        handle: Callable[[T], None],
        *,
        waiting: int | None,
        name: str,
        flush: Callable[[], None] = lambda: None,
        flush_after: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._handle, self._flush, self._flush_after = handle, flush, flush_after
        self._given: _Channel[T] = _Channel(waiting)
        self._thread = _start(self._work, name)

    def give(self, item: T) -> None:
        """Hand an item to the thread. Raise the thread's error, if it had one.

        Raises:
            ValueError: the worker was closed.
        """
        if not self._given.put(item):
            raise self._given.error or ValueError("the worker is closed")

    def close(self, seconds: float | None = None) -> None:
        """End the thread when all items are handled. Raise its error, if it had one.

        Wait `seconds` at most, then let the thread go on alone; None: until it has ended.
        """
        self.stop(seconds)
        if self._given.error is not None:
            raise self._given.error

    def stop(self, seconds: float | None = None) -> None:
        """End the thread as `close` does, but raise nothing."""
        self._given.finish()
        self._thread.join(seconds)

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            while self._handle_next():
                pass
        except BaseException as raised:
            error = raised
        finally:
            self._given.abandon(error)

    def _handle_next(self) -> bool:
        try:
            item = self._given.get(self._flush_after())
        except NotReady:
            self._flush()
            return True
        if item is None:
            self._flush()
            return False
        self._handle(item)
        return True


def _start(work: Callable[..., None], name: str, *arguments: object) -> threading.Thread:
    """Start a thread that does not outlive the program.

    Raises:
        EnvironmentFault: the system allows no more threads.
    """
    thread = threading.Thread(target=work, args=arguments, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise EnvironmentFault(
            f"a thread cannot be started: {escape(error)}",
            place=name,
            remedy="raise the limit of processes (`ulimit -u`), or end others; then run it again",
        ) from error
    return thread
