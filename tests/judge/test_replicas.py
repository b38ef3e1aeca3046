"""Judges in child processes: dispatch, deaths, errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from steelyard.core.batches import Workload
from steelyard.errors import EngineFailed, JudgeUnavailable, UsageError
from steelyard.judge.base import NOTHING_READY, JudgeSpec
from steelyard.judge.replicas import ReplicatedJudge, assign_devices, split
from support import tiny
from support.echo_judge import open_echo

ANSWER = tiny.answer(1, 2)


def started(model="echo", replicas=2, chunk=4):
    judge = ReplicatedJudge(JudgeSpec("echo", model, replicas=replicas), open_echo, chunk=chunk)
    judge.start(Workload(100, 50), ANSWER)
    return judge


def test_every_prompt_is_read_once_by_both_processes():
    judge = started()
    batches = [tiny.batch(tiny.prompts(70, 99, longest=30, seed=i), bucket=i) for i in range(3)]
    mixed = [batches[0], NOTHING_READY, batches[1], NOTHING_READY, batches[2]]
    found = tiny.by_key(judge.read(iter(mixed)))
    judge.close()
    assert found.keys() == {key for batch in batches for key in batch.keys}
    assert len({row[2] for row in found.values()}) == 2  # both process ids


def test_large_chunks_do_not_block_the_pipes():
    judge = started(chunk=200)
    batch = tiny.batch(tiny.prompts(2000, 99, longest=900))
    assert len(tiny.by_key(judge.read(iter([batch])))) == 2000
    judge.close()


def test_a_killed_child_fails_the_engine_and_a_start_mends_it():
    judge = started()
    os.kill(judge._replicas[1].process.pid, signal.SIGKILL)
    batch = tiny.batch(tiny.prompts(70, 99, longest=30))
    with pytest.raises(EngineFailed, match="exit code -9"):
        list(judge.read(iter([batch])))
    judge.start(Workload(100, 50), ANSWER)
    assert len(tiny.by_key(judge.read(iter([batch])))) == 70
    judge.close()
    judge.close()


def test_an_error_of_a_child_arrives_whole():
    with pytest.raises(JudgeUnavailable, match="no such thing") as refused:
        started("unstartable")
    assert refused.value.remedy == "get one"


def test_children_end_with_a_killed_owner(tmp_path):
    code = """
        import os, signal, sys
        sys.path[:0] = {path!r}
        from test_replicas import started
        if __name__ == "__main__":
            judge = started()
            print(*[one.process.pid for one in judge._replicas], flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    script = tmp_path / "owner.py"
    script.write_text(textwrap.dedent(code).format(path=[str(Path(__file__).parent), *sys.path]))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    children = [int(pid) for pid in done.stdout.split()]
    assert len(children) == 2, done.stderr
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in children)


def test_split_keeps_order_and_neighbours():
    rows = tiny.prompts(10, 99, longest=30)
    batch = tiny.batch(rows, bucket=7)
    parts = list(split(iter([batch]), 4))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [part.ids(i) for part in parts for i in range(len(part))] == rows
    assert {part.bucket for part in parts} == {7}


def test_devices():
    assert assign_devices(2, None) == ["0", "1"]
    assert assign_devices(2, "3, GPU-ab,5") == ["3", "GPU-ab"]
    assert assign_devices(2, "") == ["", ""]
    with pytest.raises(UsageError, match="shows 1"):
        assign_devices(2, "0")
