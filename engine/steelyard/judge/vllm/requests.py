"""Prompts into an engine's queue, and reads out of its steps; by vLLM's calls, without vLLM."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from steelyard.core.batches import Generations, PromptBatch, ReadBatch
from steelyard.core.judges import Answer
from steelyard.core.schemas import STATUS_ERROR, STATUS_OK, STATUS_UNPARSABLE, Float64
from steelyard.core.work import CacheShape
from steelyard.errors import SteelyardError, escape
from steelyard.judge.base import EngineClock
from steelyard.judge.readout import NO_ANSWER, TextReader, is_read, merge_variants
from steelyard.judge.vllm.inputs import ImageInputs, render_prompt

Prompts = Iterator[tuple[PromptBatch, int] | None]
_END: Any = object()


@dataclass(frozen=True, slots=True)
class CompletedRequest:
    """One finished prompt: where it stands in its batch, and what came of it."""

    batch: PromptBatch
    index: int
    logprobs: list[float] | None = None  # of the label variants, in LabelSet.token_ids' order
    argmax_outside: bool = False
    cached: int = 0
    error: str | None = None
    said: Generation | None = None
    grown: int = 0  # tokens that its images became, beyond their placeholders


@dataclass(frozen=True, slots=True)
class Generation:
    """What the judge wrote about a prompt."""

    ids: list[int]
    text: str
    cached: int  # tokens of the prompt that the cache gave
    tokens: int  # computed behind the prompt
    numbers: list[float] | None = None
    forced: bool = False


@dataclass(frozen=True, slots=True)
class _Request:
    """What the engine works on: a prompt, or its verdict after what was said."""

    batch: PromptBatch
    index: int
    said: Generation | None = None
    tokens: int = 0  # of this request


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
    """Carries what vLLM raised, as its cause, out of `RequestQueue`."""


class RequestQueue:
    """The engine's queue: puts prompts in, steps, and takes results out.

    Args:
        engine: vLLM's.
        sampling: makes vLLM's parameters of one request: for the prompt with this key, or for the
            label alone where the key is None.
        answer: how answers are read.
        reader: of what the judge writes.
        vocabulary: token ids are below it; 0: unknown.
        clock: told of every step.
        own_process: whether the engine works on while this process does something else.
        pictures: the images of prompts, where there are any.
    """

    def __init__(
        self,
        engine: Any,
        sampling: Callable[[bytes | None], Any],
        answer: Answer,
        reader: TextReader,
        *,
        vocabulary: int,
        clock: EngineClock,
        own_process: bool,
        pictures: ImageInputs | None = None,
    ) -> None:
        self._engine, self._pictures = engine, pictures
        self._clock, self._own_process = clock, own_process
        self._loaded = False  # whether prompts were left in the engine after the last step
        self._answer, self._reader = answer, reader
        self._wanted = answer.labels.token_ids
        self._vocabulary = vocabulary
        config = engine.vllm_config
        self._longest = config.model_config.max_model_len - answer.room
        self._target = 2 * config.scheduler_config.max_num_seqs
        self._sampling = sampling
        self.waiting: dict[str, _Request] = {}
        self.finished: list[CompletedRequest] = []
        self._count = 0

    def fill(self, prompts: Prompts) -> bool:
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
            problem = self._request(_Request(batch, index), ids, batch.keys[index])
        if problem is not None:
            self.finished.append(CompletedRequest(batch, index, error=problem))

    def _request(self, request: _Request, ids: list[int], key: bytes | None) -> str | None:
        """Give ids to the engine; what it has against them, if anything."""
        self._count += 1
        name = str(self._count)
        images = request.batch.images_of(request.index)
        prompt: Any = {"type": "token", "prompt_token_ids": ids}
        try:
            if images and self._pictures is not None:
                prompt = render_prompt(self._engine, self._pictures.prompt(ids, images))
            self._engine.add_request(name, prompt, self._sampling(key))
        except ValueError as error:
            return f"refused by the engine: {escape(error, 200)}"
        except SteelyardError:
            raise
        except Exception as error:
            if type(error).__name__ != "VLLMValidationError":
                raise EngineError from error
            return f"refused by the engine: {escape(error, 200)}"
        self.waiting[name] = replace(request, tokens=len(ids))
        return None

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
                request = self.waiting.pop(output.request_id)
                grown = 0
                if request.batch.images and output.prompt_token_ids:
                    grown = len(output.prompt_token_ids) - request.tokens
                request = replace(request, tokens=request.tokens + grown)
                result = self._result(request, output)
                if result is not None:
                    self.finished.append(replace(result, grown=grown))
        self._loaded = bool(self.waiting)

    def _result(self, request: _Request, output: Any) -> CompletedRequest | None:
        """What came of a request; None: the verdict is asked for now."""
        batch, index, said = request.batch, request.index, request.said
        if not output.outputs or not output.outputs[0].token_ids:
            return CompletedRequest(
                batch, index, error="the engine gave the prompt up without a read"
            )
        if said is None and self._answer.writes:
            return self._said(request, output)
        computed = request.tokens - (output.num_cached_tokens or 0)
        if said is not None:
            behind = computed - (request.tokens - len(said.ids) - len(self._answer.verdict))
            extra = max(behind, len(self._answer.verdict)) + 1
            said = replace(said, tokens=said.tokens + extra, forced=True)
        cached = said.cached if said is not None else output.num_cached_tokens or 0
        return self._label(CompletedRequest(batch, index, cached=cached, said=said), output, 0)

    def _label(self, found: CompletedRequest, output: Any, position: int) -> CompletedRequest:
        """Read the labels at one position of what the engine sampled."""
        flat = output.outputs[0].logprobs
        width = 1 + len(self._wanted)
        start = position * width
        # First stands the sampled token, then come the ids asked for, in their order.
        if not flat or flat.token_ids[start + 1 : start + width] != self._wanted:
            return replace(found, error="the engine read other tokens than the labels")
        return replace(
            found,
            logprobs=flat.logprobs[start + 1 : start + width],
            argmax_outside=flat.token_ids[start] not in self._wanted,
        )

    def _said(self, request: _Request, output: Any) -> CompletedRequest | None:
        """Read what the judge wrote, or ask for the verdict that it did not give."""
        every = list(output.outputs[0].token_ids)
        ids = self._reader.strip(every)
        text = self._reader.text(ids)
        said = Generation(ids, text, output.num_cached_tokens or 0, len(every))
        found = CompletedRequest(request.batch, request.index, cached=said.cached, said=said)
        if self._answer.kind != "reasons":
            numbers = self._reader.numbers(text)
            return replace(found, said=replace(said, numbers=numbers))
        at = self._reader.verdict_at(ids, text)
        if at is not None:
            return self._label(found, output, at)
        prompt = [*request.batch.ids(request.index), *ids, *self._answer.verdict]
        problem = self._request(replace(request, said=said), prompt, None)
        return None if problem is None else replace(found, error=problem)

    def take(self) -> list[CompletedRequest]:
        """The finished prompts, once."""
        finished, self.finished = self.finished, []
        return finished

    def drop_waiting(self) -> None:
        """Take back what is still in the engine, when a reader stops early."""
        self._clock.pause()
        if self.waiting:
            with contextlib.suppress(Exception):
                self._engine.abort_request(list(self.waiting))


def iter_prompts(batches: Iterable[PromptBatch]) -> Prompts:
    """Prompts one by one; None for an empty batch."""
    for batch in batches:
        if not len(batch):
            yield None
        for index in range(len(batch)):
            yield batch, index


def read_batch(finished: list[CompletedRequest], answer: Answer) -> ReadBatch:
    """The columns of finished prompts; those without a proper read have another status than ok."""
    labels = answer.labels
    variants = len(labels.token_ids)
    empty = [np.nan] * variants
    logprobs: Float64 = np.array([f.logprobs or empty for f in finished], dtype=np.float64)
    merged, mass = merge_variants(logprobs.reshape(len(finished), variants), labels.starts)
    read = is_read(mass) if variants else np.ones(len(finished), dtype=np.bool_)
    errors = [
        f.error or (None if ok else "the log-probabilities are not finite")
        for f, ok in zip(finished, read, strict=True)
    ]
    status = [STATUS_OK if error is None else STATUS_ERROR for error in errors]
    if answer.writes and answer.kind != "reasons":
        for row, found in enumerate(finished):
            if errors[row] is None and (found.said is None or found.said.numbers is None):
                status[row], errors[row] = STATUS_UNPARSABLE, NO_ANSWER
    lengths = [len(f.batch.rows[f.index]) + f.grown for f in finished]
    return ReadBatch(
        keys=[f.batch.keys[f.index] for f in finished],
        buckets=np.array([f.batch.bucket for f in finished], dtype=np.int32),
        status=status,
        label_logprobs=merged,
        label_mass=mass,
        argmax_outside=np.array([f.argmax_outside for f in finished], dtype=np.bool_),
        truncated=np.array([f.batch.truncated[f.index] for f in finished], dtype=np.bool_),
        prompt_tokens=np.array(lengths, dtype=np.int32),
        cached_tokens=np.array([f.cached for f in finished], dtype=np.int32),
        errors=errors,
        written=_written(finished) if answer.writes else None,
    )


def _written(finished: list[CompletedRequest]) -> Generations:
    said = [f.said for f in finished]
    return Generations(
        output=[None if one is None else one.text for one in said],
        numbers=[None if one is None else one.numbers for one in said],
        forced=np.array([one is not None and one.forced for one in said], dtype=np.bool_),
        output_tokens=np.array([0 if one is None else one.tokens for one in said], dtype=np.int32),
    )
