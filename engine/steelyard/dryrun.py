"""`plan`: what a run would cost, without an engine and without leaving anything behind."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from steelyard import ratebook
from steelyard.config import RunConfig
from steelyard.feed import PromptMaker
from steelyard.identity import judge_spec, make_passport, row_limits
from steelyard.judge import open_judge
from steelyard.planning import write_plan
from steelyard.progress import Reporter, duration
from steelyard.records import PromptBatch
from steelyard.shards import open_shards, stream
from steelyard.store import queries
from steelyard.store.buckets import BucketTexts
from steelyard.store.plan_files import Manifest, unique_of
from steelyard.store.rundir import RunDir
from steelyard.texts import open_texts

# So many prompts are tokenised; the rest is taken to be like them.
SAMPLE_PROMPTS = 20_000


def dry_run(config: RunConfig, reporter: Reporter) -> dict[str, Any]:
    """Plan shards in a temporary folder and count.

    Returns:
        rows, pairs, rejects by reason, prompts asked and unique, tokens of unique prompts, tokens
        left when every shared prefix is computed once, the share of prompts these were counted
        on (1: all), the longest prompt, overlong prompts, and seconds at the rate of this judge's
        last run on this machine (None: there was none).
    """
    shards = open_shards(config.inputs, config.map)
    judge = open_judge(judge_spec(config))
    passport = make_passport(config, judge, shards)
    with tempfile.TemporaryDirectory(prefix="steelyard-plan-") as folder:
        run = RunDir(Path(folder))
        run.create()
        manifest = write_plan(
            run,
            lambda: stream(shards, row_limits(config)),
            fingerprint=bytes.fromhex(passport["fingerprint"]),
            expected=shards.rows,
            bucket_bytes=config.bucket_bytes,
            schema=shards.schema,
            local=shards.local,
            on_progress=lambda accepted, refused: reporter.planning(accepted, refused, shards.rows),
        )
        reporter.done()
        ambiguous = queries.ambiguous_pair_ids(run)
        disk = sum(path.stat().st_size for path in run.plan.iterdir())
        maker = PromptMaker.build(
            judge.encoder,
            passport["templates"],
            judge.context_length - 1,
            truncate=config.overlong == "truncate",
        )
        opened = open_texts(
            run, manifest, shards, bytes.fromhex(passport["fingerprint"]), row_limits(config)
        )
        with closing(opened):
            sample = _sample(opened, manifest, maker)
    return {
        "rows": shards.rows,
        "pairs": manifest.pairs,
        "rejects": manifest.rejected,
        "ambiguous_pair_ids": ambiguous,
        "prompts": {"asked": 2 * manifest.pairs, "unique": manifest.prompts},
        **_tokens(sample, manifest, ratebook.look_up(passport["fingerprint"])),
        "judge": judge.card.name,
        "context_length": judge.context_length,
        "buckets": sum(map(bool, manifest.unique)),
        "texts": "in shards" if manifest.in_shards else "copied",
        "plan_bytes": disk,
    }


def _sample(opened: BucketTexts, manifest: Manifest, maker: PromptMaker) -> _Sample:
    """Tokenise prompts in feeding order, until there are enough."""
    sample = _Sample(maker.context)
    for bucket, prompts in enumerate(manifest.unique):
        if not prompts:
            continue
        texts = opened.texts(bucket)
        unique = unique_of(texts)
        for batch in maker.batches(bucket, texts, unique, np.arange(len(unique.keys))):
            sample.add(batch)
            if sample.prompts >= SAMPLE_PROMPTS:
                return sample
    return sample


def _tokens(sample: _Sample, manifest: Manifest, rate: float | None) -> dict[str, Any]:
    """What the sample says of all prompts."""
    share = sample.prompts / manifest.prompts if manifest.prompts else 1.0
    shared = round(sample.floor / share) if share else 0
    return {
        "tokens": round(sample.tokens / share) if share else 0,
        "tokens_after_sharing": shared,
        "counted_share": share,
        "longest_prompt": sample.longest,
        "overlong": sample.overlong,
        "computed_tokens_per_second": rate,
        "seconds": shared / rate if rate else None,
    }


class _Sample:
    """Counts over the prompts that were tokenised, in feeding order."""

    def __init__(self, context: int) -> None:
        self.prompts = self.tokens = self.floor = self.longest = self.overlong = 0
        self._context = context
        self._last = np.zeros(0, dtype=np.int32)

    def add(self, batch: PromptBatch) -> None:
        """Take prompts in."""
        for index in range(len(batch)):
            ids = batch.tokens[batch.offsets[index] : batch.offsets[index + 1]]
            self.prompts += 1
            self.longest = max(self.longest, len(ids))
            if len(ids) > self._context:
                self.overlong += 1
                continue
            both = min(len(ids), len(self._last))
            differs = np.flatnonzero(ids[:both] != self._last[:both])
            self.tokens += len(ids)
            self.floor += len(ids) - int(differs[0] if len(differs) else both)
            self._last = ids


def draw_plan(content: dict[str, Any]) -> str:
    """The same for people."""
    prompts, share = content["prompts"], content["counted_share"]
    refused = sum(content["rejects"].values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in content["rejects"].items())
    about = "" if share == 1 else f" (estimated from {share:.1%} of the prompts)"
    time = (
        f"{duration(content['seconds'])} at {content['computed_tokens_per_second']:,.0f} tokens/s,"
        " this judge's last rate on this machine"
        if content["seconds"] is not None
        else "unknown: this judge has not run on this machine yet"
    )
    lines = [
        (
            "rows",
            f"{content['rows']:,}: {content['pairs']:,} pairs, {refused:,} rejects"
            + (f" ({reasons})" if reasons else ""),
        ),
        ("prompts", f"{prompts['unique']:,} unique of {prompts['asked']:,}"),
        (
            "tokens",
            f"{content['tokens']:,}, after sharing {content['tokens_after_sharing']:,}{about}",
        ),
        (
            "longest",
            f"{content['longest_prompt']:,} tokens; the judge takes"
            f" {content['context_length'] - 1:,}; {content['overlong']:,} overlong{about}",
        ),
        (
            "disk",
            f"{content['plan_bytes'] / 1e6:,.1f} MB for the plan, {content['buckets']} buckets"
            + ("; texts stay in the shards" if content["texts"] == "in shards" else ""),
        ),
        ("time", time),
    ]
    return "\n".join(f"{name + ':':<9}{text}" for name, text in lines)
