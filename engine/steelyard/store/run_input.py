"""The files that a run judges: opened for a new run, and opened again as they were."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from steelyard.core.config import RunConfig
from steelyard.errors import InputRefused, SteelyardError, UsageError, escape
from steelyard.input import REQUIRED, Limits, ShardSet, open_shards, pair_roles
from steelyard.input.convert import Staging
from steelyard.input.discover import check_extent
from steelyard.input.filesystem import protocol
from steelyard.input.memory import write_rows
from steelyard.input.problems import printable
from steelyard.input.response_lists import response_roles
from steelyard.input.roles import Roles
from steelyard.input.shardset import open_sources
from steelyard.plan.group_sizes import count_pairs
from steelyard.plan.pairing import Pairing
from steelyard.plan.spec import JudgingSpec
from steelyard.store.durable import writing
from steelyard.store.run_record import ImportedRecord, ImportRecord, RunRecord, ScoredRecord
from steelyard.store.rundir import RunDir

# Folders that are listed for the sake of a run directory, which may name any: `/` has millions.
_FOLDERS, _FOLDERS_PER_SHARD, _MOST_SHARDS = 10_000, 20, 5_000


def open_input(config: RunConfig, spec: JudgingSpec, run: RunDir | None = None) -> ShardSet:
    """Open the shards of a config, with the roles that its protocol needs.

    Files that are not Parquet are converted into the run directory; without one, for as long as
    this process lasts.

    Raises:
        UsageError: rows have one response each, and `config.pairs` does not say what to do.
        InputRefused: something else is wrong with the shards.
    """
    staging = None if run is None else Staging(run.inputs)

    def opened(known: Roles) -> ShardSet:
        return open_shards(config.inputs, config.map, known, staging)

    try:
        return _first_fitting(config, spec, opened)
    except SteelyardError as refused:
        problem = refused
        if config.pairs is None and refused.cause.startswith("no column for response"):
            with suppress(SteelyardError):
                shards = _first_fitting(replace(config, pairs="all"), spec, opened)
                problem = _one_sided(shards, spec) or refused
        _forget_inputs(run)
        raise problem from None


def _forget_inputs(run: RunDir | None) -> None:
    """Remove what was converted for a run that was not begun, because its input is refused."""
    if run is not None and not run.is_begun:
        shutil.rmtree(run.inputs, ignore_errors=True)
        with suppress(OSError):  # it holds something else
            run.root.rmdir()


def keep_rows(data: object, run: RunDir) -> Path:
    """Write rows of a Python program into the run directory, to be its input; return the file.

    Raises:
        UsageError: it is not a run directory.
        InputRefused: they are not rows that Parquet can hold.
    """
    run.check()
    with writing(run.inputs):
        return write_rows(data, run.inputs)


def reopen_shards(record: ScoredRecord) -> ShardSet:
    """Open the shards of a run again: what was converted is in the run, and no source is needed."""
    if not record.input.files:
        return open_input(record.config, record.spec)
    sources = [file.source() for file in record.input.files]
    return _first_fitting(
        record.config,
        record.spec,
        lambda known: open_sources(sources, record.config.map, known),
    )


def _first_fitting(
    config: RunConfig, spec: JudgingSpec, opened: Callable[[Roles], ShardSet]
) -> ShardSet:
    """Open rows of pairs; or, to make pairs, of one response each, else of lists of responses."""
    of_pairs = pair_roles(spec.required_roles, spec.special_roles)
    if config.pairs is None:
        return opened(of_pairs)
    if Pairing.parse(config.pairs).kind == "none" and spec.axes.shows == "pair":
        raise UsageError(
            f"--pairs none leaves each response alone, and {spec.name} compares two",
            effect="nothing was scored",
            remedy="choose another rule, or a protocol that scores single responses: pointwise",
        )
    try:
        roles = opened(of_pairs).roles
    except (InputRefused, UsageError):
        roles = {}
    if "response_b" in roles:
        raise UsageError(
            f"--pairs {config.pairs} makes pairs of single responses, and the rows are pairs:"
            f" {escape(roles['response_a'])} and {escape(roles['response_b'])}",
            effect="nothing was scored",
            remedy="leave --pairs out, or ignore a column: --map response_b=",
        )
    try:
        return opened(response_roles(spec.special_roles))
    except (InputRefused, UsageError) as refused:
        with suppress(InputRefused, UsageError):
            return opened(response_roles(spec.special_roles, lists=True))
        raise refused from None


def _one_sided(shards: ShardSet, spec: JudgingSpec) -> UsageError | None:
    """Return the error for rows of one response each; None where no rule makes a pair of them."""
    what = "a list of responses" if "responses" in shards.roles else "one response"
    counts = count_pairs(shards)
    none = all(words and not set("123456789") & set(words) for words in counts.values())
    if none and spec.axes.shows == "pair":
        return None
    made = "; ".join(f"--pairs {rule}{count}" for rule, count in counts.items())
    alone = "" if spec.axes.shows == "pair" else "; --pairs none scores each response alone"
    return UsageError(
        f"each row has {what}, and it is not said which are compared",
        place=", ".join(printable(source.name) for source in shards.sources[:3]),
        effect="nothing was scored",
        remedy=f"choose one of: {made}{alone} (docs/data.md)",
    )


def row_limits(config: RunConfig) -> Limits:
    """Return what a row may hold."""
    return Limits(row_bytes=config.max_row_bytes, on_bad_row=config.on_bad_row)  # type: ignore[arg-type]


def reopen_input(
    record: RunRecord, *, otherwise: str, effect: str | None = None, remote: bool = False
) -> tuple[ShardSet, Limits]:
    """Open the files of a run again, with its roles and limits, if they are what they were.

    Args:
        record: of the run.
        otherwise: what else a user can do than bring the files back.
        effect: on the run, for errors.
        remote: whether files may be fetched from addresses that the run names.

    Raises:
        UsageError: the tables of an imported run hold no texts, or files may not be fetched.
        InputRefused: files are missing, or their names, sizes or footers have changed.
    """
    paths = check_paths(record, otherwise=otherwise, remote=remote)
    try:
        if isinstance(record, ImportedRecord):
            shards, limits = _open_tables(record.imported, otherwise), Limits()
        else:
            shards = reopen_shards(record)
            limits = Limits(row_bytes=record.config.max_row_bytes)
    except InputRefused as refused:
        cause, place = refused.cause, refused.place
    else:
        if shards.fingerprint == record.input.fingerprint:
            return shards, limits
        cause, place = _what_changed(record, shards), ", ".join(paths)
    raise InputRefused(
        f"the shards have changed since the run was planned: {cause}",
        place=place,
        effect=effect,
        remedy=f"put the shards back as they were, or {otherwise}",
    )


def check_paths(record: RunRecord, *, otherwise: str, remote: bool) -> tuple[str, ...]:
    """Return the inputs that a run directory names, if they may be looked up on its word.

    Whoever made the directory wrote them, and would see a request from this machine.

    Raises:
        UsageError: one of them is not on this machine, and `remote` is not given.
        InputRefused: one of them is so wide that to list it takes very long.
    """
    if isinstance(record, ImportedRecord):
        paths = record.imported.paths or ()
    elif record.input.files:
        paths = tuple(file.path for file in record.input.files)
    else:
        paths = record.config.inputs
    addresses = [path for path in paths if protocol(path)]
    if addresses and not remote:
        raise UsageError(
            "the run directory names inputs on the network, which are not fetched on its word",
            place=escape(", ".join(addresses), 300),
            effect="nothing was fetched",
            remedy=f"if you trust this run and these addresses, add --remote; or {otherwise}",
        )
    shards = min(len(record.input.shards), _MOST_SHARDS)
    check_extent(paths, _FOLDERS + _FOLDERS_PER_SHARD * shards)
    return paths


def _open_tables(imported: ImportRecord, otherwise: str) -> ShardSet:
    columns, paths = imported.columns, imported.paths
    if paths is None or not set(REQUIRED) <= columns.keys():
        raise UsageError(
            "the tables of this imported run hold no texts",
            place=", ".join(imported.tables),
            remedy=f"import tables that have {', '.join(REQUIRED)}, or {otherwise}",
        )
    texts = {name: columns[name] for name in REQUIRED}
    return open_shards(paths, texts, staging=Staging().mapped(columns))


def _what_changed(record: RunRecord, shards: ShardSet) -> str:
    planned = set(record.input.shards)
    here = {source.name for source in shards.sources}
    kinds = {"missing": planned - here, "new": here - planned}
    named = [f"{word}: {', '.join(sorted(names)[:3])}" for word, names in kinds.items() if names]
    return "; ".join(named) or "their sizes or footers have changed"
