"""Prompts as requests to an engine, and its outputs as reads; without importing vLLM."""

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
from steelyard.judge.readout import NO_ANSWER, TextReader, merge_variants
from steelyard.judge.vllm.inputs import image_prompt, render_prompt
from steelyard.store.images import ImageStore

Prompts = Iterator[tuple[PromptBatch, int] | None]
_END: Any = object()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is read of a prompt, which is given by its batch and the index in it."""

    batch: PromptBatch
    index: int
    logprobs: list[float] | None = None  # of the label variants, in LabelSet.token_ids' order
    argmax_outside: bool = False
    cached: int = 0
    error: str | None = None
    generation: Generation | None = None
    image_tokens: int = 0  # beyond the placeholders of its images


@dataclass(frozen=True, slots=True)
class Generation:
    """What the judge wrote about a prompt."""

    ids: list[int]
    text: str
    tokens: int  # computed after the prompt
    numbers: list[float] | None = None
    forced: bool = False


def cache_shape(config: Any) -> CacheShape | None:
    """Return the engine's prefix cache; None where the size of its pool is unknown.

    vLLM switches caching off for some models, and measures the pool itself.
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
    """The requests of an engine: adds them, runs engine steps, and collects what is finished.

    Args:
        sampling: makes the sampling parameters of a request (`Sampling`).
        vocabulary: token ids are below it; 0: unknown.
        separate_process: whether the engine works while this process does something else.
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
        separate_process: bool,
        images: ImageStore | None = None,
    ) -> None:
        self._engine, self._images = engine, images
        self._clock, self._separate_process = clock, separate_process
        self._busy = False  # whether the engine had requests after the last step
        self._answer, self._reader = answer, reader
        self._label_ids = answer.labels.token_ids
        self._vocabulary = vocabulary
        config = engine.vllm_config
        self._longest = config.model_config.max_model_len - answer.room
        self._target = 2 * config.scheduler_config.max_num_seqs
        self._sampling = sampling
        self.unfinished: dict[str, tuple[Outcome, int]] = {}  # so far; tokens of the request
        self.finished: list[Outcome] = []
        self._count = 0

    def fill(self, prompts: Prompts) -> bool:
        """Add requests until the engine has enough; return False when no prompt is left."""
        while len(self.unfinished) < self._target:
            item = next(prompts, _END)
            if item is _END:
                return False
            if item is None:  # nothing is ready; the engine goes on with what it has
                return True
            self._add_prompt(*item)
        return True

    def _add_prompt(self, batch: PromptBatch, index: int) -> None:
        ids = batch.ids(index)
        if refusal := self._check(ids):
            self.finished.append(Outcome(batch, index, error=refusal))
        else:
            self._add(Outcome(batch, index), ids, batch.keys[index])

    def _add(self, outcome: Outcome, ids: list[int], key: bytes | None) -> None:
        """Add a request to the engine: a prompt, or the verdict after what the judge wrote."""
        self._count += 1
        name = str(self._count)
        images = outcome.batch.images_of(outcome.index)
        prompt: Any = {"type": "token", "prompt_token_ids": ids}
        try:
            if images and self._images is not None:
                prompt = render_prompt(self._engine, image_prompt(self._images, ids, images))
            self._engine.add_request(name, prompt, self._sampling(key))
        except SteelyardError:
            raise
        except Exception as error:
            if not isinstance(error, ValueError) and type(error).__name__ != "VLLMValidationError":
                raise EngineError from error
            refusal = f"refused by the engine: {escape(error, 200)}"
            self.finished.append(replace(outcome, error=refusal))
        else:
            self.unfinished[name] = outcome, len(ids)

    def _check(self, ids: list[int]) -> str | None:
        """Return why the engine cannot take a prompt. A bad id would end it, not the prompt."""
        if not ids:
            return "the prompt is empty"
        if len(ids) > self._longest:
            return f"the prompt has {len(ids)} tokens, the engine holds {self._longest}"
        if self._vocabulary and not 0 <= min(ids) <= max(ids) < self._vocabulary:
            return f"a token id is outside the vocabulary of {self._vocabulary}"
        return None

    def step(self) -> None:
        """Run one engine step, and add its results to `finished`."""
        began = time.perf_counter()
        try:
            outputs = self._engine.step()
        except Exception as error:
            raise EngineError from error
        since_last = self._separate_process and self._busy
        self._clock.ran(began, time.perf_counter(), since_last=since_last)
        for output in outputs:
            if output.finished:
                outcome, tokens = self.unfinished.pop(output.request_id)
                if outcome.batch.images and output.prompt_token_ids:
                    sent, tokens = tokens, len(output.prompt_token_ids)
                    outcome = replace(outcome, image_tokens=tokens - sent)
                self._complete(outcome, tokens, output)
        self._busy = bool(self.unfinished)

    def _complete(self, outcome: Outcome, tokens: int, output: Any) -> None:
        """Read a finished request of this many tokens."""
        generation, cached = outcome.generation, output.num_cached_tokens or 0
        if not output.outputs or not output.outputs[0].token_ids:
            outcome = replace(outcome, error="the engine dropped the prompt unread")
            self.finished.append(outcome)
        elif generation is not None:
            prompt = tokens - len(generation.ids) - len(self._answer.verdict)
            computed = tokens - max(cached, prompt)
            generation = replace(generation, tokens=generation.tokens + computed + 1, forced=True)
            self._read_labels(replace(outcome, generation=generation), output, 0)
        elif self._answer.writes:
            self._read_generation(replace(outcome, cached=cached), output)
        else:
            self._read_labels(replace(outcome, cached=cached), output, 0)

    def _read_labels(self, outcome: Outcome, output: Any, position: int) -> None:
        """Read the labels at one position of what the engine sampled."""
        flat = output.outputs[0].logprobs
        width = 1 + len(self._label_ids)
        start = position * width
        # The sampled token comes first, then the ids asked for, in their order.
        if not flat or flat.token_ids[start + 1 : start + width] != self._label_ids:
            outcome = replace(outcome, error="the engine returned other tokens than the labels")
        else:
            outcome = replace(
                outcome,
                logprobs=flat.logprobs[start + 1 : start + width],
                argmax_outside=flat.token_ids[start] not in self._label_ids,
            )
        self.finished.append(outcome)

    def _read_generation(self, outcome: Outcome, output: Any) -> None:
        """Read what the judge wrote, or add a request for the verdict that it did not give."""
        sampled = list(output.outputs[0].token_ids)
        ids, text = self._reader.text(sampled)
        numbers = None if self._answer.kind == "reasons" else self._reader.numbers(text)
        outcome = replace(outcome, generation=Generation(ids, text, len(sampled), numbers))
        if self._answer.kind != "reasons":
            self.finished.append(outcome)
        elif (position := self._reader.verdict_position(ids, text)) is not None:
            self._read_labels(outcome, output, position)
        else:
            prompt = [*outcome.batch.ids(outcome.index), *ids, *self._answer.verdict]
            self._add(outcome, prompt, None)

    def abort(self) -> None:
        """Remove unfinished requests from the engine, when a reader stops early."""
        self._clock.pause()
        if self.unfinished:
            with contextlib.suppress(Exception):
                self._engine.abort_request(list(self.unfinished))


def iter_prompts(batches: Iterable[PromptBatch]) -> Prompts:
    """Yield prompts one by one, and None for an empty batch."""
    for batch in batches:
        if not len(batch):
            yield None
        for index in range(len(batch)):
            yield batch, index


def read_batch(finished: list[Outcome], answer: Answer) -> ReadBatch:
    """Turn finished prompts into columns; failed ones get another status than ok."""
    labels = answer.labels
    variants = len(labels.token_ids)
    empty = [np.nan] * variants
    logprobs: Float64 = np.array([f.logprobs or empty for f in finished], dtype=np.float64)
    merged, mass = merge_variants(logprobs.reshape(len(finished), variants), labels.starts)
    read = np.isfinite(mass) if variants else np.ones(len(finished), dtype=np.bool_)
    errors = [
        f.error or (None if ok else "the log-probabilities are not finite")
        for f, ok in zip(finished, read, strict=True)
    ]
    status = [STATUS_OK if error is None else STATUS_ERROR for error in errors]
    if answer.writes and answer.kind != "reasons":
        for row, f in enumerate(finished):
            if errors[row] is None and (f.generation is None or f.generation.numbers is None):
                status[row], errors[row] = STATUS_UNPARSABLE, NO_ANSWER
    lengths = [len(f.batch.rows[f.index]) + f.image_tokens for f in finished]
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
        written=_columns([f.generation for f in finished]) if answer.writes else None,
    )


def _columns(generations: list[Generation | None]) -> Generations:
    nothing = Generation([], "", tokens=0)
    known = [generation or nothing for generation in generations]
    return Generations(
        output=[None if g is None else g.text for g in generations],
        numbers=[g.numbers for g in known],
        forced=np.array([g.forced for g in known], dtype=np.bool_),
        output_tokens=np.array([g.tokens for g in known], dtype=np.int32),
    )
