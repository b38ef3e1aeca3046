"""Kind of fault: an error about a file that is no part of a run speaks of `resume`."""

from __future__ import annotations

import resource
import signal

import pytest

from steelyard.errors import EnvironmentFault
from steelyard.store.durable import write_text


def test_a_result_that_cannot_be_written(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    held = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(EnvironmentFault) as fault:
            write_text(tmp_path / "page.html", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, held)
    assert fault.value.effect == "nothing was written"
    assert "run the command again" in fault.value.remedy
    assert "resume" not in fault.value.remedy
