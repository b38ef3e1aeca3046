"""How tests share the machine when pytest runs them in several processes (-n), and one judge."""

from __future__ import annotations

import fcntl
import os

import pytest
from hypothesis import settings

from steelyard.core.user_cache import cache_folder
from steelyard.judge.model.embedded import embedded_model

# They share nothing, and are the longest tests.
ALONE = "tests/test_benchmarks.py"
HEAVY = ("slow", "vllm", "train")


# The same examples in every run, so that a change is judged by what it changed. For new examples:
# pytest --hypothesis-profile default
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_configure(config):
    if hasattr(config, "workerinput"):  # before torch is imported; threads would only fight
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each process whole files: the tests of a file share models, engines and runs."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return nodeid if nodeid.startswith(ALONE) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    return Files(config, log)


def pytest_collection_modifyitems(config, items):
    """Begin with the longest, so that no process is left with one of them at the end."""
    if not hasattr(config, "workerinput"):
        return
    heavy = {item.path for item in items if any(map(item.get_closest_marker, HEAVY))}
    items.sort(key=lambda item: (not item.nodeid.startswith(ALONE), item.path not in heavy))


@pytest.fixture(scope="session")
def embedded_judge():
    """The folder of the embedded judge; the first process converts it, the others wait."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "converting.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return embedded_model()
