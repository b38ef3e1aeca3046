"""Plan -> prompts in prefix order, bucket by bucket, prepared beside the judge's work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from steelyard.judge.base import NOTHING_READY
from steelyard.plan import prefix_order
from steelyard.prompt import Compiled, Rows, TextEncoder, compile_template, compose
from steelyard.records import Int64, PromptBatch, Unique
from steelyard.store.buckets import BucketTexts
from steelyard.store.plan_files import Manifest, unique_of
from steelyard.tally import Tally

# A chunk of prompts is tokenised, ordered and handed over at once; its texts bound the memory.
CHUNK_PROMPTS = 2048
CHUNK_BYTES = 4 << 20
# The judge takes prompts in small batches, so that it can stop soon: what it took, it reads.
BATCH_PROMPTS = 32
PATIENCE = 0.002  # seconds to wait for the next batch while the engine may have work
AHEAD = 128  # batches prepared in advance, across bucket boundaries


@dataclass(frozen=True, slots=True)
class PromptMaker:
    """Bucket texts -> prompts in feeding order.

    Attributes:
        encoder: the judge's.
        templates: compiled, by the optional slots present (`prompt.render_templates`).
        context: tokens that a prompt may have.
        truncate: whether longer ones are cut; else they are overlong.
    """

    encoder: TextEncoder
    templates: dict[str, Compiled]
    context: int
    truncate: bool

    @classmethod
    def build(
        cls, encoder: TextEncoder, templates: dict[str, str], context: int, *, truncate: bool
    ) -> PromptMaker:
        """Compile rendered templates."""
        compiled = {name: compile_template(text, encoder) for name, text in templates.items()}
        return cls(encoder, compiled, context, truncate)

    @property
    def template_tokens(self) -> int:
        """Tokens of the longest template without data."""
        return max(template.fixed for template in self.templates.values())

    def batches(
        self, bucket: int, texts: pa.Table, unique: Unique, pending: Int64
    ) -> Iterator[PromptBatch]:
        """Prompts of a bucket, chunk by chunk, in an order in which neighbours share prefixes.

        Args:
            bucket: its number.
            texts: TEXTS of its n pairs.
            unique: its unique prompts.
            pending: indices of the unique prompts to be read.
        """
        rows = _PairTexts(texts)
        prompts = unique.first[pending].tolist()
        slots = [rows.slots(prompt) for prompt in prompts]
        order = sorted(
            range(len(prompts)), key=lambda at: [slots[at].get(name, "") for name in _ORDER]
        )
        for chunk in _chunks(order, slots):
            yield from self._batches(
                bucket,
                [unique.keys[pending[at]] for at in chunk],
                [slots[at] for at in chunk],
            )

    def _batches(
        self, bucket: int, keys: list[bytes], slots: list[dict[str, str]]
    ) -> Iterator[PromptBatch]:
        texts = list(dict.fromkeys(text for slot in slots for text in slot.values()))
        ids = dict(
            zip(
                texts,
                (np.asarray(one, dtype=np.int32) for one in self.encoder.encode_data(texts)),
                strict=True,
            )
        )
        rows = compose(
            [self._template(slot) for slot in slots],
            ({name: ids[text] for name, text in slot.items()} for slot in slots),
            self.context if self.truncate else None,
        )
        yield from _ordered(bucket, keys, rows)

    def _template(self, slots: dict[str, str]) -> Compiled:
        present = sorted(name for name in ("system", "conversation") if name in slots)
        return self.templates["+".join(present)]


_ORDER = ("system", "conversation", "instruction", "first", "second")


class _PairTexts:
    """A bucket's texts as prompts need them."""

    def __init__(self, texts: pa.Table) -> None:
        self._count = len(texts)
        self._columns = {name: texts[name].to_pylist() for name in _ORDER[:3]}
        self._a, self._b = texts["response_a"].to_pylist(), texts["response_b"].to_pylist()

    def slots(self, prompt: int) -> dict[str, str]:
        """Slot texts of prompt j: pair j % n, order ab below n, ba from there on."""
        row, swapped = prompt % self._count, prompt >= self._count
        a, b = self._a[row], self._b[row]
        slots = {
            name: column[row] for name, column in self._columns.items() if column[row] is not None
        }
        return slots | ({"first": b, "second": a} if swapped else {"first": a, "second": b})


def _chunks(order: list[int], slots: list[dict[str, str]]) -> Iterator[list[int]]:
    chunk: list[int] = []
    size = 0
    for at in order:
        chunk.append(at)
        size += sum(map(len, slots[at].values()))
        if len(chunk) >= CHUNK_PROMPTS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _ordered(bucket: int, keys: list[bytes], rows: Rows) -> Iterator[PromptBatch]:
    order = prefix_order(rows.tokens, rows.offsets)
    for start in range(0, len(order), BATCH_PROMPTS):
        at = order[start : start + BATCH_PROMPTS]
        offsets = np.zeros(len(at) + 1, dtype=np.int64)
        np.cumsum(rows.lengths[at], out=offsets[1:])
        yield PromptBatch(
            bucket=bucket,
            keys=[keys[index] for index in at.tolist()],
            tokens=np.concatenate(
                [
                    rows.tokens[rows.offsets[index] : rows.offsets[index + 1]]
                    for index in at.tolist()
                ]
            ),
            offsets=offsets,
            truncated=rows.truncated[at],
        )


def feed(
    bucket_texts: BucketTexts,
    manifest: Manifest,
    maker: PromptMaker,
    done: Callable[[int], set[bytes]],
    tally: Tally,
) -> Iterator[PromptBatch]:
    """All prompts of the plan that are not yet read, bucket after bucket.

    Args:
        bucket_texts: gives out the texts of the plan.
        manifest: the plan.
        maker: makes prompts of texts.
        done: keys of a bucket that are read already.
        tally: told of every bucket before its first prompt.
    """
    for bucket, prompts in enumerate(manifest.unique):
        read = done(bucket)
        if len(read) >= prompts:
            continue
        texts = bucket_texts.texts(bucket)
        unique = unique_of(texts)
        pending = np.asarray(
            [index for index, key in enumerate(unique.keys) if key not in read], dtype=np.int64
        )
        tally.open(unique, pending)
        yield from maker.batches(bucket, texts, unique, pending)


class Ahead:
    """Runs an iterator in a thread of its own, a few items ahead of its user.

    Where the thread is behind, NOTHING_READY is given out, so that an engine with work in its queue
    can go on with it. An error in the thread is raised where the user takes the next item. Once
    `stop` is set, nothing more is given out.
    """

    def __init__(
        self, items: Iterator[PromptBatch], stop: threading.Event, depth: int = AHEAD
    ) -> None:
        self._queue: queue.Queue[PromptBatch | BaseException | None] = queue.Queue(depth)
        self._stopped = stop
        self._closed = False
        self._thread = threading.Thread(
            target=self._work, args=(items,), name="prompt-maker", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[PromptBatch]:
        while not self._stopped.is_set():
            try:
                item = self._queue.get(timeout=PATIENCE)
            except queue.Empty:
                yield NOTHING_READY
                continue
            if isinstance(item, BaseException):
                raise item
            if item is None or self._stopped.is_set():
                return
            yield item

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        while self._thread.is_alive():
            with suppress(queue.Empty):
                self._queue.get(timeout=0.02)

    def _work(self, items: Iterator[PromptBatch]) -> None:
        try:
            for item in items:
                if self._closed:
                    return
                self._queue.put(item)
            self._queue.put(None)
        except BaseException as error:
            self._queue.put(error)
