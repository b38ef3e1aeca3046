"""What an engine in this process did, counted at its own methods, whichever tool drives it."""

from __future__ import annotations

import os
import time
from typing import Any

# What Steelyard sets where the user has set nothing; the other tools get the same.
ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "TOKENIZERS_PARALLELISM": "true",
}


def prepare() -> None:
    """Set the environment; on a CPU engines run in the caller's process, whatever the tool."""
    from steelyard.judge.vllm.process import settle_llvmlite
    from steelyard.judge.vllm.settings import installed_device

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if installed_device() == "cpu":
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    settle_llvmlite()


class Meter:
    """Counts while it is open.

    Attributes:
        scheduled: tokens that the scheduler gave to the model, of prompts and answers, also those
            computed again after a preemption; 0 where the engine has a separate process.
        steps: engine steps.
        inside: seconds within them.
        span: seconds from the beginning of the first step to the end of the last.
        prompts: token ids of all requests in their order, if `keep`.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.scheduled = self.steps = 0
        self.inside = 0.0
        self.prompts: list[list[int]] = []
        self._keep = keep
        self._first = self._last = 0.0

    @property
    def span(self) -> float:
        """Seconds from the first step to the last."""
        return self._last - self._first

    @property
    def idle(self) -> float:
        """Share of the span in which the engine was not stepping."""
        return 1 - self.inside / self.span if self.span else 0.0

    def __enter__(self) -> Meter:
        prepare()
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.engine.llm_engine import LLMEngine

        self._put_back = [
            (Scheduler, "schedule", Scheduler.schedule),
            (LLMEngine, "step", LLMEngine.step),
            (LLMEngine, "add_request", LLMEngine.add_request),
        ]
        for owner, name, original in self._put_back:
            setattr(owner, name, getattr(self, f"_{name}")(original))
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, original in self._put_back:
            setattr(owner, name, original)

    def _schedule(self, original: Any) -> Any:
        def schedule(*arguments: Any, **options: Any) -> Any:
            output = original(*arguments, **options)
            self.scheduled += output.total_num_scheduled_tokens
            return output

        return schedule

    def _step(self, original: Any) -> Any:
        def step(engine: Any) -> Any:
            began = time.perf_counter()
            self._first = self._first or began
            try:
                return original(engine)
            finally:
                self._last = time.perf_counter()
                self.inside += self._last - began
                self.steps += 1

        return step

    def _add_request(self, original: Any) -> Any:
        def add_request(engine: Any, name: str, prompt: Any, *rest: Any, **options: Any) -> Any:
            if self._keep:
                self.prompts.append(list(prompt["prompt_token_ids"]))
            return original(engine, name, prompt, *rest, **options)

        return add_request
