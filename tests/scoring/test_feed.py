"""Prompts of buckets that are prepared ahead come in small batches, without a break."""

import threading
from contextlib import closing

import numpy as np

from steelyard.core.background import Prefetch
from steelyard.core.batches import TokenRows, Unique
from steelyard.judge.base import NOTHING_READY, EngineClock
from steelyard.prompts.maker import PreparedBucket
from steelyard.scoring.feed import BATCH_PROMPTS, batches, prompt_batches


def bucket(number, prompts):
    rows = TokenRows(np.arange(3 * prompts, dtype=np.int32), np.arange(prompts + 1) * 3)
    keys = [f"{number:08}{at:08}".encode() for at in range(prompts)]
    every = np.arange(prompts)
    unique = Unique(keys, every, every, np.arange(prompts + 1))  # a prompt a pair
    flags, ones = np.zeros(prompts, np.bool_), np.ones(prompts, np.int32)
    return PreparedBucket(number, unique, every, every, keys, rows, flags, ones, prompts)


def test_batches_are_the_buckets_prompts():
    made = bucket(7, 2 * BATCH_PROMPTS + 5)
    found = list(batches(made))
    assert [len(one) for one in found] == [BATCH_PROMPTS, BATCH_PROMPTS, 5]
    assert [key for one in found for key in one.keys] == made.keys
    ids = [one.ids(at) for one in found for at in range(len(one))]
    assert ids == [made.rows[at].tolist() for at in range(len(made.keys))]


def test_prompts_of_all_buckets_come_in_order_and_nothing_is_ready_while_one_is_prepared():
    wait = threading.Event()

    def buckets():
        yield bucket(0, 40)
        wait.wait()
        yield bucket(1, 40)

    batches_seen = []
    with closing(Prefetch(buckets(), ahead=1, name="prompt-maker")) as ahead:
        for batch in prompt_batches(ahead, threading.Event()):
            batches_seen.append(batch)
            if batch is NOTHING_READY:
                wait.set()
    assert NOTHING_READY in batches_seen
    ready = [batch for batch in batches_seen if batch is not NOTHING_READY]
    assert [batch.bucket for batch in ready] == [0, 0, 1, 1]
    assert batches_seen[:2] == ready[:2]


def test_stop_ends_them_within_a_bucket():
    stop = threading.Event()
    given = (bucket(number, 10 * BATCH_PROMPTS) for number in range(100))
    batches_seen = []
    with closing(Prefetch(given, ahead=1, name="prompt-maker")) as ahead:
        for batch in prompt_batches(ahead, stop):
            batches_seen.append(batch)
            if batch is not NOTHING_READY:
                stop.set()
    assert sum(batch is not NOTHING_READY for batch in batches_seen) == 1


def test_the_clock_counts_gaps_between_steps_as_idle():
    clock = EngineClock()
    clock.ran(10.0, 12.0)
    clock.ran(13.0, 14.0)
    assert (clock.total, clock.busy) == (4.0, 3.0)
    clock.ran(15.0, 16.0, since_last=True)  # an engine of its own process went on meanwhile
    assert (clock.total, clock.busy) == (6.0, 5.0)
    clock.pause()
    clock.ran(100.0, 101.0)
    assert (clock.total, clock.busy) == (7.0, 6.0)
