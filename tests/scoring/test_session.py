"""A session in which any step fails: it ends with the error's class, and no thread outlives it."""

from __future__ import annotations

import errno
import threading

import pytest

from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.errors import EXIT_DONE, DiskFull, EnvironmentFault, JudgeUnavailable
from steelyard.judge.scripted import ScriptedJudge
from steelyard.prompts.maker import PromptMaker
from steelyard.scoring import session
from steelyard.scoring.run import score
from steelyard.scoring.tally import Tally
from steelyard.store.plan.buckets import CopiedBucketTexts
from steelyard.store.rundir import RunDir
from support.helpers import write_pairs

THREADS = {"prompt-maker", "part-writer", "telemetry"}
STEPS = {
    "part writer opens": (session.parts.PartWriter, "__init__"),
    "parts are looked up": (session.parts, "done_keys"),
    "texts are read": (CopiedBucketTexts, "texts"),
    "prompts are made": (PromptMaker, "prepare"),
    "a bucket is opened": (Tally, "open"),
    "the engine starts": (ScriptedJudge, "start"),
    "the start is logged": (RunDir, "log_session"),
    "reads are counted": (Tally, "count"),
    "a part is committed": (session.parts, "commit_part"),
}


@pytest.fixture
def config(tmp_path):
    path = write_pairs(tmp_path / "pairs.parquet", 40, instructions=13)
    return RunConfig(inputs=(str(path),), judge=("scripted",))


def outcome(config, run):
    """Score in a thread; return what was raised, or the exit code."""
    ended = []

    def work():
        try:
            ended.append(score(config, run, Reporter(quiet=True)))
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert ended, "it hangs"
    assert not THREADS & {thread.name for thread in threading.enumerate()}
    return ended[0]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOSPC, errno.ETIMEDOUT])
def test_an_error_of_the_system_in_any_step_of_a_session_ends_it(
    config, tmp_path, monkeypatch, step, number
):
    place, name = STEPS[step]

    def refuse(*_, **__):
        raise OSError(number, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(place, name, refuse)
        error = outcome(config, tmp_path / "run")
    kind = DiskFull if number == errno.ENOSPC else EnvironmentFault
    assert isinstance(error, kind), repr(error)
    assert "injected" in str(error)
    assert outcome(config, tmp_path / "run") == EXIT_DONE


def test_an_engine_that_cannot_be_loaded_ends_a_session_while_prompts_are_made(
    config, tmp_path, monkeypatch
):
    def refuse(*_):
        raise JudgeUnavailable("no GPU", remedy="get one")

    monkeypatch.setattr(ScriptedJudge, "start", refuse)
    assert isinstance(outcome(config, tmp_path / "run"), JudgeUnavailable)
