"""A judge without a model: its log-probabilities are a fixed function of the prompt's ids.

For tests, dry runs and fault injection. `scripted[:seed=0,rate=0,fail=0,nan=0]`: `rate` limits
prompts per second (0: no limit), `fail` is the share of prompts that kill the engine whenever they
are read, `nan` the share whose log-probabilities are not finite.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated

import msgspec
import numpy as np
import xxhash
from msgspec import Meta
from typing_extensions import override

from steelyard.core.batches import Generations, PromptBatch, ReadBatch, TokenRows, Workload
from steelyard.core.config import parse_pairs
from steelyard.core.judges import Answer, JudgeCard, LabelVariant
from steelyard.core.schemas import STATUS_ERROR, STATUS_OK, STATUS_UNPARSABLE, Float64
from steelyard.core.work import EngineReport
from steelyard.errors import EngineFailed, UsageError, check_keys, escape
from steelyard.judge.base import Encoder, EngineClock, Judge
from steelyard.judge.readout import NO_ANSWER, TextReader, merge_variants
from steelyard.protocols.protocol import Message

CONTROL = {
    "<|begin|>": 256,
    "<|system|>": 257,
    "<|user|>": 258,
    "<|assistant|>": 259,
    "<|image|>": 260,
}
CONTEXT_LENGTH = 1 << 20
_WORDS = 1 << 20  # ids of whole words begin here
_SILENT = 1 / 32  # share of texts without an answer
_STEP_SECONDS = 0.5  # an engine that is slow by `rate` completes steps at least this often


class _Script(msgspec.Struct, forbid_unknown_fields=True):
    seed: Annotated[int, Meta(ge=0)] = 0
    rate: Annotated[float, Meta(ge=0)] = 0.0
    fail: Annotated[float, Meta(ge=0, le=1)] = 0.0
    nan: Annotated[float, Meta(ge=0, le=1)] = 0.0


class ByteEncoder(Encoder):
    """Encoder with one id per UTF-8 byte, and five control tokens that only templates can write."""

    engine = "bytes"
    digest = "bytes-1"
    control_ids = frozenset(CONTROL.values())

    @override
    def encode_template(self, text: str, *, first: bool) -> list[int]:
        ids: list[int] = []
        while text:
            token = next((token for token in CONTROL if text.startswith(token)), None)
            ids += [CONTROL[token]] if token else text[0].encode()
            text = text[len(token) if token else 1 :]
        return ids

    @override
    def encode_data(self, texts: Sequence[str]) -> TokenRows:
        return TokenRows.of([np.frombuffer(text.encode(), dtype=np.uint8) for text in texts])

    @property
    @override
    def ends(self) -> tuple[int, ...]:
        return (CONTROL["<|begin|>"],)

    @override
    def decode(self, ids: Sequence[int]) -> str:
        return bytes(id_ for id_ in ids if id_ < 256).decode("utf-8", "replace")

    @override
    def render_chat(self, messages: Sequence[Message]) -> str:
        body = "".join(
            f"<|{message.role}|>{'<|image|>' * message.images}{message.content}"
            for message in messages
        )
        return f"<|begin|>{body}<|assistant|>"

    @override
    def label_variants(self, label: str) -> tuple[LabelVariant, ...]:
        raw = label.encode()
        if len(raw) == 1:
            return (LabelVariant(raw[0], label),)
        # Longer labels get a token that no text can become.
        return (LabelVariant(_WORDS + xxhash.xxh32_intdigest(raw) % _WORDS, label),)


class ScriptedJudge(Judge):
    """A judge that computes its answers from hashes.

    Args:
        options: the text after `scripted:`, such as `seed=3,rate=500`.
    """

    encoder: ByteEncoder
    images = "digests-1"  # it reads the digests of images, not the images

    def __init__(self, options: str = "") -> None:
        self._script = script = _parse_script(options)
        # The rate changes no read, so a run may go on with another rate.
        words = f"seed={script.seed},fail={script.fail:g},nan={script.nan:g}"
        self.card = JudgeCard(
            name=f"scripted:{words}",
            model="scripted",
            revision="1",
            weights=words,
            tokenizer=ByteEncoder.digest,
            dtype="float64",
        )
        self.encoder = ByteEncoder()
        self.clock = EngineClock()
        self.context_length = CONTEXT_LENGTH
        self._answer: Answer | None = None

    @override
    def start(self, workload: Workload, answer: Answer) -> EngineReport:
        self._answer = answer
        return EngineReport(settings={"rate": self._script.rate}, context_length=CONTEXT_LENGTH)

    @override
    def read(self, batches: Iterator[PromptBatch]) -> Iterator[ReadBatch]:
        rate = self._script.rate
        for batch in batches:
            step = max(1, min(len(batch), int(rate / 20) if rate else len(batch)))
            for start in range(0, len(batch), step):
                began = time.perf_counter()
                reads = self._read(batch.slice(start, start + step))
                self._work_off(len(reads) / rate if rate else 0.0)
                self.clock.ran(began, time.perf_counter())
                yield reads
        self.clock.pause()

    @override
    def close(self) -> None:
        self._answer = None

    def _work_off(self, seconds: float) -> None:
        while seconds > 0:
            time.sleep(min(seconds, _STEP_SECONDS))
            seconds -= _STEP_SECONDS
            self.owner.progress()

    def _read(self, batch: PromptBatch) -> ReadBatch:
        if self._answer is None:
            raise EngineFailed("the scripted engine is not started", remedy="call start first")
        count = len(batch)
        units = np.asarray([self._units(batch, index) for index in range(count)])
        if (units[:, 3] < self._script.fail).any():
            self._answer = None
            raise EngineFailed("the script has it fail here", remedy="set fail=0")
        labels = self._answer.labels
        logprobs = _logprobs(units, len(labels.token_ids))
        broken = units[:, 4] < self._script.nan
        logprobs[broken] = np.nan
        merged, mass = merge_variants(logprobs, labels.starts)
        reads = ReadBatch(
            keys=batch.keys,
            buckets=np.full(count, batch.bucket, dtype=np.int32),
            status=[STATUS_ERROR if bad else STATUS_OK for bad in broken.tolist()],
            label_logprobs=merged,
            label_mass=mass,
            argmax_outside=mass < 0.5,
            truncated=batch.truncated,
            prompt_tokens=batch.rows.lengths.astype(np.int32),
            cached_tokens=np.zeros(count, dtype=np.int32),
            errors=["log-probabilities are not finite" if bad else None for bad in broken.tolist()],
        )
        return _write(reads, units, self._answer, self.encoder) if self._answer.writes else reads

    def _units(self, batch: PromptBatch, index: int) -> list[float]:
        """Draw five numbers in [0, 1) from ids and images, and above temperature 0 from the key."""
        shown = batch.rows[index].tobytes() + "".join(batch.images_of(index)).encode()
        if self._answer is not None and self._answer.temperature:
            shown += batch.keys[index]
        seed = self._script.seed
        first = xxhash.xxh3_128_intdigest(shown, seed=seed)
        second = xxhash.xxh3_64_intdigest(shown, seed=seed + 1)
        third = xxhash.xxh3_128_intdigest(shown, seed=seed + 2)
        low = (1 << 64) - 1
        words = (first >> 64, first & low, second, third >> 64, third & low)
        return [word * 2.0**-64 * (1 - 2**-53) for word in words]


def _logprobs(units: Float64, variants: int) -> Float64:
    """Make a normal preference logit of standard deviation 2, and a label mass in [0.4, 1)."""
    radius = np.sqrt(-2.0 * np.log(1.0 - units[:, 0]))
    logit = 2.0 * radius * np.cos(2.0 * math.pi * units[:, 1])
    log_mass = np.log(0.4 + 0.6 * units[:, 2])
    weights = np.outer(logit, np.linspace(0.5, -0.5, variants))
    normal = np.logaddexp.reduce(weights, axis=1)
    return np.asarray(weights + (log_mass - normal)[:, None])


def _parse_script(text: str) -> _Script:
    given = parse_pairs("scripted: ...", tuple(filter(None, text.split(","))))
    check_keys(given, _Script.__struct_fields__, "the scripted judge")
    for name, value in given.items():
        try:
            msgspec.convert({name: value}, _Script, strict=False)
        except msgspec.ValidationError:
            raise UsageError(
                f"the scripted judge does not take {name}={escape(value)}",
                remedy="seed: a whole number from 0; rate: from 0; fail and nan: 0 to 1",
            ) from None
    return msgspec.convert(given, _Script, strict=False)


def _write(reads: ReadBatch, units: Float64, answer: Answer, encoder: Encoder) -> ReadBatch:
    """Add texts that lead to these reads; `units` are the numbers drawn for each prompt."""
    reader = TextReader(answer, encoder)
    texts: list[str | None] = [_text(answer, row) for row in units.tolist()]
    ids = [list((text or "").encode()) for text in texts]
    forced = np.zeros(len(texts), dtype=np.bool_)
    numbers: list[list[float] | None] = [None] * len(texts)
    status, errors = list(reads.status), list(reads.errors)
    for row, text in enumerate(map(str, texts)):
        if answer.kind == "reasons":
            forced[row] = reader.verdict_position(ids[row], text) is None
            continue
        numbers[row] = reader.numbers(text)
        if numbers[row] is None and status[row] == STATUS_OK:
            status[row], errors[row] = STATUS_UNPARSABLE, NO_ANSWER
    lengths = np.asarray([len(row) for row in ids], dtype=np.int32)
    written = Generations(texts, numbers, forced, lengths)
    return replace(reads, status=status, errors=errors, written=written)


def _text(answer: Answer, units: list[float]) -> str:
    if units[2] < _SILENT:
        return "Both have their merits."
    if answer.kind == "scores":
        first, second = (answer.low + (answer.high - answer.low) * unit for unit in units[:2])
        return f"Reasons.\n{first:.1f} {second:.1f}"
    if answer.kind == "probability":
        return f"Reasons. <{answer.tag}>{units[0]:.3f}</{answer.tag}>"
    names = answer.labels.names
    return f"Reasons. [[{names[int(units[0] * len(names))]}]]"
