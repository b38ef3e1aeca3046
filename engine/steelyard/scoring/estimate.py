"""`plan`: what a run would cost, without an engine and without leaving any file."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from steelyard.core import user_cache
from steelyard.core.batches import Workload
from steelyard.core.config import RunConfig
from steelyard.core.files import temporary_folder
from steelyard.core.progress import Reporter
from steelyard.core.work import CacheShape
from steelyard.plan.spec import KeySpec
from steelyard.prompts.judging import resolve_spec
from steelyard.prompts.maker import PromptMaker
from steelyard.prompts.prepared import open_judges, run_fingerprint
from steelyard.scoring.feed import feed
from steelyard.scoring.planner import write_plan
from steelyard.scoring.shard_texts import open_texts
from steelyard.scoring.tally import BlockOracle
from steelyard.store.plan.buckets import BucketTexts
from steelyard.store.plan.files import Manifest
from steelyard.store.run_input import open_input, row_limits
from steelyard.store.rundir import PLAN, RunDir
from steelyard.store.verdicts import queries

# Prompts that are tokenised; the rest is taken to be like them.
SAMPLE_PROMPTS = 20_000


def dry_run(config: RunConfig, reporter: Reporter) -> dict[str, Any]:
    """Plan shards in a temporary folder and count.

    Returns:
        rows that are taken and those of the input, pairs, rejects by reason, prompts asked and
        unique, tokens of unique prompts, their floor (every shared prefix computed once), tokens
        that the engine should compute (by the block-cache oracle, with the cache that it assumes),
        the share of prompts these were counted on (1: all), the longest prompt, overlong prompts,
        and seconds at the rate of this judge's last run on this machine (None: there was none).
    """
    spec, examples = resolve_spec(config)
    shards = open_input(config, spec)
    rows = config.rows_of(shards.rows)
    for note in shards.notes:
        reporter.warn(note)
    with (
        open_judges(config, spec, examples, images=shards.roles.get("images")) as judges,
        temporary_folder("steelyard-plan-") as folder,
    ):
        key_spec = KeySpec.of(spec, [prepared.forms for prepared in judges])
        run = RunDir(folder)
        run.create()
        manifest = write_plan(
            run,
            shards,
            config,
            key_spec,
            lambda accepted, refused: reporter.planning(accepted, refused, rows),
            on_note=reporter.log,
        )
        reporter.done()
        ambiguous = queries.ambiguous_pair_ids(run)
        disk = run.files.size(PLAN)
        sample, cache = _Sample(), None
        with closing(open_texts(run, manifest, shards, key_spec, row_limits(config))) as texts:
            for prepared in judges:
                maker = prepared.maker()
                longest = min(manifest.longest_prompt_bytes + maker.template_tokens, maker.context)
                workload = Workload(manifest.prompts, longest, prepared.answer.room)
                # Only the engine knows how many tokens an image becomes.
                cache = None if manifest.images else prepared.judge.likely_cache(workload)
                _sample(sample, texts, manifest, maker, cache)
        context = min(prepared.judge.context_length for prepared in judges)
    return {
        "rows": rows,
        "rows_of_input": shards.rows,
        "pairs": manifest.pairs,
        "rejects": manifest.rejected,
        "ambiguous_pair_ids": ambiguous,
        "prompts": {"asked": manifest.asked, "unique": manifest.prompts},
        **_tokens(sample, manifest, cache, user_cache.last_rate(run_fingerprint(judges, spec))),
        "judge": " + ".join(prepared.judge.card.name for prepared in judges),
        "context_length": context,
        "buckets": sum(map(bool, manifest.unique)),
        "texts": "in shards" if manifest.in_shards else "copied",
        "plan_bytes": disk,
    }


@dataclass(slots=True)
class _Sample:
    """Counts over the prompts that were tokenised, in feeding order; tokens of those that fit."""

    prompts: int = 0
    tokens: int = 0
    floor: int = 0
    computed: int = 0  # by the oracle; all tokens where the engine has no cache
    longest: int = 0
    overlong: int = 0


def _sample(
    sample: _Sample,
    texts: BucketTexts,
    manifest: Manifest,
    maker: PromptMaker,
    cache: CacheShape | None,
) -> None:
    """Tokenise a judge's buckets in feeding order, until there are enough prompts."""
    enough = sample.prompts + SAMPLE_PROMPTS
    oracle = None if cache is None else BlockOracle(cache)
    for bucket in feed(texts, manifest, maker, lambda _: set()):
        lengths = bucket.rows.lengths
        tokens = int(lengths[: bucket.fitting].sum())
        sample.prompts += len(lengths)
        sample.tokens += tokens
        sample.floor += int(bucket.floor.sum())
        sample.longest = max(sample.longest, int(lengths.max()))
        sample.overlong += len(lengths) - bucket.fitting
        if oracle is not None:
            tokens = int(oracle.computed(bucket.rows, bucket.fitting).sum())
        sample.computed += tokens
        if sample.prompts >= enough:
            break


def _tokens(
    sample: _Sample, manifest: Manifest, cache: CacheShape | None, rate: float | None
) -> dict[str, Any]:
    """Estimate the tokens of all prompts from the sample."""
    share = sample.prompts / manifest.prompts if manifest.prompts else 1.0

    def scaled(count: int) -> int:
        return round(count / share) if share else 0

    computed = scaled(sample.computed)
    return {
        "tokens": scaled(sample.tokens),
        "floor_tokens": scaled(sample.floor),
        "computed_tokens": computed,
        "cache": None if cache is None else asdict(cache),
        "counted_share": share,
        "longest_prompt": sample.longest,
        "overlong": sample.overlong,
        "computed_tokens_per_second": rate,
        "seconds": computed / rate if rate else None,
    }
