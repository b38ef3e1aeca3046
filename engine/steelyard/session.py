"""A session: one loading of an engine, and the reads that are made with it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from steelyard import ratebook
from steelyard.config import RunConfig
from steelyard.errors import EngineFailed, UsageError
from steelyard.feed import Ahead, PromptMaker, feed
from steelyard.identity import label_set
from steelyard.judge.base import Judge
from steelyard.progress import Counts, Reporter
from steelyard.records import LabelSet, ReadBatch, Workload
from steelyard.scoring import read_all
from steelyard.store import parts
from steelyard.store.buckets import BucketTexts
from steelyard.store.journal import read_journal
from steelyard.store.plan_files import Manifest
from steelyard.store.rundir import RunDir
from steelyard.tally import Tally
from steelyard.telemetry import Telemetry

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
    session = uuid.uuid4().hex
    with Telemetry(ctx.run.root, session):
        start = _starter(ctx, manifest, maker, manifest.prompts - read, session)
        start()
        began = time.monotonic()
        try:
            _read_prompts(ctx, manifest, texts, maker, counts, restart=start)
        finally:
            ctx.reporter.done()
            ctx.judge.close()
            seconds = time.monotonic() - began
            ctx.run.log_session(
                "end", session=session, seconds=round(seconds, 3), prompts=counts.new_prompts
            )
        if computed := counts.tokens - counts.cached_tokens:
            ratebook.note(ctx.passport["fingerprint"], computed / seconds)


def _starter(
    ctx: Context, manifest: Manifest, maker: PromptMaker, prompts: int, session: str
) -> Callable[[], None]:
    longest = manifest.longest_prompt_bytes + maker.template_tokens
    workload = Workload(prompts, min(longest, ctx.context_tokens))

    def start() -> None:
        ctx.reporter.say(f"loading {ctx.judge.card.name} ...")
        began = time.monotonic()
        report = ctx.judge.start(workload, ctx.labels)
        ctx.reporter.say(f"loaded in {time.monotonic() - began:.1f} s")
        ctx.run.log_session(
            "start",
            session=session,
            load_seconds=round(time.monotonic() - began, 3),
            settings=report.settings,
            versions=report.versions,
        )

    return start


def _read_prompts(
    ctx: Context,
    manifest: Manifest,
    texts: BucketTexts,
    maker: PromptMaker,
    counts: Counts,
    *,
    restart: Callable[[], None],
) -> None:
    tally = Tally()
    done = parts.done_keys(ctx.run)
    ahead = Ahead(feed(texts, manifest, maker, done, tally), ctx.stop)
    with (
        closing(ahead),
        closing(
            parts.PartWriter(ctx.run, rows=ctx.config.part_rows, seconds=ctx.config.part_seconds)
        ) as writer,
    ):
        reads = read_all(ctx.judge, iter(ahead), ctx.context_tokens, restart, ctx.reporter.warn)
        with closing(reads):
            for batch in reads:
                gain = tally.count(batch)
                writer.add(batch, gain)
                counts.add(batch, gain)
                ctx.reporter.scoring(counts)
                if counts.errors == counts.new_prompts - counts.overlong >= HOPELESS_PROMPTS:
                    raise _hopeless(batch)


def _hopeless(batch: ReadBatch) -> EngineFailed:
    reason = next(filter(None, batch.errors), "no reason given")
    return EngineFailed(
        f"all of the first {HOPELESS_PROMPTS} prompts failed; one of them: {reason}",
        effect="the run was stopped; its error reads are kept",
        remedy="look at `steelyard judge inspect` and at the input, then score into a new run",
    )
