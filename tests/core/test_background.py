"""Threads that hand on are bounded, pass errors on, and never outlive their owner.

A failure at any step of a thread is raised by the owner's next call, and no call waits for ever.

Kind of fault: an error at the end of a thread's work hangs a run.
"""

import os
import signal
import threading
import time
from contextlib import closing
from functools import partial

import pytest

from steelyard.core.background import NotReady, Prefetch, Worker
from steelyard.errors import EnvironmentFault


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


def ends(call):
    """Call in another thread; fail if it hangs. Returns the exception that it raised, or None."""
    raised = []

    def run():
        try:
            call()
        except BaseException as error:
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert raised, "it hangs"
    return raised[0]


def interrupted(call):
    """Send SIGINT to this process once its main thread waits in `call`; expect Ctrl-C to end it."""
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        call()
    timer.join()


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


ERROR = OSError("no room left")


def fail(*_):
    raise ERROR


def failing_worker(step):
    """A worker that fails in this step, with what is called so that it gets there."""
    if step == "handle":
        worker = Worker(fail, waiting=1, name="failing")
        return worker, partial(worker.give, 1)
    if step == "flush by time":
        worker = Worker(print, waiting=1, name="failing", flush=fail, flush_after=lambda: 0.01)
        return worker, lambda: None
    if step == "flush_after":
        return Worker(print, waiting=1, name="failing", flush_after=fail), lambda: None
    worker = Worker(lambda _: None, waiting=1, name="failing", flush=fail)
    return worker, worker.stop  # "flush at close"


@pytest.mark.parametrize("step", ["handle", "flush by time", "flush_after", "flush at close"])
def test_a_worker_that_fails_in_any_step_ends_and_every_call_after_it_raises(step):
    worker, reach = failing_worker(step)
    assert ends(reach) is None
    assert eventually(lambda: not running("failing"))
    for call in (worker.close, partial(worker.give, 2), partial(worker.give, 3), worker.close):
        assert ends(call) is ERROR
    for _ in range(2):
        assert ends(worker.stop) is None


def test_an_owner_that_waits_for_room_is_woken_by_the_error_of_the_thread():
    go_on = threading.Event()

    def handle(_):
        go_on.wait()
        raise ERROR

    worker = Worker(handle, waiting=1, name="failing-full")
    worker.give(0)
    assert eventually(lambda: not worker._given._items)
    worker.give(1)  # there is no more room now
    threading.Timer(0.05, go_on.set).start()
    assert ends(partial(worker.give, 2)) is ERROR
    assert ends(worker.close) is ERROR


def test_a_closed_worker_takes_nothing_and_closes_again():
    handled = []
    worker = Worker(handled.append, waiting=None, name="closed")
    for number in range(500):  # any number may wait
        worker.give(number)
    for _ in range(2):
        assert ends(worker.close) is None
    assert isinstance(ends(partial(worker.give, 500)), ValueError)
    assert handled == list(range(500))


def test_a_worker_that_hangs_can_be_left_behind():
    go_on = threading.Event()
    worker = Worker(lambda _: go_on.wait(), waiting=1, name="left-behind")
    worker.give(1)
    worker.close(0.01)
    assert running("left-behind")
    go_on.set()
    worker.close()


@pytest.mark.parametrize("wait", ["give", "close"])
def test_ctrl_c_ends_a_wait_for_a_worker(wait):
    go_on = threading.Event()
    worker = Worker(lambda _: go_on.wait(), waiting=1, name="interrupted")
    worker.give(1)
    assert eventually(lambda: not worker._given._items)
    worker.give(2)
    interrupted(partial(worker.give, 3) if wait == "give" else worker.close)
    go_on.set()
    assert ends(worker.close) is None


def failing_items(step):
    try:
        if step == "start":
            raise ERROR
        yield 1
        if step == "next":
            raise ERROR
        yield 2
    finally:
        if step == "close":
            raise ERROR


@pytest.mark.parametrize(("step", "before"), [("start", []), ("next", [1]), ("close", [1, 2])])
def test_a_generator_that_fails_in_any_step_ends_and_every_call_after_it_raises(step, before):
    prefetch = Prefetch(failing_items(step), ahead=1, name="failing-items")
    assert [prefetch.take() for _ in before] == before
    for _ in range(2):
        assert ends(prefetch.take) is ERROR
    assert eventually(lambda: not running("failing-items"))
    for _ in range(2):
        assert ends(prefetch.close) is None


def test_a_generator_that_fails_while_it_is_closed_early_does_not_keep_its_owner():
    prefetch = Prefetch(failing_items("close"), ahead=1, name="failing-early")
    assert prefetch.take() == 1
    for _ in range(2):
        assert ends(prefetch.close) is None
    assert not running("failing-early")
    assert ends(prefetch.take) in (None, ERROR)


def test_a_time_out_of_a_network_disk_is_an_error_and_not_an_item_that_is_not_ready():
    def items():
        raise TimeoutError("the server does not answer")
        yield

    prefetch = Prefetch(items(), ahead=1, name="timed-out")
    with pytest.raises(TimeoutError, match="does not answer"):
        prefetch.take(20)
    prefetch.close()


def test_ctrl_c_ends_a_wait_for_an_item():
    go_on = threading.Event()

    def items():
        go_on.wait()
        yield 1

    prefetch = Prefetch(items(), ahead=1, name="interrupted-items")
    interrupted(prefetch.take)
    interrupted(prefetch.close)
    go_on.set()
    assert ends(prefetch.close) is None


def test_several_generators_run_at_once_and_an_error_of_one_ends_all():
    met = threading.Barrier(3)

    def items(number):
        met.wait(20)  # passed only if all three run at the same time
        yield from range(number, 9, 3)

    with closing(Prefetch(*map(items, range(3)), ahead=None, name="merged")) as prefetch:
        assert sorted(prefetch) == list(range(9))
    with closing(Prefetch(failing_items("next"), counted([]), ahead=1, name="merged")) as prefetch:
        assert ends(lambda: list(prefetch)) is ERROR
    assert not running("merged")


def test_a_thread_that_the_system_refuses_is_an_environment_fault(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(EnvironmentFault, match="cannot be started") as refused:
        Worker(print, waiting=1, name="refused")
    assert "ulimit -u" in refused.value.remedy
    with pytest.raises(EnvironmentFault):
        Prefetch(counted([]), ahead=1, name="refused")
