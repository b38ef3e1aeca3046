"""A session: one loading of an engine, and the reads that are made with it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from steelyard import ratebook
from steelyard.config import RunConfig
from steelyard.errors import EngineFailed, UsageError
from steelyard.feed import Ahead, feed
from steelyard.identity import label_set
from steelyard.judge.base import Judge
from steelyard.oracle import BlockOracle, warm_up
from steelyard.progress import Counts, Reporter
from steelyard.prompting import PreparedBucket, PromptMaker
from steelyard.records import Int32, LabelSet, ReadBatch, Workload
from steelyard.scoring import read_all
from steelyard.store import parts
from steelyard.store.buckets import BucketTexts
from steelyard.store.journal import read_journal
from steelyard.store.plan_files import Manifest
from steelyard.store.rundir import RunDir
from steelyard.tally import Tally
from steelyard.telemetry import Telemetry
from steelyard.work import CacheShape, Work

# So many tokens that could have come from the prefix cache, and none did: that is no chance.
NOTICED_TOKENS = 20_000
NO_CACHE = (
    "the engine has no prefix cache (switched off, or not there for this model): every prompt is"
    " computed in full"
)
NO_HITS = (
    "the engine's prefix cache has not given a single token, though prompts share beginnings"
    " (some hybrid models cannot share): expect the time of `unique` tokens, not of `floor`"
)
# A judge whose first so many reads all fail will not do better by the morning.
HOPELESS_PROMPTS = 200


@dataclass(slots=True)
class Context:
    """What a run works with while it has the lock."""

    run: RunDir
    config: RunConfig
    passport: dict[str, Any]
    judge: Judge
    reporter: Reporter
    stop: threading.Event

    @property
    def labels(self) -> LabelSet:
        """The protocol's labels in the judge's vocabulary."""
        return label_set(self.judge, self.config.protocol)

    @property
    def context_tokens(self) -> int:
        """Tokens a prompt may have; one is left for the answer."""
        return min(int(self.passport["context_length"]), self.judge.context_length) - 1


def read_prompts(ctx: Context, manifest: Manifest, texts: BucketTexts) -> None:
    """Read what is not read yet; the engine is loaded only if there is something."""
    committed = read_journal(ctx.run.root)
    read = sum(part.rows for part in committed)
    counts = Counts(
        pairs_planned=manifest.pairs,
        prompts_planned=manifest.prompts,
        pairs=sum(part.pairs for part in committed),
        prompts=read,
        rejects=sum(manifest.rejected.values()),
    )
    if read >= manifest.prompts:
        ctx.reporter.say(f"all {read:,} reads are there: no engine is needed")
        return
    maker = PromptMaker.build(
        ctx.judge.encoder,
        ctx.passport["templates"],
        ctx.context_tokens,
        truncate=ctx.config.overlong == "truncate",
    )
    if (least := maker.templates[""].fixed) > ctx.context_tokens:
        raise UsageError(
            f"the template alone takes {least} tokens, the judge holds {ctx.context_tokens}",
            effect="nothing was read",
            remedy="choose a judge, or an --engine max_model_len, with a longer context",
        )
    engine = _Engine(ctx, manifest, maker, manifest.prompts - read)
    with Telemetry(ctx.run.root, engine.session):
        began = time.monotonic()
        try:
            _read_prompts(engine, texts, counts)
        finally:
            ctx.reporter.done()
            seconds = time.monotonic() - (engine.loaded or began)
            ctx.judge.close()
            ctx.run.log_session(
                "end",
                session=engine.session,
                seconds=round(seconds, 3),
                prompts=counts.new_prompts,
                tokenizer=ctx.judge.encoder.engine,
            )
        if computed := counts.tokens - counts.cached_tokens:
            ratebook.note(ctx.passport["fingerprint"], computed / seconds)


class _Engine:
    """The judge's engine in one session: loads it, again after it died, and knows its cache."""

    def __init__(self, ctx: Context, manifest: Manifest, maker: PromptMaker, prompts: int) -> None:
        self.ctx, self.manifest, self.maker = ctx, manifest, maker
        self.session = uuid.uuid4().hex
        self.loaded: float | None = None  # when, on the monotonic clock
        self.ready = threading.Event()  # loaded, or never will be
        self.cache: CacheShape | None = None
        self._oracle: BlockOracle | None = None
        longest = manifest.longest_prompt_bytes + maker.template_tokens
        self._workload = Workload(prompts, min(longest, ctx.context_tokens))

    def start(self) -> None:
        """Load it."""
        ctx = self.ctx
        ctx.reporter.say(f"loading {ctx.judge.card.name} ...")
        began = time.monotonic()
        report = ctx.judge.start(self._workload, ctx.labels)
        seconds = time.monotonic() - began
        ctx.reporter.say(f"loaded in {seconds:.1f} s")
        ctx.run.log_session(
            "start",
            session=self.session,
            load_seconds=round(seconds, 3),
            settings=report.settings,
            versions=report.versions,
            cache=None if report.cache is None else asdict(report.cache),
        )
        if self.loaded is None:
            self.loaded, self.cache = time.monotonic(), report.cache
            self._oracle = None if report.cache is None else BlockOracle(report.cache)
            if report.cache is not None and not report.cache.enabled:
                ctx.reporter.warn(NO_CACHE)
        self.ready.set()

    def oracle(self, bucket: PreparedBucket) -> Int32 | None:
        """Tokens that it should compute of each prompt, once it is loaded."""
        if not self.ready.is_set():
            warm_up()
        self.ready.wait()
        if self._oracle is None:
            return None
        return self._oracle.computed(bucket.rows, bucket.fitting)


def _read_prompts(engine: _Engine, texts: BucketTexts, counts: Counts) -> None:
    ctx, tally = engine.ctx, Tally()
    buckets = feed(texts, engine.manifest, engine.maker, parts.done_keys(ctx.run))

    def open_bucket(bucket: PreparedBucket) -> None:
        oracle = engine.oracle(bucket)
        tally.open(bucket.number, bucket.unique, bucket.fed, bucket.floor, oracle)

    with (
        closing(Ahead(buckets, open_bucket, ctx.stop)) as ahead,
        closing(
            parts.PartWriter(ctx.run, rows=ctx.config.part_rows, seconds=ctx.config.part_seconds)
        ) as writer,
    ):
        try:
            engine.start()
            reads = read_all(
                ctx.judge, iter(ahead), ctx.context_tokens, engine.start, ctx.reporter.warn
            )
            with closing(reads):
                _take(engine, counts, reads, tally, writer)
        finally:
            engine.ready.set()  # nobody may wait for an engine that did not load


def _take(
    engine: _Engine,
    counts: Counts,
    reads: Iterable[ReadBatch],
    tally: Tally,
    writer: parts.PartWriter,
) -> None:
    ctx, total, warned = engine.ctx, Work(), False
    clock, spent = ctx.judge.clock, (0.0, 0.0)
    for batch in reads:
        gain = tally.count(batch)
        if gain.work:
            gain.spend(clock.total - spent[0], clock.busy - spent[1])
            spent = clock.total, clock.busy
        writer.add(batch, gain)
        counts.add(batch, gain)
        ctx.reporter.scoring(counts)
        if counts.errors == counts.new_prompts - counts.overlong >= HOPELESS_PROMPTS:
            raise _hopeless(batch)
        for work in gain.work.values():
            total.add(work)
        if not warned and engine.cache is not None and engine.cache.enabled:
            warned = _shares_nothing(total)
            if warned:
                ctx.reporter.warn(NO_HITS)


def _shares_nothing(work: Work) -> bool:
    """Whether an engine that says it shares prefixes has shared none, though it could have."""
    could = work.unique_tokens - work.floor_tokens
    return could >= NOTICED_TOKENS and work.computed_tokens == work.unique_tokens


def _hopeless(batch: ReadBatch) -> EngineFailed:
    reason = next(filter(None, batch.errors), "no reason given")
    return EngineFailed(
        f"all of the first {HOPELESS_PROMPTS} prompts failed; one of them: {reason}",
        effect="the run was stopped; its error reads are kept",
        remedy="look at `steelyard judge inspect` and at the input, then score into a new run",
    )
