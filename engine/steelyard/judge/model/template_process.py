"""Chat templates, rendered in a separate process that ends where a template exceeds its limits.

A template comes with a judge, from whoever made it. Jinja's sandbox keeps it from files and objects
but bounds neither time nor memory: one expression can ask for either without end, inside a single
call of the interpreter. Only the operating system can stop that.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

from steelyard.errors import JudgeUnavailable
from steelyard.judge.model import template_worker

SOURCE_BYTES = 1 << 20
WAIT_SECONDS = 15.0  # by the clock, for a process that is still starting on a busy machine


class TemplateError(Exception):
    """A template refuses a conversation, or is wrong; the text is what it raised."""


class TemplateProcess:
    """Renders the chat template of one judge; its process starts with the first rendering.

    Args:
        template: Jinja, as transformers takes it.
        place: the judge's folder, for errors.
        day: what the template takes for today.
    """

    def __init__(self, template: str, place: str, day: datetime) -> None:
        self._template, self._place, self._day = template, place, day

    def render(self, values: Mapping[str, Any]) -> str:
        """Render the template with JSON values.

        Raises:
            TemplateError: the template raised it.
            JudgeUnavailable: the template exceeds a limit, or no process can be started.
        """
        request = {"template": self._template, "values": values, "day": self._day.isoformat()}
        if len(self._template) > SOURCE_BYTES:
            raise self._exceeded(f"more than {SOURCE_BYTES >> 20} MiB of source")
        answer = self._worker.ask(json.dumps(request).encode() + b"\n")
        if "limit" in answer:
            raise self._exceeded(answer["limit"])
        if "error" in answer:
            raise TemplateError(answer["error"])
        return answer["text"]

    @cached_property
    def _worker(self) -> _Worker:
        try:
            worker = _Worker()
        except OSError as error:
            raise JudgeUnavailable(
                f"the process that renders chat templates cannot be started: {error.strerror}",
                place=self._place,
                effect="nothing was read",
                remedy="free memory or end other processes, then run the command again",
            ) from error
        weakref.finalize(self, worker.end)
        return worker

    def _exceeded(self, limit: str) -> JudgeUnavailable:
        return JudgeUnavailable(
            f"the chat template takes {limit}",
            place=self._place,
            effect="nothing was read",
            remedy="correct it (chat_template.jinja, or in tokenizer_config.json), or choose"
            " another judge",
        )


class _Worker:
    """The process and the socket to it; after a limit it has ended and answers nothing more."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", template_worker.__file__]
        ours, theirs = socket.socketpair()
        try:
            end = theirs.fileno()
            self._process = subprocess.Popen(
                command, stdin=end, stdout=end, stderr=subprocess.DEVNULL
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.settimeout(WAIT_SECONDS)
        self._socket = ours

    def ask(self, request: bytes) -> dict[str, str]:
        """Return the answer to a request, a line of JSON."""
        line = b""
        try:
            self._socket.sendall(request)
            while not line.endswith(b"\n"):
                piece = self._socket.recv(1 << 16)
                if not piece:
                    return {"limit": _reason(self._process.wait())}
                line += piece
        except TimeoutError:
            self.end()
            return {"limit": f"more than {WAIT_SECONDS:g} s"}
        except OSError:  # it ended before it took the request
            return {"limit": _reason(self._process.wait())}
        answer: dict[str, str] = json.loads(line)
        return answer

    def end(self) -> None:
        """End the process; a second call does nothing."""
        self._process.kill()
        self._process.wait()
        self._socket.close()


def _reason(code: int) -> str:
    if code == -signal.SIGXCPU:
        return f"more than {template_worker.SECONDS} s of a processor"
    return f"more than its process can give, which ended with code {code}"
