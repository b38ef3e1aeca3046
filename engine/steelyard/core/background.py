"""Threads that hand on: one prepares what its owner takes, one works off what its owner gives.

Both are bounded, wait without polling, pass errors on to the owner's thread and end with `close`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Generic, TypeVar

T = TypeVar("T")  # never None, which marks an end


class Prefetch(Generic[T]):
    """Runs a generator in a thread, ahead of the thread that takes its items.

    Args:
        items: run and closed in the thread.
        ahead: items at most that are ready or in the making, besides the one taken last.
    """

    def __init__(self, items: Generator[T], *, ahead: int, name: str) -> None:
        self._items = items
        self._ready: queue.SimpleQueue[T | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(ahead)
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while (item := self.take()) is not None:
            yield item
            del item  # memory for the next one

    def take(self, seconds: float | None = None) -> T | None:
        """Return the next item, or None after the last one; raise what the generator raised.

        Wait `seconds` at most; None: until an item is ready.

        Raises:
            TimeoutError: nothing was ready in time.
        """
        try:
            item = self._ready.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        if item is None or isinstance(item, BaseException):
            self._ready.put(item)  # for calls after the end
            if item is not None:
                raise item
        else:
            self._room.release()
        return item

    def close(self) -> None:
        """End the thread, at the latest when the item in the making is ready."""
        self._closed = True
        self._room.release()
        self._thread.join()

    def _work(self) -> None:
        end = None
        try:
            with closing(self._items):
                while self._room.acquire() and not self._closed:
                    self._ready.put(next(self._items))
        except StopIteration:
            pass
        except BaseException as error:
            end = error
        self._ready.put(end)


class Worker(Generic[T]):
    """Handles items in a thread, in the order in which they are given.

    After an error nothing more is handled, and every further call raises the error.

    Args:
        handle: called in the thread with each item.
        waiting: items that may wait; `give` blocks while there is no room.
        flush: called in the thread at the end, and whenever no item came for a while.
        flush_after: seconds from now until it is called; None: only at the end.
    """

    def __init__(
        self,
        handle: Callable[[T], None],
        *,
        waiting: int,
        name: str,
        flush: Callable[[], None] = lambda: None,
        flush_after: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._handle, self._flush, self._flush_after = handle, flush, flush_after
        self._queue: queue.Queue[T | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def give(self, item: T) -> None:
        """Hand an item to the thread. Raise the thread's error, if it had one."""
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def close(self) -> None:
        """End the thread when all items are handled. Raise its error, if it had one."""
        self.stop()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the thread as `close` does, but raise nothing."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        try:
            while self._handle_next():
                pass
        except BaseException as error:
            self._error = error
            while self._queue.get() is not None:  # nobody may wait for room in the queue
                pass

    def _handle_next(self) -> bool:
        try:
            item = self._queue.get(timeout=self._flush_after())
        except queue.Empty:
            self._flush()
            return True
        if item is None:
            self._flush()
            return False
        self._handle(item)
        return True
