"""Score and resume: the stages of a run, wired together from top to bottom.

score: shards are checked -> the judge is opened -> run.json -> plan -> engine -> reads -> verdicts.
resume: the same from wherever the run is.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import fields, replace
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
    UsageError,
    escape,
)
from steelyard.input import ShardSet
from steelyard.plan.spec import KeySpec
from steelyard.prompts.judging import resolve_spec
from steelyard.prompts.prepared import open_judges, run_fingerprint
from steelyard.scoring.planner import write_plan
from steelyard.scoring.session import OpenRun, read_prompts
from steelyard.scoring.shard_texts import SCORE_ANEW, open_texts
from steelyard.store.disk import DISK, Disk
from steelyard.store.durable import reading
from steelyard.store.images import ImageStore
from steelyard.store.one_run import require_own
from steelyard.store.plan.buckets import BucketTexts
from steelyard.store.plan.files import Manifest, read_manifest
from steelyard.store.reads import journal, reuse
from steelyard.store.reads.parts import FAILED_READS
from steelyard.store.reads.recovery import recover
from steelyard.store.run_input import (
    check_paths,
    open_input,
    reopen_input,
    reopen_shards,
    row_limits,
)
from steelyard.store.run_record import (
    ScoredRecord,
    common_fields,
    read_scored_record,
    write_record,
)
from steelyard.store.rundir import IMAGES, RECORD, RunDir
from steelyard.store.verdicts import handoff, queries

# What may differ between the command that began a run and one that goes on with it.
_FREE = {"engine", "replicas", "reuse", "part_rows", "part_seconds", "inputs"}
_OTHER_FILES = "a judge's files, its labels, or the templates, criteria or examples"


def score(
    config: RunConfig,
    run: Path,
    reporter: Reporter | None = None,
    stop: threading.Event | None = None,
    *,
    disk: Disk = DISK,
) -> int:
    """Score shards into a run directory; go on with the run that is there if it is the same.

    Args:
        config: what to do.
        run: the run directory; made if it does not exist.
        reporter: where progress goes.
        stop: set by the caller to end after the part in work.
        disk: how the run directory is read and written.

    Returns:
        Exit code: 0 done, 4 done with row errors, 130 stopped.

    Raises:
        SteelyardError: any of those in errors.py.
    """
    reporter, stop = reporter or Reporter(), stop or threading.Event()
    config = config.anchored()
    directory = RunDir(run, disk)
    with reading(run):
        directory.check()
        if directory.files.exists(RECORD):
            read_scored_record(directory)
    spec, examples = resolve_spec(config)
    shards = open_input(config, spec, directory)
    images = shards.roles.get("images")
    opened = open_judges(config, spec, examples, images=images)
    with opened as judges, directory.lock(), reading(run):
        record = ScoredRecord(
            fingerprint=run_fingerprint(judges, spec),
            config=config,
            spec=spec,
            judges=tuple(judge.record() for judge in judges),
            **common_fields(shards),
        )
        if directory.files.exists(RECORD) and read_manifest(directory) is not None:
            record = _require_same(directory, record)
            reporter.log(f"{directory.root}: going on with the run that is there")
        else:
            # A run without a plan holds nothing yet: its options may still change.
            directory.create()
            journal.create(directory)
            write_record(directory, record)
        return _carry_out(OpenRun(directory, config, record, judges, reporter, stop), shards)


def resume(
    run: Path,
    reporter: Reporter | None = None,
    stop: threading.Event | None = None,
    *,
    engine: Mapping[str, Scalar] | None = None,
    replicas: int | None = None,
    remote: bool = False,
    disk: Disk = DISK,
) -> int:
    """Go on with a run from where it is; returns and raises as `score`.

    Args:
        run: the run directory.
        reporter: where progress goes.
        stop: set by the caller to end after the part in work.
        engine: settings that replace those of the run.
        replicas: number of engines from now on.
        remote: whether inputs and judges that the run names may be fetched from the network.
        disk: how the run directory is read and written.
    """
    reporter, stop = reporter or Reporter(), stop or threading.Event()
    directory = RunDir(run, disk)
    with reading(run):
        record = read_scored_record(directory)
        manifest = read_manifest(directory)
        require_own(directory, record, manifest)
    config = replace(
        record.config,
        engine={**record.config.engine, **(engine or {})},
        replicas=record.config.replicas if replicas is None else replicas,
    ).validate()
    _announce(reporter, config, inputs=manifest is None or manifest.in_shards)
    if manifest is None:
        again = f"give the command that began the run again: steelyard score ... --run {run}"
        check_paths(record, otherwise=again, remote=remote)
    shards = None if manifest else reopen_shards(record)
    opened = open_judges(config, record.spec, recorded=record.judges, remote=remote)
    with opened as judges, directory.lock(), reading(run):
        if run_fingerprint(judges, record.spec) != record.fingerprint:
            raise _changed(directory, [_OTHER_FILES])
        if shards is not None and shards.fingerprint != record.input.fingerprint:
            raise _changed(directory, ["the input shards"])
        return _carry_out(OpenRun(directory, config, record, judges, reporter, stop), shards)


def _announce(reporter: Reporter, config: RunConfig, *, inputs: bool) -> None:
    """Report which files a run directory makes this command open."""
    opened = {"judge": config.judge, "input": config.inputs if inputs else (), "run": config.reuse}
    for kind, names in opened.items():
        for name in names:
            reporter.log(f"the run directory names the {kind} {escape(name, 200)}")


def _require_same(run: RunDir, new: ScoredRecord) -> ScoredRecord:
    """Return the record of the run that is there, if it is the same as the new one.

    Raises:
        UsageError: it is another run.
    """
    old, differences = read_scored_record(run), []
    require_own(run, old, read_manifest(run))
    for name in (option.name for option in fields(RunConfig)):
        there, here = getattr(old.config, name), getattr(new.config, name)
        scripted = name == "judge" and all(judge.startswith("scripted") for judge in here)
        if name not in _FREE and there != here and not scripted:
            differences.append(f"`{name}`: {there!r} there, {here!r} now")
    if old.input.fingerprint != new.input.fingerprint:
        differences.append("the input shards")
    if old.fingerprint != new.fingerprint and not differences:
        differences.append(_OTHER_FILES)
    if differences:
        raise _changed(run, differences)
    return old


def _changed(run: RunDir, differences: list[str]) -> UsageError:
    """Make the error for a run directory that holds another run."""
    return UsageError(
        f"the run directory holds another run; different: {'; '.join(differences)}",
        place=str(run.root),
        effect="nothing was changed",
        remedy="give a new --run folder; with `--reuse` of this one, equal prompts cost nothing",
    )


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
    for note in recover(ctx.run):
        ctx.reporter.warn(note)
    if read := ctx.count_reads():
        queries.recount_pairs(ctx.run)
    if read < manifest.prompts:
        _reuse(ctx, first=not read)
    if ctx.stop.is_set():
        return _stopped(ctx)
    if ctx.count_reads() < manifest.prompts:
        with closing(_open_texts(ctx, manifest, shards, key_spec)) as texts:
            read_prompts(ctx, manifest, texts)
    else:
        ctx.reporter.log(f"all {manifest.prompts:,} reads already exist; no engine is needed")
    if ctx.count_reads() < manifest.prompts:
        return _stopped(ctx)
    journal.mark_complete(ctx.run, journal.load(ctx.run), ctx.record.run)
    handoff.ensure_current(ctx.run)
    return _exit_code(ctx, manifest)


def _open_texts(
    ctx: OpenRun, manifest: Manifest, shards: ShardSet | None, key_spec: KeySpec
) -> BucketTexts:
    """Open the plan's texts; where they stayed in the shards, these must not have changed."""
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

    def on_progress(accepted: int, refused: int) -> None:
        ctx.reporter.planning(accepted, refused, ctx.config.rows_of(shards.rows))
        if ctx.stop.is_set():
            raise _Stopped

    keep_image = ImageStore(ctx.run.files.inside(IMAGES)).add
    manifest = write_plan(
        ctx.run,
        shards,
        ctx.config,
        key_spec,
        on_progress,
        keep_image=keep_image,
        run_id=ctx.record.run,
        on_note=ctx.reporter.log,
    )
    ctx.reporter.done()
    for note in shards.notes:
        ctx.reporter.warn(note)
    for role, slot in {"reference": "reference", "turns": "conversation"}.items():
        given = role in shards.roles or (role == "turns" and shards.messages)
        if given and slot not in key_spec.shown:
            ctx.reporter.warn(f"the protocol {ctx.record.spec.name} does not show the {role}")
    if ambiguous := queries.ambiguous_pair_ids(ctx.run):
        ctx.reporter.warn(
            f"{ambiguous:,} pair_ids belong to several different pairs: join on shard and row"
        )
    ctx.reporter.log(
        f"planned {manifest.pairs:,} pairs, {manifest.prompts:,} unique prompts"
        f" of {manifest.asked:,}, {sum(manifest.rejected.values()):,} rows refused"
    )
    return manifest


def _reuse(ctx: OpenRun, *, first: bool) -> None:
    """Take reads of earlier runs; again on resume, because the first time may be cut short."""
    for other in ctx.config.reuse:
        try:
            taken, notes = reuse.reuse_reads(ctx.run, RunDir(Path(other), ctx.run.files.disk))
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
    ctx.reporter.log(f"stopped; continue with: steelyard resume {ctx.run.root}")
    return EXIT_INTERRUPTED


def _exit_code(ctx: OpenRun, manifest: Manifest) -> int:
    parts = journal.load(ctx.run).parts
    failed = any(part.counts.get(name) for part in parts for name in FAILED_READS)
    return EXIT_ROW_ERRORS if failed or manifest.rejected else EXIT_DONE
