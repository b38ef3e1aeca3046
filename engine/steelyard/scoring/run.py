"""The one place where the stages are wired together, top to bottom.

score: shards are checked -> the judge is opened -> run.json -> plan -> engine -> reads -> verdicts.
resume: the same from wherever the run stands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from steelyard.core.config import RunConfig, Scalar
from steelyard.core.progress import Reporter
from steelyard.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_ROW_ERRORS,
    InputRefused,
    IntegrityFault,
    SteelyardError,
)
from steelyard.input import ShardSet, stream
from steelyard.plan.spec import KeySpec
from steelyard.prompts.judging import resolve_spec
from steelyard.prompts.prepared import open_judges
from steelyard.scoring.planner import write_plan
from steelyard.scoring.same_run import (
    OTHER_FILES,
    changed,
    make_record,
    require_same,
    run_fingerprint,
)
from steelyard.scoring.session import OpenRun, read_prompts
from steelyard.scoring.shard_texts import SCORE_ANEW, open_texts
from steelyard.store.images import ImageStore
from steelyard.store.plan.buckets import BucketTexts
from steelyard.store.plan.files import Manifest, read_manifest
from steelyard.store.reads import journal, reuse
from steelyard.store.reads.journal import Part, read_journal
from steelyard.store.reads.parts import FAILED_READS
from steelyard.store.reads.recovery import recover
from steelyard.store.run_input import open_input, reopen_input, row_limits
from steelyard.store.run_record import read_scored_record, write_record
from steelyard.store.rundir import RunDir
from steelyard.store.verdicts import handoff, queries


def score(
    config: RunConfig,
    run: Path,
    reporter: Reporter | None = None,
    stop: threading.Event | None = None,
) -> int:
    """Score shards into a run directory; goes on with the run that is there if it is the same.

    Args:
        config: what to do.
        run: the run directory; made if it does not exist.
        reporter: where progress goes.
        stop: set by the caller to end after the part in work.

    Returns:
        Exit code: 0 done, 4 done with row errors, 130 stopped.

    Raises:
        SteelyardError: see errors.py.
    """
    reporter, stop = reporter or Reporter(), stop or threading.Event()
    config = config.anchored()
    place = RunDir(run)
    place.check_place()
    if place.record_file.exists():
        read_scored_record(place)
    spec, examples = resolve_spec(config)
    shards = open_input(config, spec)
    images = shards.roles.get("images")
    with open_judges(config, spec, examples, images=images) as judges, place.lock():
        record = make_record(config, judges, spec, shards)
        if place.record_file.exists() and read_manifest(place) is not None:
            record = require_same(place, record)
            reporter.log(f"{place.root}: going on with the run that is there")
        else:
            # A run without a plan holds nothing yet: what was refused there may be put right.
            place.create()
            journal.create(place.root)
            write_record(place, record)
        return _carry_out(OpenRun(place, config, record, judges, reporter, stop), shards)


def resume(
    run: Path,
    reporter: Reporter | None = None,
    stop: threading.Event | None = None,
    *,
    engine: Mapping[str, Scalar] | None = None,
    replicas: int | None = None,
) -> int:
    """Go on with a run from where it stands; see `score`.

    Args:
        run: the run directory.
        reporter: where progress goes.
        stop: set by the caller to end after the part in work.
        engine: settings over those that the run was begun with.
        replicas: engines side by side from now on.
    """
    reporter, stop = reporter or Reporter(), stop or threading.Event()
    place = RunDir(run)
    record = read_scored_record(place)
    config = replace(
        record.config,
        engine={**record.config.engine, **(engine or {})},
        replicas=record.config.replicas if replicas is None else replicas,
    ).validate()
    planned = read_manifest(place) is not None
    shards = None if planned else open_input(config, record.spec)
    with open_judges(config, record.spec, recorded=record.judges) as judges, place.lock():
        if run_fingerprint(judges, record.spec) != record.fingerprint:
            raise changed(place, [OTHER_FILES])
        if shards is not None and shards.fingerprint != record.input.fingerprint:
            raise changed(place, ["the input shards"])
        return _carry_out(OpenRun(place, config, record, judges, reporter, stop), shards)


def _carry_out(ctx: OpenRun, shards: ShardSet | None) -> int:
    """Bring a run from whatever state it is in to its end."""
    key_spec = KeySpec.of(ctx.record.spec, [judge.part for judge in ctx.record.judges])
    try:
        manifest = read_manifest(ctx.run) or _plan(ctx, shards, key_spec)
    except _Stopped:
        return _stopped(ctx)
    if not manifest.pairs:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in manifest.rejected.items())
        raise InputRefused(
            f"every row was refused ({reasons})",
            place=str(ctx.run.root),
            effect="there is nothing to judge",
            remedy=f'steelyard sql {ctx.run.root} "FROM rejects" says why, row by row',
        )
    intact = _recover(ctx)
    if sum(part.rows for part in intact) < manifest.prompts:
        _take_over(ctx, first=not intact)
    if ctx.stop.is_set():
        return _stopped(ctx)
    if sum(part.rows for part in read_journal(ctx.run.root)) < manifest.prompts:
        with closing(_open_texts(ctx, manifest, shards, key_spec)) as texts:
            read_prompts(ctx, manifest, texts)
    else:
        ctx.reporter.log(f"all {manifest.prompts:,} reads are there: no engine is needed")
    if sum(part.rows for part in read_journal(ctx.run.root)) < manifest.prompts:
        return _stopped(ctx)
    handoff.ensure_current(ctx.run)
    return _exit_code(ctx, manifest)


def _open_texts(
    ctx: OpenRun, manifest: Manifest, shards: ShardSet | None, key_spec: KeySpec
) -> BucketTexts:
    """Open the plan's texts; where they stayed in the shards, these have to be as they were."""
    if shards is None and manifest.in_shards:
        shards, _ = reopen_input(
            ctx.record,
            effect="nothing was read: the texts are in the shards alone; earlier reads are intact",
            otherwise=SCORE_ANEW,
        )
    return open_texts(ctx.run, manifest, shards, key_spec, row_limits(ctx.config))


class _Stopped(Exception):
    """The user ended the planning."""


def _plan(ctx: OpenRun, shards: ShardSet | None, key_spec: KeySpec) -> Manifest:
    if shards is None:
        raise IntegrityFault(
            "the plan is gone", place=str(ctx.run.plan), remedy="score into a new run directory"
        )
    keep = ImageStore(ctx.run.images).add
    manifest = write_plan(
        ctx.run,
        lambda: stream(shards, row_limits(ctx.config), keep_image=keep),
        key_spec=key_spec,
        expected=shards.rows,
        bucket_bytes=ctx.config.bucket_bytes,
        schema=shards.schema,
        local=shards.local and "images" not in shards.roles,
        on_progress=_planning_progress(ctx, shards.rows),
    )
    ctx.reporter.done()
    refused = sum(manifest.rejected.values())
    for role, slot in {"reference": "reference", "turns": "conversation"}.items():
        if role in shards.roles and slot not in key_spec.shown:
            ctx.reporter.warn(f"the protocol {ctx.record.spec.name} does not show the {role}")
    if ambiguous := queries.ambiguous_pair_ids(ctx.run):
        ctx.reporter.warn(
            f"{ambiguous:,} pair_ids stand for several different pairs: join on shard and row"
        )
    ctx.reporter.log(
        f"planned {manifest.pairs:,} pairs, {manifest.prompts:,} unique prompts"
        f" of {manifest.asked:,}, {refused:,} rows refused"
    )
    return manifest


def _planning_progress(ctx: OpenRun, total: int) -> Callable[[int, int], None]:
    def on_progress(accepted: int, refused: int) -> None:
        ctx.reporter.planning(accepted, refused, total)
        if ctx.stop.is_set():
            raise _Stopped

    return on_progress


def _recover(ctx: OpenRun) -> list[Part]:
    found = recover(ctx.run)
    for name in found.set_aside:
        ctx.reporter.warn(f"{name} is damaged: set aside, its prompts are read again")
    for name in found.missing:
        ctx.reporter.warn(f"{name} is missing: its prompts are read again")
    for name in found.adopted:
        ctx.reporter.warn(f"{name} had no line in the journal: checked and taken in")
    if found.intact:
        queries.recount_pairs(ctx.run)
    return found.intact


def _take_over(ctx: OpenRun, *, first: bool) -> None:
    """Take reads of earlier runs; again on resume, for the first time may have been cut short."""
    for other in ctx.config.reuse:
        try:
            taken, notes = reuse.reuse_reads(ctx.run, RunDir(Path(other)))
        except SteelyardError as error:
            if first:
                raise
            ctx.reporter.warn(f"nothing more is reused of {other}: {error.cause}")
            continue
        ctx.reporter.log(f"reused {taken:,} reads of {other}")
        for note in notes:
            ctx.reporter.warn(note)
    if ctx.config.reuse:
        queries.recount_pairs(ctx.run)


def _stopped(ctx: OpenRun) -> int:
    ctx.reporter.log(f"stopped; go on with: steelyard resume {ctx.run.root}")
    return EXIT_INTERRUPTED


def _exit_code(ctx: OpenRun, manifest: Manifest) -> int:
    failed = sum(
        count
        for part in read_journal(ctx.run.root)
        for name, count in part.counts.items()
        if name in FAILED_READS
    )
    return EXIT_ROW_ERRORS if failed or manifest.rejected else EXIT_DONE
