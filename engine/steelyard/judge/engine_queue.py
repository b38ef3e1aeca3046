"""Prompts into an engine's queue, and reads out of its steps; by vLLM's calls, without vLLM."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from steelyard.errors import escape
from steelyard.judge.base import EngineClock
from steelyard.reads import is_read, merge_variants
from steelyard.records import (
    STATUS_ERROR,
    STATUS_OK,
    Float64,
    LabelSet,
    PromptBatch,
    ReadBatch,
)
from steelyard.work import CacheShape

Prompts = Iterator[tuple[PromptBatch, int] | None]
_END: Any = object()


@dataclass(frozen=True, slots=True)
class Finished:
    """One finished prompt: where it stands in its batch, and what came of it."""

    batch: PromptBatch
    index: int
    logprobs: list[float] | None = None  # of the label variants, in LabelSet.token_ids' order
    argmax_outside: bool = False
    cached: int = 0
    error: str | None = None


def cache_shape(config: Any) -> CacheShape | None:
    """As vLLM made it: it switches caching off for some models, and measures the pool itself.

    None where it does not tell the size of its pool.
    """
    cache, scheduler = config.cache_config, config.scheduler_config
    if not cache.num_gpu_blocks:
        return None
    return CacheShape(
        enabled=bool(cache.enable_prefix_caching),
        block=int(cache.block_size),
        blocks=int(cache.num_gpu_blocks),
        step_tokens=int(scheduler.max_num_batched_tokens),
        step_prompts=int(scheduler.max_num_seqs),
        longest=int(config.model_config.max_model_len),
        steps_in_flight=2 if getattr(scheduler, "async_scheduling", False) else 1,
    )


class EngineError(Exception):
    """Carries what vLLM raised, as its cause, out of `Feed`."""


class Feed:
    """The engine's queue: puts prompts in, steps, and takes results out.

    Args:
        engine: vLLM's.
        sampling: its parameters for one read.
        labels: what is read.
        vocabulary: token ids are below it; 0: unknown.
        clock: told of every step.
        own_process: whether the engine works on while this process does something else.
    """

    def __init__(
        self,
        engine: Any,
        sampling: Any,
        labels: LabelSet,
        vocabulary: int,
        clock: EngineClock,
        *,
        own_process: bool,
    ) -> None:
        self._engine = engine
        self._clock, self._own_process = clock, own_process
        self._loaded = False  # whether prompts were left in the engine after the last step
        self._wanted = labels.token_ids
        self._vocabulary = vocabulary
        config = engine.vllm_config
        self._longest = config.model_config.max_model_len - 1
        self._target = 2 * config.scheduler_config.max_num_seqs
        self._sampling = sampling
        self.waiting: dict[str, tuple[PromptBatch, int]] = {}
        self.finished: list[Finished] = []
        self._count = 0

    def top_up(self, prompts: Prompts) -> bool:
        """Put prompts in until enough are waiting; False: there are no more."""
        while len(self.waiting) < self._target:
            item = next(prompts, _END)
            if item is _END:
                return False
            if item is None:  # nothing is ready; the engine goes on with what it has
                return True
            self._put(*item)
        return True

    def _put(self, batch: PromptBatch, index: int) -> None:
        ids = batch.ids(index)
        problem = self._problem(ids)
        if problem is None:
            self._count += 1
            name = str(self._count)
            try:
                self._engine.add_request(
                    name, {"type": "token", "prompt_token_ids": ids}, self._sampling
                )
            except ValueError as error:
                problem = f"refused by the engine: {escape(error, 200)}"
            except Exception as error:
                if type(error).__name__ != "VLLMValidationError":
                    raise EngineError from error
                problem = f"refused by the engine: {escape(error, 200)}"
            else:
                self.waiting[name] = batch, index
        if problem is not None:
            self.finished.append(Finished(batch, index, error=problem))

    def _problem(self, ids: list[int]) -> str | None:
        """Why a prompt cannot be given to the engine. A bad id would end it, not the prompt."""
        if not ids:
            return "the prompt is empty"
        if len(ids) > self._longest:
            return f"the prompt has {len(ids)} tokens, the engine holds {self._longest}"
        if self._vocabulary and not 0 <= min(ids) <= max(ids) < self._vocabulary:
            return f"a token id is outside the vocabulary of {self._vocabulary}"
        return None

    def step(self) -> None:
        """One engine step; its results are in `finished`."""
        began = time.perf_counter()
        try:
            outputs = self._engine.step()
        except Exception as error:
            raise EngineError from error
        since_last = self._own_process and self._loaded
        self._clock.ran(began, time.perf_counter(), since_last=since_last)
        for output in outputs:
            if output.finished:
                batch, index = self.waiting.pop(output.request_id)
                self.finished.append(self._result(batch, index, output))
        self._loaded = bool(self.waiting)

    def _result(self, batch: PromptBatch, index: int, output: Any) -> Finished:
        if not output.outputs or not output.outputs[0].logprobs:
            return Finished(batch, index, error="the engine gave the prompt up without a read")
        flat = output.outputs[0].logprobs
        # The first entry is the sampled token, then come the ids asked for, in their order.
        sampled, *ids = flat.token_ids
        if ids != self._wanted:
            return Finished(batch, index, error="the engine read other tokens than the labels")
        return Finished(
            batch,
            index,
            logprobs=flat.logprobs[1:],
            argmax_outside=sampled not in self._wanted,
            cached=output.num_cached_tokens or 0,
        )

    def take(self) -> list[Finished]:
        """The finished prompts, once."""
        finished, self.finished = self.finished, []
        return finished

    def drop_waiting(self) -> None:
        """Take back what is still in the engine, when a reader stops early."""
        self._clock.pause()
        if self.waiting:
            with contextlib.suppress(Exception):
                self._engine.abort_request(list(self.waiting))


def each_prompt(batches: Iterable[PromptBatch]) -> Prompts:
    """Prompts one by one; None for an empty batch."""
    for batch in batches:
        if not len(batch):
            yield None
        for index in range(len(batch)):
            yield batch, index


def read_batch(finished: list[Finished], labels: LabelSet) -> ReadBatch:
    """The columns of finished prompts; those without a proper read have status error."""
    variants = len(labels.token_ids)
    empty = [np.nan] * variants
    logprobs: Float64 = np.array([f.logprobs or empty for f in finished], dtype=np.float64)
    merged, mass = merge_variants(logprobs.reshape(len(finished), variants), labels.starts)
    read = is_read(mass)
    errors = [
        f.error or (None if ok else "the log-probabilities are not finite")
        for f, ok in zip(finished, read, strict=True)
    ]
    lengths = [int(f.batch.offsets[f.index + 1] - f.batch.offsets[f.index]) for f in finished]
    return ReadBatch(
        keys=[f.batch.keys[f.index] for f in finished],
        buckets=np.array([f.batch.bucket for f in finished], dtype=np.int32),
        status=[STATUS_OK if error is None else STATUS_ERROR for error in errors],
        label_logprobs=merged,
        label_mass=mass,
        argmax_outside=np.array([f.argmax_outside for f in finished], dtype=np.bool_),
        truncated=np.array([f.batch.truncated[f.index] for f in finished], dtype=np.bool_),
        prompt_tokens=np.array(lengths, dtype=np.int32),
        cached_tokens=np.array([f.cached for f in finished], dtype=np.int32),
        errors=errors,
    )
