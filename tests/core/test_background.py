"""Threads that hand on are bounded, pass errors on, and never outlive their owner."""

import threading
import time
from contextlib import closing

import pytest

from steelyard.core.background import NotReady, Prefetch, Worker


def running(name):
    return [thread for thread in threading.enumerate() if thread.name == name]


def counted(made, count=100):
    for number in range(count):
        made.append(number)
        yield number


def eventually(condition):
    """Wait until a condition holds, at most for a few seconds."""
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_items_come_in_order_and_the_thread_ends_after_the_last():
    with closing(Prefetch(counted([], 20), ahead=3, name="prefetch-order")) as items:
        assert list(items) == list(range(20))
        assert items.take() is None  # also when asked again
        assert eventually(lambda: not running("prefetch-order"))


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_items_are_made_than_may_be_ahead(ahead):
    made = []
    with closing(Prefetch(counted(made), ahead=ahead, name="prefetch-bound")) as items:
        for taken in range(1, 5):
            items.take()
            assert eventually(lambda expected=taken + ahead: len(made) == expected)
            time.sleep(0.02)  # room to run too far
            assert len(made) == taken + ahead


def test_an_owner_that_stops_early_ends_the_thread_and_closes_the_generator():
    ended_in = []

    def items():
        try:
            yield from counted([])
        finally:
            ended_in.append(threading.current_thread().name)

    with closing(Prefetch(items(), ahead=2, name="prefetch-early")) as prefetch:
        assert next(iter(prefetch)) == 0
    assert not running("prefetch-early")
    assert ended_in == ["prefetch-early"]


def test_an_error_comes_after_the_items_before_it_and_again_when_asked_again():
    def items():
        yield 1
        raise ValueError("damaged")

    with closing(Prefetch(items(), ahead=2, name="prefetch-error")) as prefetch:
        assert prefetch.take() == 1
        for _ in range(2):
            with pytest.raises(ValueError, match="damaged"):
                prefetch.take()


def test_an_owner_need_not_wait_for_an_item_that_is_not_ready():
    ready = threading.Event()

    def items():
        ready.wait()
        yield "late"

    with closing(Prefetch(items(), ahead=1, name="prefetch-late")) as prefetch:
        with pytest.raises(NotReady):
            prefetch.take(0.01)
        ready.set()
        assert prefetch.take() == "late"


def test_a_worker_handles_all_items_in_order_before_it_closes():
    handled = []
    with closing(Worker(handled.append, waiting=2, name="worker-order")) as worker:
        for number in range(50):
            worker.give(number)
    assert handled == list(range(50))
    assert not running("worker-order")


def test_a_full_worker_makes_its_owner_wait():
    go_on, given = threading.Event(), []
    with closing(Worker(lambda _: go_on.wait(), waiting=2, name="worker-full")) as worker:

        def give():
            for number in range(6):
                worker.give(number)
                given.append(number)

        giver = threading.Thread(target=give)
        giver.start()
        assert eventually(lambda: len(given) == 3)  # one in the making, two waiting
        time.sleep(0.02)
        assert len(given) == 3
        go_on.set()
        giver.join()
    assert len(given) == 6


def test_an_error_of_a_worker_is_raised_by_the_next_call_and_nothing_more_is_handled():
    handled = []

    def handle(number):
        handled.append(number)
        raise OSError("disk full")

    worker = Worker(handle, waiting=1, name="worker-error")

    def give_all():
        for number in range(100):  # more than may wait: the owner is not left waiting
            worker.give(number)

    with pytest.raises(OSError, match="disk full"):
        give_all()
    with pytest.raises(OSError, match="disk full"):
        worker.close()
    worker.stop()  # raises nothing
    assert handled == [0]
    assert not running("worker-error")


def test_a_worker_flushes_when_nothing_comes_and_at_the_end():
    waiting, flushed = [], []

    def flush():
        flushed.append(list(waiting))
        waiting.clear()

    worker = Worker(
        waiting.append,
        waiting=2,
        name="worker-flush",
        flush=flush,
        flush_after=lambda: 0.02 if waiting else None,
    )
    worker.give(1)
    assert eventually(lambda: flushed == [[1]])
    time.sleep(0.05)
    assert flushed == [[1]]  # nothing is waiting, so nothing is due
    worker.give(2)
    worker.close()
    assert flushed[:2] == [[1], [2]]
