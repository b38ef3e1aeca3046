"""A session: an engine is loaded, and reads are made with it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass

from steelyard.core import user_cache
from steelyard.core.background import Prefetch
from steelyard.core.batches import ReadBatch, Workload
from steelyard.core.config import RunConfig
from steelyard.core.progress import Counts, Reporter
from steelyard.core.schemas import Int32
from steelyard.core.work import CacheShape, EngineReport, Work
from steelyard.errors import EngineFailed, JudgeUnavailable, UsageError
from steelyard.judge.patience import Owner
from steelyard.prompts.maker import PreparedBucket
from steelyard.prompts.prepared import PreparedJudge
from steelyard.scoring.feed import feed, prompt_batches, read_all
from steelyard.scoring.tally import BlockOracle, Tally, warm_up
from steelyard.scoring.telemetry import Telemetry
from steelyard.store.plan.buckets import BucketTexts
from steelyard.store.plan.files import Manifest
from steelyard.store.reads import journal, parts
from steelyard.store.run_record import ScoredRecord
from steelyard.store.rundir import RunDir
from steelyard.store.verdicts import queries

# Warn when none of this many cacheable tokens came from the prefix cache: no coincidence.
NOTICED_TOKENS = 20_000
NO_CACHE = (
    "the engine has no prefix cache (switched off, or not available for this model): every prompt"
    " is computed in full"
)
NO_HITS = (
    "the engine's prefix cache has had no hits, though prompts share prefixes (some hybrid models"
    " cannot share): expect the time of `unique` tokens, not of `floor`"
)
# A judge whose first reads, this many, all fail will not do better by the morning.
HOPELESS_PROMPTS = 200


@dataclass(slots=True)
class OpenRun:
    """What a run works with while it holds the lock."""

    run: RunDir
    config: RunConfig
    record: ScoredRecord
    judges: list[PreparedJudge]
    reporter: Reporter
    stop: threading.Event

    def count_reads(self) -> int:
        """Count the reads that are committed."""
        return sum(part.rows for part in journal.load(self.run).parts)


def read_prompts(ctx: OpenRun, manifest: Manifest, texts: BucketTexts) -> None:
    """Read what is unread, judge after judge; load an engine only if there is something to read."""
    several = len(ctx.judges) > 1
    for number in range(len(ctx.judges)):
        if ctx.stop.is_set():
            return
        left = queries.unread_prompts(ctx.run, number, len(ctx.judges)) if several else None
        if left != 0:
            JudgeSession(ctx, manifest, number, left).run(texts)


class JudgeSession:
    """One judge's session: loads its engine, again after it died, and reads its prompts."""

    def __init__(self, ctx: OpenRun, manifest: Manifest, number: int, left: int | None) -> None:
        self.ctx, self.manifest = ctx, manifest
        prepared = ctx.judges[number]
        self.judge, self.answer = prepared.judge, prepared.answer
        self.judge.owner = Owner(warn=ctx.reporter.warn, stopping=ctx.stop.is_set)
        self.maker = prepared.maker(ctx.record.judges[number])
        least, context = self.maker.least_tokens, self.maker.context
        if least > context:
            raise UsageError(
                f"the template alone takes {least} tokens, and the judge holds {context}",
                effect="nothing was read",
                remedy="choose a judge, or an --engine max_model_len, with a longer context",
            )
        self.session = uuid.uuid4().hex
        self.loaded: float | None = None  # when, on the monotonic clock
        self.ready = threading.Event()  # loaded, or never will be
        self.cache: CacheShape | None = None
        self._oracle: BlockOracle | None = None
        committed = journal.load(ctx.run).parts
        read = sum(part.rows for part in committed)
        self.counts = Counts(
            pairs_planned=manifest.pairs,
            prompts_planned=manifest.prompts,
            pairs=sum(part.pairs for part in committed),
            prompts=read,
            rejects=sum(manifest.rejected.values()),
        )
        longest = manifest.longest_prompt_bytes + self.maker.template_tokens
        if manifest.images:  # only the engine knows how many tokens an image becomes
            longest = context
        self._workload = Workload(
            prompts=manifest.prompts - read if left is None else left,
            longest_prompt=min(longest, context),
            writes=self.answer.room,
            images=manifest.images,
            image_folder=str(ctx.run.images) if manifest.images else None,
        )

    def run(self, texts: BucketTexts) -> None:
        """Load the engine and read."""
        ctx, counts = self.ctx, self.counts
        with Telemetry(ctx.run, self.session, ctx.reporter.warn, counts=counts):
            began = time.monotonic()
            try:
                self._read(texts)
            finally:
                ctx.reporter.done()
                seconds = time.monotonic() - (self.loaded or began)
                self.judge.close()
                ctx.run.log_session(
                    "end",
                    session=self.session,
                    seconds=round(seconds, 3),
                    prompts=counts.new_prompts,
                    tokenizer=self.judge.encoder.engine,
                )
            if computed := counts.tokens - counts.cached_tokens:
                user_cache.remember_rate(ctx.record.fingerprint, computed / seconds)

    def start(self) -> None:
        """Load the engine."""
        ctx = self.ctx
        began = time.monotonic()
        with ctx.reporter.waiting(f"loading {self.judge.card.name}"):
            report = self._load()
        seconds = time.monotonic() - began
        ctx.reporter.log(f"loaded in {seconds:.1f} s")
        ctx.run.log_session(
            "start",
            session=self.session,
            judge=self.judge.card.name,
            load_seconds=round(seconds, 3),
            settings=report.settings,
            versions=report.versions,
            cache=None if report.cache is None else asdict(report.cache),
        )
        if self.loaded is None:
            self.loaded, self.cache = time.monotonic(), report.cache
            # What a judge writes and what images become goes into the cache, too, and cannot be
            # predicted.
            known = not self.answer.writes and not self.manifest.images
            self._oracle = BlockOracle(report.cache) if report.cache and known else None
            if report.cache is not None and not report.cache.enabled:
                ctx.reporter.warn(NO_CACHE)
        self.ready.set()

    def _load(self) -> EngineReport:
        try:
            return self.judge.start(self._workload, self.answer)
        except EngineFailed as error:
            if self.ctx.stop.is_set():
                raise
            self.ctx.reporter.warn(f"{error.cause}; loading it once more")
            return self.judge.start(self._workload, self.answer)

    def oracle(self, bucket: PreparedBucket) -> Int32 | None:
        """Predict the tokens that the engine computes of each prompt, once it is loaded."""
        if not self.ready.is_set():
            warm_up()
        self.ready.wait()
        if self._oracle is None:
            return None
        return self._oracle.computed(bucket.rows, bucket.fitting)

    def _read(self, texts: BucketTexts) -> None:
        ctx, tally = self.ctx, Tally()
        buckets = self._open_buckets(texts, tally)
        rows, seconds = ctx.config.part_rows, ctx.config.part_seconds
        with ExitStack() as stack:
            # One bucket is prepared while another is being read.
            ahead = stack.enter_context(closing(Prefetch(buckets, ahead=1, name="prompt-maker")))
            stack.callback(self.ready.set)  # let no thread wait for an engine that did not load
            part_writer = parts.PartWriter(ctx.run, rows=rows, seconds=seconds)
            writer = stack.enter_context(closing(part_writer))
            try:
                self.start()
                prompts = prompt_batches(ahead, ctx.stop)
                reads = read_all(
                    self.judge, prompts, self.maker.context, self.start, ctx.reporter.warn
                )
                with closing(reads):
                    self._take(reads, tally, writer)
            except (EngineFailed, JudgeUnavailable):
                if not ctx.stop.is_set():  # else what was in flight is read when it is resumed
                    raise

    def _open_buckets(self, texts: BucketTexts, tally: Tally) -> Generator[PreparedBucket]:
        """Prepare buckets, and announce each to the tally before its first prompt is read."""
        for bucket in feed(texts, self.manifest, self.maker, parts.done_keys(self.ctx.run)):
            tally.open(bucket, self.oracle(bucket))
            yield bucket

    def _take(self, reads: Iterable[ReadBatch], tally: Tally, writer: parts.PartWriter) -> None:
        ctx, counts, total, warned = self.ctx, self.counts, Work(), False
        clock, spent = self.judge.clock, (0.0, 0.0)
        for batch in reads:
            progress = tally.count(batch)
            if progress.work:
                progress.share_time(clock.total - spent[0], clock.busy - spent[1])
                spent = clock.total, clock.busy
            writer.add(batch, progress)
            counts.add(batch, progress)
            ctx.reporter.scoring(counts)
            if counts.errors == counts.new_prompts - counts.overlong >= HOPELESS_PROMPTS:
                raise _hopeless(batch)
            for work in progress.work.values():
                total.add(work)
            if not warned and self.cache is not None and self.cache.enabled:
                warned = _shares_nothing(total)
                if warned:
                    ctx.reporter.warn(NO_HITS)


def _shares_nothing(work: Work) -> bool:
    """Return whether an engine that should share prefixes has shared none, though it could."""
    could = work.unique_tokens - work.floor_tokens
    return could >= NOTICED_TOKENS and work.computed_tokens == work.unique_tokens


def _hopeless(batch: ReadBatch) -> EngineFailed:
    reason = next(filter(None, batch.errors), "no reason given")
    return EngineFailed(
        f"all of the first {HOPELESS_PROMPTS} prompts failed; one of them: {reason}",
        effect="the run was stopped; its error reads are kept",
        remedy="look at `steelyard judge inspect` and at the input, then score into a new run",
    )
