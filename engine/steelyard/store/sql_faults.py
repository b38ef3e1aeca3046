"""What ends a statement before its end: the machine, Ctrl-C, a limit of time, DuckDB's refusal."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from steelyard.errors import EnvironmentFault, SteelyardError, escape

# In the words of a commit that the disk made fail.
_IO_WORDS = ("Could not", "Cannot", "IO Error", "No space left", "File too large", "Input/output")

# What the operating system says to it, and the file that it names.
_SYSTEM_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOMEM),
)
_FILE = re.compile(r"""file ["']([^"'\n]+)["']""")

# In its words where what does not fit into memory has no room on the disk either.
_SPILL_LIMIT = "max_temp_directory_size"
_PYTHON_INTERRUPT = re.compile(rf"(^|: ){KeyboardInterrupt.__name__}(:|$)")
AGAIN_SECONDS = 0.05  # after which a statement that is too late is interrupted again
_NO_DATABASE = "not a valid DuckDB database"  # in its words for a file of another kind


@contextmanager
def interruptible(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let Ctrl-C end a statement at once: Python itself hears of it when DuckDB returns."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)

    def watch() -> None:
        while numbers := receiver.recv(64):
            if signal.SIGINT in numbers:
                connection.interrupt()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        sender.close()
        watcher.join()
        receiver.close()


@contextmanager
def limited(connection: duckdb.DuckDBPyConnection, seconds: float | None) -> Iterator[None]:
    """Interrupt a query that takes longer.

    Raises:
        EnvironmentFault: it was interrupted.
    """
    if seconds is None:
        yield
        return
    late, done = threading.Event(), threading.Event()

    def end() -> None:
        if not done.wait(seconds):
            late.set()
            connection.interrupt()
            # One that comes between two statements has no effect.
            while not done.wait(AGAIN_SECONDS):
                connection.interrupt()

    watcher = threading.Thread(target=end, daemon=True)
    watcher.start()
    try:
        yield
    except duckdb.InterruptException:
        if not late.is_set():
            raise
        raise EnvironmentFault(
            f"the query took longer than {seconds:g} seconds, and was ended",
            effect="nothing of it is shown",
            remedy="ask for less, or allow more time: --timeout SECONDS",
        ) from None
    finally:
        done.set()
        watcher.join()


@contextmanager
def refusing(
    refusal: Callable[[str], SteelyardError],
) -> Iterator[None]:
    """Raise an error of ours where DuckDB refuses a statement, or Arrow's readers a file.

    Args:
        refusal: makes our error from DuckDB's words, on one line.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException) as error:
        if is_machine_fault(error) or is_interrupt(error):
            raise
        raise refusal(one_line(error)) from None


@contextmanager
def raising_python_errors() -> Iterator[None]:
    """Raise what a machine or Ctrl-C does to DuckDB as OSError, MemoryError, KeyboardInterrupt.

    `durable.writing` and `errors.machine_fault` explain the first two.
    """
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        if _SPILL_LIMIT in str(error):
            raise OSError(errno.ENOSPC, "the disk for temporary files is full") from error
        raise MemoryError(one_line(error)) from error
    except duckdb.Error as error:
        if is_interrupt(error):
            raise KeyboardInterrupt from None
        if not is_machine_fault(error):
            raise
        raise _system_error(error) from error
    except RuntimeError as error:  # so DuckDB's own wait ends when Ctrl-C interrupts it
        if "interrupted" not in str(error).lower():
            raise
        raise KeyboardInterrupt from None


def _system_error(error: duckdb.Error) -> OSError:
    """Return what the operating system has said to DuckDB, and of which file, where it quotes it.

    Otherwise DuckDB's own words.
    """
    for number in _SYSTEM_ERRORS:
        words = os.strerror(number)
        if words in str(error):
            file = _FILE.search(str(error))
            return OSError(number, f"{words}: {escape(file[1], 300)}" if file else words)
    return OSError(one_line(error))


def is_machine_fault(error: Exception) -> bool:
    """Return whether the machine is the cause, and not the statement."""
    if isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException):
        return _NO_DATABASE not in str(error)
    # Of a commit, and of all statements after one that failed so.
    late = isinstance(error, duckdb.TransactionException | duckdb.FatalException)
    return late and any(words in str(error) for words in _IO_WORDS)


def is_interrupt(error: Exception) -> bool:
    """Return whether Ctrl-C ended a statement, or what DuckDB called for it in Python."""
    return isinstance(error, duckdb.InterruptException) or (
        isinstance(error, duckdb.Error) and bool(_PYTHON_INTERRUPT.search(one_line(error)))
    )


def is_corrupt(error: Exception) -> bool:
    """Return whether DuckDB has found a database file damaged, by the checksum of a block."""
    return isinstance(error, duckdb.Error) and "Corrupt database file" in str(error)


def is_foreign(error: duckdb.Error) -> bool:
    """Return whether a statement of ours fails because a database is not what we wrote."""
    return is_corrupt(error) or not (is_interrupt(error) or is_machine_fault(error))


def one_line(error: Exception) -> str:
    """Return DuckDB's own words, without the statement that it quotes after them."""
    return escape(" ".join(str(error).split("\n\n", maxsplit=1)[0].split()), 300)
