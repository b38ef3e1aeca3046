"""Buckets are prepared ahead, handed over without a break, and no more of them than two."""

import threading
import time

import numpy as np
import pytest

from steelyard.core.batches import TokenRows, Unique
from steelyard.judge.base import NOTHING_READY, EngineClock
from steelyard.prompts.maker import PreparedBucket
from steelyard.scoring.feed import BATCH_PROMPTS, BucketPrefetcher, batches


def bucket(number, prompts):
    rows = TokenRows(np.arange(3 * prompts, dtype=np.int32), np.arange(prompts + 1) * 3)
    keys = [f"{number:08}{at:08}".encode() for at in range(prompts)]
    every = np.arange(prompts)
    unique = Unique(keys, every, every, np.arange(prompts + 1))  # a prompt a pair
    flags, ones = np.zeros(prompts, np.bool_), np.ones(prompts, np.int32)
    return PreparedBucket(number, unique, every, every, keys, rows, flags, ones, prompts)


def given(buckets, opened=lambda _: None, stop=None):
    return BucketPrefetcher(iter(buckets), opened, stop or threading.Event())


def test_batches_are_the_buckets_prompts():
    made = bucket(7, 2 * BATCH_PROMPTS + 5)
    found = list(batches(made))
    assert [len(one) for one in found] == [BATCH_PROMPTS, BATCH_PROMPTS, 5]
    assert [key for one in found for key in one.keys] == made.keys
    ids = [one.ids(at) for one in found for at in range(len(one))]
    assert ids == [made.rows[at].tolist() for at in range(len(made.keys))]


def test_all_buckets_come_in_order_and_are_opened_before():
    opened = []
    ahead = given([bucket(n, 40) for n in range(5)], lambda one: opened.append(one.number))
    seen = []
    for batch in ahead:
        if batch is not NOTHING_READY:
            assert batch.bucket in opened
            seen.append(batch.bucket)
    ahead.close()
    assert seen == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_no_more_than_one_bucket_is_prepared_ahead():
    made = []

    def buckets():
        for number in range(6):
            made.append(number)
            yield bucket(number, 40)

    ahead = given(buckets())
    source = iter(ahead)
    seen = -1
    for batch in source:
        if batch is NOTHING_READY or batch.bucket == seen:
            continue
        seen = batch.bucket
        time.sleep(0.05)  # room for the thread to run too far, if it would
        assert len(made) <= seen + 2
    ahead.close()
    assert seen == 5


def test_where_the_thread_is_behind_nothing_is_ready():
    wait = threading.Event()

    def buckets():
        yield bucket(0, 1)
        wait.wait()
        yield bucket(1, 1)

    ahead = given(buckets())
    found = []
    for batch in ahead:
        found.append(batch)
        if len(found) == 4:
            wait.set()
    ahead.close()
    assert NOTHING_READY in found[:4]
    assert [one.bucket for one in found if one is not NOTHING_READY] == [0, 1]


def test_an_error_in_the_thread_reaches_the_reader():
    def buckets():
        yield bucket(0, 1)
        raise ValueError("damaged")

    ahead = given(buckets())
    with pytest.raises(ValueError, match="damaged"):
        list(ahead)
    ahead.close()


def test_stop_ends_it_within_a_bucket_and_close_ends_the_thread():
    stop = threading.Event()
    ahead = given((bucket(n, 40) for n in range(100)), stop=stop)
    for batch in ahead:
        if batch is not NOTHING_READY:
            stop.set()
    ahead.close()
    assert not any(thread.name == "prompt-maker" for thread in threading.enumerate())


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
