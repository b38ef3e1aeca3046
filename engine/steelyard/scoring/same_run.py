"""The record of a new run, and whether a run directory holds the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

from steelyard.core.config import RunConfig, fingerprint
from steelyard.errors import UsageError
from steelyard.input import ShardSet
from steelyard.plan.spec import JudgingSpec
from steelyard.prompts.prepared import PreparedJudge
from steelyard.store.run_record import ScoredRecord, common_fields, read_scored_record
from steelyard.store.rundir import RunDir


def run_fingerprint(judges: Sequence[PreparedJudge], spec: JudgingSpec) -> str:
    """Hash all that can change a verdict's reads, to 32 hex digits."""
    prints = [(*each.forms.fingerprints, *each.forms.pictured) for each in judges]
    return fingerprint({"forms": prints, "questions": asdict(spec.axes)})


def make_record(
    config: RunConfig, judges: Sequence[PreparedJudge], spec: JudgingSpec, shards: ShardSet
) -> ScoredRecord:
    """Return the record of a new run."""
    return ScoredRecord(
        **common_fields(shards),
        fingerprint=run_fingerprint(judges, spec),
        config=config,
        spec=spec,
        judges=tuple(judge.record() for judge in judges),
    )


# What may differ between the command that began a run and one that goes on with it.
_FREE = {"engine", "replicas", "reuse", "part_rows", "part_seconds", "inputs"}
OTHER_FILES = "a judge's files, its labels, or the templates, criteria or examples"


def require_same(run: RunDir, new: ScoredRecord) -> ScoredRecord:
    """Return the record of the run that is there, if it is the same as the new one.

    Raises:
        UsageError: it is another run.
    """
    old, differences = read_scored_record(run), []
    for name in [option.name for option in fields(RunConfig)]:
        there, here = getattr(old.config, name), getattr(new.config, name)
        scripted = name == "judge" and all(judge.startswith("scripted") for judge in here)
        if name not in _FREE and there != here and not scripted:
            differences.append(f"`{name}`: {there!r} there, {here!r} now")
    if old.input.fingerprint != new.input.fingerprint:
        differences.append("the input shards")
    if old.fingerprint != new.fingerprint and not differences:
        differences.append(OTHER_FILES)
    if differences:
        raise changed(run, differences)
    return old


def changed(run: RunDir, differences: list[str]) -> UsageError:
    """Make the error for a run directory that holds another run."""
    return UsageError(
        f"the run directory holds another run; different: {'; '.join(differences)}",
        place=str(run.root),
        effect="nothing was changed",
        remedy="give a new --run folder; with `--reuse` of this one, equal prompts cost nothing",
    )
