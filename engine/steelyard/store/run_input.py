"""The files that a run judges: opened for a new run, and opened again as they were."""

from __future__ import annotations

from steelyard.core.config import RunConfig
from steelyard.errors import InputRefused, SteelyardError, UsageError, escape
from steelyard.input import REQUIRED, Limits, ShardSet, open_shards, pair_roles
from steelyard.input.discover import check_extent
from steelyard.input.filesystem import protocol
from steelyard.input.roles import response_roles
from steelyard.plan.group_sizes import count_pairs
from steelyard.plan.spec import JudgingSpec
from steelyard.store.run_record import ImportedRecord, ImportRecord, RunRecord

# Folders that are listed for the sake of a run directory, which may name any: `/` has millions.
_FOLDERS, _FOLDERS_PER_SHARD, _MOST_SHARDS = 10_000, 20, 5_000


def open_input(config: RunConfig, spec: JudgingSpec) -> ShardSet:
    """Open the shards of a config, with the roles that its protocol needs."""
    if config.pairs is not None:
        return _open_responses(config, spec)
    known = pair_roles(spec.required_roles, spec.special_roles)
    try:
        return open_shards(config.inputs, config.map, known)
    except InputRefused as refused:
        try:
            shards = _open_responses(config, spec)
        except SteelyardError:
            raise refused from None
        raise _one_sided(shards, spec) from None


def _open_responses(config: RunConfig, spec: JudgingSpec) -> ShardSet:
    """Open rows of one response each, or of lists of responses."""
    single, lists = (response_roles(spec.special_roles, lists=lists) for lists in (False, True))
    try:
        return open_shards(config.inputs, config.map, single)
    except SteelyardError as refused:
        try:
            return open_shards(config.inputs, config.map, lists)
        except SteelyardError:
            raise refused from None


def _one_sided(shards: ShardSet, spec: JudgingSpec) -> UsageError:
    what = "a list of responses" if "responses" in shards.roles else "one response"
    made = "; ".join(f"--pairs {rule}{count}" for rule, count in count_pairs(shards).items())
    alone = "" if spec.axes.shows == "pair" else "; --pairs none scores each response alone"
    return UsageError(
        f"each row has {what}, and it is not said which are compared",
        place=", ".join(source.name for source in shards.sources[:3]),
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
            shards = open_input(record.config, record.spec)
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
    paths = (
        record.imported.paths or () if isinstance(record, ImportedRecord) else record.config.inputs
    )
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
    return open_shards(paths, {name: columns[name] for name in REQUIRED})


def _what_changed(record: RunRecord, shards: ShardSet) -> str:
    planned = set(record.input.shards)
    here = {source.name for source in shards.sources}
    kinds = {"missing": planned - here, "new": here - planned}
    named = [f"{word}: {', '.join(sorted(names)[:3])}" for word, names in kinds.items() if names]
    return "; ".join(named) or "their sizes or footers have changed"
