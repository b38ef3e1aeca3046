"""What a run is: judges, passport, and whether a run directory holds the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from steelyard.core.config import RunConfig, fingerprint
from steelyard.errors import UsageError
from steelyard.input import Limits, ShardSet
from steelyard.judge.base import Judge, JudgeSpec
from steelyard.prompts.judging import JudgeForms, JudgingSpec
from steelyard.store.run_record import new_record
from steelyard.store.rundir import IMPORTED, RunDir


def judge_specs(config: RunConfig) -> list[JudgeSpec]:
    """Which judges a config asks for."""
    return [
        JudgeSpec(
            name=name,
            model=name,
            revision=config.revision,
            engine=config.engine,
            replicas=config.replicas,
        )
        for name in config.judge
    ]


def row_limits(config: RunConfig) -> Limits:
    """What a row may hold."""
    return Limits(row_bytes=config.max_row_bytes, on_bad_row=config.on_bad_row)  # type: ignore[arg-type]


def run_fingerprint(inquiry: JudgingSpec, parts: Sequence[JudgeForms]) -> str:
    """Hash of all that can change a verdict's reads, 32 hex digits."""
    prints = [(*part.fingerprints, *part.pictured) for part in parts]
    return fingerprint({"forms": prints, "questions": inquiry.questions.to_json()})


def make_record(
    config: RunConfig,
    judges: Sequence[Judge],
    inquiry: JudgingSpec,
    parts: Sequence[JudgeForms],
    shards: ShardSet,
) -> dict[str, Any]:
    """The content of run.json."""
    return new_record(
        shards,
        fingerprint=run_fingerprint(inquiry, parts),
        config=config.to_json(),
        inquiry=inquiry.to_json(),
        judges=[
            {**asdict(judge.card), "context_length": judge.context_length, "part": part.to_json()}
            for judge, part in zip(judges, parts, strict=True)
        ],
    )


def require_scored(place: RunDir, passport: dict[str, Any]) -> None:
    """Refuse a run whose verdicts were imported.

    Raises:
        UsageError: they were.
    """
    if IMPORTED in passport:
        raise UsageError(
            "the verdicts of this run were imported: no judge reads anything for it",
            place=str(place.root),
            effect="nothing was changed",
            remedy=f"steelyard sql {place.root} QUERY looks at them; to score, name a new --run",
        )


# What may differ between the command that began a run and one that goes on with it.
_FREE = {"engine", "replicas", "reuse", "part_rows", "part_seconds", "inputs"}


def same_run(place: RunDir, new: dict[str, Any]) -> dict[str, Any]:
    """The passport of the run that is there, if it is the run that is asked for."""
    old = place.read_passport()
    differences = [
        f"`{key}`: {old['config'].get(key)!r} there, {value!r} now"
        for key, value in new["config"].items()
        if key not in _FREE and old["config"].get(key) != value and not _scripted(key, value)
    ]
    if old["input"]["fingerprint"] != new["input"]["fingerprint"]:
        differences.append("the input shards")
    if old["fingerprint"] != new["fingerprint"] and not differences:
        differences.append(OTHER_FILES)
    if differences:
        raise changed(place, differences)
    return old


OTHER_FILES = "a judge's files, its labels, or the templates, criteria or examples"


def _scripted(key: str, value: Any) -> bool:  # noqa: ANN401 - a config value
    return key == "judge" and all(str(name).startswith("scripted") for name in value)


def changed(place: RunDir, differences: list[str]) -> UsageError:
    """The error for a run directory that holds another run."""
    return UsageError(
        f"the run directory holds another run; different: {'; '.join(differences)}",
        place=str(place.root),
        effect="nothing was changed",
        remedy="give a new --run folder; with `--reuse` of this one, equal prompts cost nothing",
    )
