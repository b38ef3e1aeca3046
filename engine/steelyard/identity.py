"""What a run is: judge fingerprint, passport, and whether a run directory holds the same run."""

from __future__ import annotations

import platform
import sys
import uuid
from dataclasses import asdict
from importlib import metadata
from typing import Any

from steelyard import __version__
from steelyard.config import RunConfig, fingerprint
from steelyard.errors import UsageError
from steelyard.judge.base import Judge, JudgeSpec
from steelyard.prompt import SEGMENT_RULE, render_templates
from steelyard.protocols import get_protocol
from steelyard.records import LabelSet
from steelyard.shards import Limits, ShardSet
from steelyard.store.rundir import IMPORTED, RunDir, now


def judge_spec(config: RunConfig) -> JudgeSpec:
    """Which judge a config asks for."""
    if not config.judge.strip():
        raise UsageError("`judge` is empty", remedy="name demo, scripted, a hub name or a folder")
    return JudgeSpec(
        name=config.judge,
        model=config.judge,
        revision=config.revision,
        engine=config.engine,
        replicas=config.replicas,
    )


def row_limits(config: RunConfig) -> Limits:
    """What a row may hold."""
    return Limits(row_bytes=config.max_row_bytes, on_bad_row=config.on_bad_row)  # type: ignore[arg-type]


def label_set(judge: Judge, protocol: str) -> LabelSet:
    """The protocol's labels with their single-token forms."""
    names = get_protocol(protocol).labels
    return LabelSet(names, tuple(judge.encoder.label_variants(name) for name in names))


def judge_fingerprint(judge: Judge, config: RunConfig, templates: dict[str, str]) -> str:
    """Hash of all that can change a log-probability, 32 hex digits."""
    # Where the files came from changes nothing: the digests say what they are.
    card = {
        key: value
        for key, value in asdict(judge.card).items()
        if key not in {"name", "model", "revision"}
    }
    protocol = get_protocol(config.protocol)
    truncate = config.overlong == "truncate"
    return fingerprint(
        {
            "judge": card,
            "protocol": [protocol.name, protocol.version],
            "templates": templates,
            "labels": asdict(label_set(judge, config.protocol)),
            "context": judge.context_length if truncate else None,
            "segments": SEGMENT_RULE,
        }
    )


def make_passport(config: RunConfig, judge: Judge, shards: ShardSet) -> dict[str, Any]:
    """The content of run.json."""
    templates = render_templates(get_protocol(config.protocol), judge.encoder)
    return describe(
        shards,
        fingerprint=judge_fingerprint(judge, config, templates),
        config=config.to_json(),
        judge=asdict(judge.card),
        context_length=judge.context_length,
        labels=asdict(label_set(judge, config.protocol)),
        templates=templates,
    )


def describe(shards: ShardSet, **content: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
    """A passport: when, of which input and on which machine a run was begun, and its content."""
    return {
        "steelyard": __version__,
        "run": str(uuid.uuid4()),
        "created": now(),
        **content,
        "input": {
            "fingerprint": shards.fingerprint,
            "shards": [source.name for source in shards.sources],
            "rows": shards.rows,
        },
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "python": sys.version.split()[0],
            **{name: metadata.version(name) for name in ("pyarrow", "duckdb", "numpy")},
        },
    }


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
        differences.append("the judge's files, its labels or Steelyard's templates")
    if differences:
        raise changed(place, differences)
    return old


def _scripted(key: str, value: Any) -> bool:  # noqa: ANN401 - a config value
    return key == "judge" and str(value).startswith("scripted")


def changed(place: RunDir, differences: list[str]) -> UsageError:
    """The error for a run directory that holds another run."""
    return UsageError(
        f"the run directory holds another run; different: {'; '.join(differences)}",
        place=str(place.root),
        effect="nothing was changed",
        remedy="give a new --run folder; with `--reuse` of this one, equal prompts cost nothing",
    )
