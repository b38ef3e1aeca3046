"""When a silent engine is given up, by hand-made silences; what /proc says of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from steelyard.errors import EngineFailed
from steelyard.judge import processes
from steelyard.judge.patience import LOADING, READING, Owner, Patience
from steelyard.judge.processes import Vitals


class Engine:
    """Vitals of an engine that is at rest or not, as a test wants it."""

    def __init__(self):
        self.resting = True

    def at_rest(self):
        return self.resting


@pytest.fixture
def warned():
    return []


@pytest.fixture
def owner(warned):
    return Owner(warn=warned.append)


def silence(patience, seconds, owner):
    """Wait in steps of half a second; return after how many seconds it was given up, or None."""
    for step in range(1, int(2 * seconds) + 1):
        try:
            patience.wait(0.5, owner)
        except EngineFailed:
            return step / 2
    return None


def test_an_engine_at_rest_is_given_up_after_20_seconds_and_one_warning_after_10(owner, warned):
    patience = Patience("engine x", Engine(), READING)
    assert silence(patience, 9.5, owner) is None
    assert warned == []
    assert silence(patience, 10, owner) is None
    assert warned == [
        "engine x has completed nothing for 10 s, and its processes have been at rest for 10 s;"
        " it is given up if nothing happens for another 10 s"
    ]
    with pytest.raises(EngineFailed, match="engine x has completed nothing for 20 s") as failed:
        patience.wait(0.5, owner)
    assert "sent again" in failed.value.effect
    assert len(warned) == 1


def test_an_engine_that_computes_has_20_minutes_and_is_announced_after_10(owner, warned):
    engine = Engine()
    engine.resting = False
    patience = Patience("x", engine, READING)
    assert silence(patience, 599.5, owner) is None
    assert warned == []
    assert silence(patience, 1200, owner) == 1200 - 599.5
    assert len(warned) == 1
    assert "10 min 00 s; it is given up if nothing happens for another 10 min 00 s" in warned[0]


def test_short_work_does_not_excuse_a_long_rest_but_steady_work_does(owner):
    engine = Engine()
    patience = Patience("x", engine, READING)
    for second in range(200):
        engine.resting = second % 2 == 0
        assert silence(patience, 1, owner) is None
    given_up = None
    for second in range(200):
        engine.resting = second % 8 != 0
        given_up = given_up or silence(patience, 1, owner)
    assert given_up is not None


def test_the_patience_grows_with_what_is_usual_but_not_with_the_first_silence(owner):
    engine = Engine()
    patience = Patience("x", engine, READING)
    silence(patience, 18, owner)
    patience.sign()  # the first: kernels may have been compiled before it
    assert silence(patience, 1000, owner) == 20
    patience = Patience("x", engine, READING)
    patience.sign()
    silence(patience, 9, owner)
    patience.sign()
    assert silence(patience, 1000, owner) == 5 * 9
    engine.resting = False
    patience = Patience("x", engine, READING)
    patience.sign()
    silence(patience, 90, owner)  # as a CPU that takes over a minute for a step
    patience.sign()
    assert silence(patience, 10_000, owner) == 20 * 90


def test_loading_has_separate_limits(owner, warned):
    engine = Engine()
    assert silence(Patience("x", engine, LOADING), 1000, owner) == 120
    assert "x has been loading for 1 min 00 s, and its processes have been at rest" in warned[0]
    engine.resting = False
    assert silence(Patience("x", engine, LOADING), 10_000, owner) == 7200
    assert "x has been loading for 10 min 00 s; it is given up" in warned[1]
    assert len(warned) == 2


def test_an_engine_that_is_to_stop_has_two_seconds_or_twice_its_longest_silence():
    owner = Owner(stopping=lambda: True)
    engine = Engine()
    engine.resting = False
    patience = Patience("x", engine, READING)
    patience.sign()
    assert silence(patience, 100, owner) == 2
    patience = Patience("x", engine, READING)
    patience.sign()
    silence(patience, 5, Owner())
    patience.sign()
    assert silence(patience, 100, owner) == 10
    assert silence(Patience("x", engine, LOADING), 100, owner) == 0.5  # at the first look


def test_an_engine_in_this_process_is_warned_about_and_never_given_up(warned):
    owner = Owner(warn=warned.append, stopping=lambda: True)
    assert silence(Patience("x", None, READING), 5000, owner) is None
    assert warned == [
        f"x has completed nothing for 10 min 00 s; if it hangs, kill process {os.getpid()}"
        " and resume the run"
    ]


def start(code):
    """Start Python with this code, which prints a line when it has begun."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline()
    return process


SLEEP = "import time; print(1, flush=True); time.sleep(300)"
SPIN = "print(1, flush=True)\nwhile True: pass"
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(300)
"""


def runs(pid):
    """Whether a process exists, and not only as an entry that nobody has collected."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def rested(process):
    """Whether the process is at rest between two looks."""
    vitals = Vitals(lambda: [process.pid])
    vitals.at_rest()
    time.sleep(0.3)
    return vitals.at_rest()


@pytest.mark.parametrize(("code", "rests"), [(SLEEP, True), (SPIN, False)])
def test_a_process_that_sleeps_is_at_rest_and_one_that_computes_is_not(code, rests):
    process = start(code)
    try:
        assert rested(process) is rests
    finally:
        process.kill()
        process.communicate()
    assert not rested(process)  # gone: not known


def test_a_stopped_process_is_at_rest_also_if_another_of_its_engine_computes():
    stopped, busy = start(SLEEP), start(SPIN)
    try:
        stopped.send_signal(signal.SIGSTOP)
        vitals = Vitals(lambda: [stopped.pid, busy.pid])
        while psutil.Process(stopped.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        assert vitals.at_rest()
    finally:
        for process in (stopped, busy):
            process.kill()
            process.communicate()


def test_a_stopped_process_is_ended_with_all_that_descend_from_it():
    parent = start(PARENT)
    pids = processes.tree([parent.pid])
    assert len(pids) == 2
    assert processes.children(parent.pid) == pids - {parent.pid}
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    assert processes.end([parent.pid]) == set()
    assert not any(map(runs, pids))
    parent.communicate()
    assert processes.tree([parent.pid]) == set()
    assert processes.end([parent.pid]) == set()  # once more: nothing happens


def test_a_process_that_cannot_be_ended_is_reported_and_does_not_hold_the_program(monkeypatch):
    monkeypatch.setattr(processes, "_END_SECONDS", 0.1)
    monkeypatch.setattr(processes.os, "kill", lambda *_: None)  # as in a driver that hangs
    process = processes.multiprocessing.get_context("spawn").Process(target=time.sleep, args=(300,))
    process.start()
    try:
        assert processes.end([process.pid]) == {process.pid}
        assert process not in processes.multiprocessing.active_children()
    finally:
        monkeypatch.undo()
        process.kill()
        process.join()
