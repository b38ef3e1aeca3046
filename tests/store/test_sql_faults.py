"""What ends a statement: DuckDB's errors, Ctrl-C and a limit of time; and what each becomes."""

import errno
import os
import signal
import threading
import time

import duckdb
import pyarrow as pa
import pytest

from steelyard.errors import EnvironmentFault, UsageError
from steelyard.store import sql_faults as faults

WORDS = "IO Error: something"
MACHINE = [
    (duckdb.IOException(WORDS), OSError),
    (duckdb.OutOfMemoryException("Out of Memory Error: no room"), MemoryError),
    (duckdb.TransactionException("Failed to commit: Could not write file"), OSError),
    (duckdb.TransactionException("Failed to commit: Cannot fsync"), OSError),
    (duckdb.TransactionException("Failed to commit: IO Error"), OSError),
]
# DuckDB's words, and what of them is the operating system's.
SYSTEM = [
    (duckdb.FatalException("FATAL: No space left on device"), errno.ENOSPC, ""),
    (duckdb.FatalException("FATAL: File too large"), errno.EFBIG, ""),
    (duckdb.FatalException("FATAL: Input/output error"), errno.EIO, ""),
    (
        duckdb.IOException('IO Error: Could not write file "/x/o.wal": No space left on device'),
        errno.ENOSPC,
        ": /x/o.wal",
    ),
    (
        duckdb.TransactionException(
            "TransactionContext Error: Failed to commit: Could not write file '/x/a\x1bb': Disk"
            " quota exceeded\n\nLINE 1: more"
        ),
        errno.EDQUOT,
        r": /x/a\x1bb",
    ),
    (duckdb.IOException('Cannot open file "/x/t": Too many open files'), errno.EMFILE, ": /x/t"),
]
STATEMENT = [
    duckdb.IOException(f"{WORDS} is not a valid DuckDB database"),
    duckdb.TransactionException("Conflict on update"),
    duckdb.FatalException("FATAL: an assertion"),
    duckdb.CatalogException("Could not find the table"),
    duckdb.BinderException("no such column"),
]


def refused(words):
    return UsageError(words, remedy="")


class Connection:
    """Notes that it was interrupted."""

    def __init__(self):
        self.interrupted = threading.Event()

    def interrupt(self):
        self.interrupted.set()


@pytest.mark.parametrize(("error", "kind"), MACHINE, ids=lambda x: str(x)[:40])
def test_what_the_machine_refuses_is_an_error_of_python(error, kind):
    assert faults.is_machine_fault(error)
    assert not faults.is_foreign(error)
    with pytest.raises(kind) as raised, faults.raising_python_errors():
        raise error
    assert str(raised.value) == str(error)
    assert raised.value.__cause__ is error
    with pytest.raises(type(error)), faults.refusing(refused):
        raise error


@pytest.mark.parametrize(("error", "number", "more"), SYSTEM, ids=lambda x: str(x)[:40])
def test_what_the_system_says_to_duckdb_is_said_without_its_own_words(error, number, more):
    """DuckDB's raw words were shown where `compact` ran out of disk."""
    assert faults.is_machine_fault(error)
    with pytest.raises(OSError, match="Errno") as raised, faults.raising_python_errors():
        raise error
    assert (raised.value.errno, raised.value.strerror) == (number, f"{os.strerror(number)}{more}")
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", STATEMENT, ids=lambda x: str(x)[:40])
def test_what_a_statement_makes_wrong_stays_duckdbs(error):
    assert not faults.is_machine_fault(error)
    assert faults.is_foreign(error)
    with pytest.raises(type(error)), faults.raising_python_errors():
        raise error
    with pytest.raises(UsageError, match=r"[a-z]") as raised, faults.refusing(refused):
        raise error
    assert raised.value.cause == str(error)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (duckdb.InterruptException("INTERRUPT Error: Interrupted!"), KeyboardInterrupt),
        (RuntimeError("Query was Interrupted"), KeyboardInterrupt),
        (RuntimeError("something else"), RuntimeError),
        (KeyError("x"), KeyError),
    ],
)
def test_an_interrupted_statement_is_ctrl_c(error, kind):
    with pytest.raises(kind), faults.raising_python_errors():
        raise error


def test_what_does_not_fit_on_the_disk_is_a_full_disk():
    words = f"Out of Memory Error: {faults._SPILL_LIMIT} (1 GiB)\nmore"
    with (
        pytest.raises(OSError, match="temporary files is full") as full,
        faults.raising_python_errors(),
    ):
        raise duckdb.OutOfMemoryException(words)
    assert full.value.errno == errno.ENOSPC
    assert full.value.strerror == "the disk for temporary files is full"


@pytest.mark.parametrize(
    ("error", "is_interrupt"),
    [
        (duckdb.InterruptException("INTERRUPT Error"), True),
        (duckdb.InvalidInputException("Python exception: KeyboardInterrupt: "), True),
        (duckdb.InvalidInputException("KeyboardInterrupt is a name"), False),
        (ValueError("KeyboardInterrupt"), False),
    ],
)
def test_ctrl_c_in_pythons_own_part_of_a_statement_is_an_interrupt(error, is_interrupt):
    assert faults.is_interrupt(error) == is_interrupt
    if is_interrupt:
        assert not faults.is_foreign(error)
        with pytest.raises(KeyboardInterrupt), faults.raising_python_errors():
            raise error


def test_an_interrupt_is_neither_refused_nor_a_strange_database():
    error = duckdb.InterruptException("INTERRUPT Error: Interrupted!")
    assert not faults.is_foreign(error)
    with pytest.raises(duckdb.InterruptException), faults.refusing(refused):
        raise error


def test_a_file_that_arrow_cannot_read_is_refused():
    with pytest.raises(UsageError, match="no Parquet"), faults.refusing(refused):
        raise pa.ArrowInvalid("no Parquet")


def test_a_damaged_database_is_told_by_duckdbs_words():
    words = "Corrupt database file: computed checksum 1 does not match stored checksum 2"
    assert faults.is_corrupt(duckdb.IOException(words))
    assert faults.is_foreign(duckdb.IOException(words))
    assert not faults.is_corrupt(duckdb.IOException(WORDS))
    assert not faults.is_corrupt(ValueError(words))


def test_words_are_one_line_without_the_statement():
    error = duckdb.ParserException("Parser Error:\n  near x\n\nLINE 1: SELECT\n\nmore")
    assert faults.one_line(error) == "Parser Error: near x"
    assert faults.one_line(duckdb.Error("a\x1b[2Jb")) == r"a\x1b[2Jb"
    assert faults.one_line(duckdb.Error("y" * 1000)) == "y" * 300 + "..."


# -- a limit of time -------------------------------------------------------------------------------


def test_a_query_that_takes_too_long_is_ended():
    connection = Connection()
    with (  # noqa: PT012 - what fails is the block
        pytest.raises(EnvironmentFault, match=r"longer than 0\.01 seconds") as late,
        faults.limited(connection, 0.01),
    ):
        assert connection.interrupted.wait(10)
        raise duckdb.InterruptException("INTERRUPT Error")
    assert "--timeout" in late.value.remedy


def test_a_limit_that_passes_between_two_statements_ends_the_next_one():
    with (  # noqa: PT012 - what fails is the block
        duckdb.connect() as connection,
        pytest.raises(EnvironmentFault, match="longer than"),
        faults.limited(connection, 0.01),
    ):
        time.sleep(0.3)  # nothing runs that could be interrupted
        connection.sql("SELECT sum(sqrt(range)) FROM range(10000000000)").fetchall()


def test_an_interrupt_before_the_limit_is_somebody_elses():
    with pytest.raises(duckdb.InterruptException), faults.limited(Connection(), 60):
        raise duckdb.InterruptException("INTERRUPT Error")


def test_the_limit_ends_with_the_query():
    connection, before = Connection(), set(threading.enumerate())
    with faults.limited(connection, 60):
        (timer,) = set(threading.enumerate()) - before
        assert timer.daemon
    timer.join(10)
    assert not timer.is_alive()
    assert not connection.interrupted.is_set()


def test_without_a_limit_nothing_waits():
    before = threading.active_count()
    with faults.limited(Connection(), None):
        assert threading.active_count() == before


# -- Ctrl-C ----------------------------------------------------------------------------------------


@pytest.fixture
def listening():
    """Python's own handler, which a shell may have taken away from what runs in its background."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_interrupts_the_statement():
    connection, before = Connection(), set(threading.enumerate())
    with (  # noqa: PT012 - what fails is the block
        pytest.raises(KeyboardInterrupt),
        faults.interruptible(connection),
    ):
        (watcher,) = set(threading.enumerate()) - before
        assert watcher.daemon
        signal.raise_signal(signal.SIGINT)
    assert connection.interrupted.is_set()
    assert not watcher.is_alive()
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.usefixtures("listening")
def test_who_listened_to_signals_before_does_so_again(tmp_path):
    with (tmp_path / "file").open("wb", buffering=0) as other:
        os.set_blocking(other.fileno(), False)
        previous = signal.set_wakeup_fd(other.fileno())
        try:
            with faults.interruptible(Connection()):
                pass
            assert signal.set_wakeup_fd(-1) == other.fileno()
        finally:
            signal.set_wakeup_fd(previous)


@pytest.mark.usefixtures("listening")
def test_other_signals_interrupt_nothing():
    connection, caught = Connection(), []
    previous = signal.signal(signal.SIGUSR1, lambda number, _: caught.append(number))
    try:
        with faults.interruptible(connection):
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert caught == [signal.SIGUSR1]
    assert not connection.interrupted.is_set()


@pytest.mark.usefixtures("listening")
def test_only_the_main_thread_with_pythons_own_handler_listens():
    counts = []

    def use():
        before = threading.active_count()
        with faults.interruptible(Connection()):
            counts.append(threading.active_count() - before)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    previous = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        use()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert counts == [0, 0]
