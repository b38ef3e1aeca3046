"""An evaluation as a log of Inspect (inspect.aisi.org.uk), which its viewer and tools read.

The format is Inspect's EvalLog, version 2, as one JSON file; Inspect itself is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.comparisons.pair_texts import Place, texts_of_pairs
from steelyard.core.config import fingerprint
from steelyard.core.version import __version__
from steelyard.errors import SteelyardError, UsageError, escape
from steelyard.evaluation.crossfit import crossfit
from steelyard.evaluation.evaluate import Report, comparable_pairs
from steelyard.evaluation.gold_join import GoldPairs, judged_and_gold
from steelyard.evaluation.judged_pairs import ORDERS, Source
from steelyard.evaluation.metrics.bootstrap import Evaluation
from steelyard.evaluation.metrics.pairs import gold_classes, predicted_classes
from steelyard.store.disk import now
from steelyard.store.durable import check_out, write_text

VERSION = 2
MOST_SAMPLES = 10_000  # a log is one JSON text, which readers hold in memory
NAMES = ("A", "B", "tie")  # of the classes, in their order
_PLACE = ("shard", "row")


def check_log(out: Path, read: Iterable[Path | None]) -> None:
    """Check that a log can be written, before anything is computed.

    Raises:
        UsageError: Inspect would not take it for a log, or it would replace something else.
    """
    if out.suffix != ".json":
        raise UsageError(
            f"Inspect reads logs whose names end with .json, not {escape(out.name)}",
            place=str(out),
            remedy="name it so: --inspect-log evaluation.json",
        )
    check_out(out, b"{", read)


def write_log(
    out: Path,
    source: Source,
    gold: Path | None,
    report: Report,
    gold_columns: Mapping[str, str] | None = None,
    *,
    remote: bool = False,
) -> tuple[str, ...]:
    """Write what `inspect_log` returns, whole or not at all, and return its notes."""
    content, notes = inspect_log(source, gold, report, gold_columns, remote=remote)
    write_text(out, json.dumps(content, ensure_ascii=False, allow_nan=False))
    return notes


def inspect_log(
    source: Source,
    gold: Path | None,
    report: Report,
    gold_columns: Mapping[str, str] | None = None,
    *,
    remote: bool = False,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return an evaluation as the JSON of an EvalLog, and notes on what it lacks.

    The metrics are those of the report, over all pairs; samples are the first MOST_SAMPLES pairs
    with gold, with their texts where the run has them.

    Args:
        source: what was evaluated.
        gold: the file of gold; None: the source's own.
        report: what `evaluate_source` returned of both.
        gold_columns: role -> column of the file.
        remote: whether texts may be fetched from addresses that a run names.

    Raises:
        SteelyardError: as `evaluate_source`.
    """
    want = () if source.run is None else (*_PLACE, "pair_id")
    pairs, joined = judged_and_gold(source, gold, gold_columns, want=want)
    matched, _ = crossfit(source, comparable_pairs(joined)[0])
    count = len(matched.rows)
    if count > MOST_SAMPLES:
        matched = matched.take(np.arange(count) < MOST_SAMPLES)
    chosen = pairs.table.take(matched.rows)
    ids = [str(n) for n in matched.rows.tolist()]
    if "pair_id" in chosen.column_names:
        ids = chosen["pair_id"].to_pylist()
    places: list[Place] = []
    if source.run is not None:
        places = list(zip(*(chosen[name].to_pylist() for name in _PLACE), strict=True))
    texts, notes = _texts(source, places, remote=remote)
    if count > MOST_SAMPLES:
        notes.append(f"the log has the first {MOST_SAMPLES:,} of {count:,} pairs as samples")
    samples = _samples(matched, ids, report.options.tie_band)
    for sample, place in zip(samples, places, strict=False):
        _add_texts(sample, texts.get(place))
    return _log(source, gold, report, samples, count), tuple(notes)


def _texts(
    source: Source, places: Sequence[Place], *, remote: bool
) -> tuple[dict[Place, dict[str, Any]], list[str]]:
    if source.run is None:
        return {}, []
    try:
        return texts_of_pairs(source.run, places, remote=remote), []
    except SteelyardError as error:
        return {}, [f"the log has no texts: {error.cause}"]


def _samples(matched: GoldPairs, ids: Sequence[str], band: float) -> list[dict[str, Any]]:
    kinds = {"raw": matched.raw, "calibrated": matched.calibrated}
    judged = {kind: pairs for kind, pairs in kinds.items() if pairs is not None}
    said = {
        kind: predicted_classes(pairs.preference, pairs.tie, band).tolist()
        for kind, pairs in judged.items()
    }
    numbers = {f"{kind}_preference": pairs.preference.tolist() for kind, pairs in judged.items()}
    for name, values in zip(
        ORDERS, (matched.raw.preference_ab, matched.raw.preference_ba), strict=True
    ):
        if values is not None:
            numbers[name] = values.tolist()
    votes, classes = matched.votes.tolist(), gold_classes(matched.votes).tolist()
    final = list(said.values())[-1]  # calibrated if the run is
    return [
        {
            "id": ids[i],
            "epoch": 1,
            "input": f"pair {ids[i]}",
            "target": NAMES[classes[i]],
            "output": _output(NAMES[final[i]]),
            "scores": {
                kind: {"value": "CI"[named[i] != classes[i]], "answer": NAMES[named[i]]}
                for kind, named in said.items()
            },
            "metadata": {
                **{name: _finite(values[i]) for name, values in numbers.items()},
                "votes": dict(zip(NAMES, votes[i], strict=True)),
            },
        }
        for i in range(len(ids))
    ]


def _output(answer: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer}
    return {"choices": [{"message": message, "stop_reason": "stop"}]}


def _add_texts(sample: dict[str, Any], texts: Mapping[str, Any] | None) -> None:
    """Put the texts of a pair into its sample; without any it stays as it is."""
    if texts is None:
        return
    before = [
        {"role": role, "content": content}
        for role, content in (
            ("system", texts["system"]),
            *((turn["role"], turn["content"]) for turn in texts["turns"] or ()),
        )
        if content
    ]
    sample["input"] = [*before, {"role": "user", "content": texts["instruction"]}]
    sample["choices"] = [text for text in (texts["response_a"], texts["response_b"]) if text]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _log(
    source: Source, gold: Path | None, report: Report, samples: list[dict[str, Any]], count: int
) -> dict[str, Any]:
    written = now()
    record = None if source.run is None else source.run.record
    judge = str(source.path) if record is None else record.judge
    options = report.to_json()
    settings = {name: options[name] for name in ("by", "tie_band", "bootstraps", "seed")}
    kinds = {"raw": report.whole.raw, "calibrated": report.whole.calibrated}
    about = {"source": str(source.path), "judge": judge, "gold": gold and str(gold)}
    if record is not None:
        about |= {"protocol": record.protocol, "fingerprint": record.fingerprint}
    return {
        "version": VERSION,
        "status": "success",
        "eval": {
            "eval_id": fingerprint({**about, **settings}),
            "run_id": fingerprint({**about, "written": written}),
            "created": written,
            "task": "steelyard_evaluate",
            "task_id": "steelyard_evaluate",
            "task_args": settings,
            "dataset": {
                "name": str(gold or source.path),
                "samples": count,
                "sample_ids": [sample["id"] for sample in samples],
                "shuffled": False,
            },
            "model": judge,
            "config": {},
            "packages": {"steelyard": __version__},
            "metadata": about,
        },
        "plan": {"name": "plan", "steps": [], "config": {}},
        "results": {
            "total_samples": count,
            "completed_samples": count,
            "logged_samples": len(samples),
            "scores": [_score(kind, values) for kind, values in kinds.items() if values],
            "metadata": {"notes": list(report.notes)},
        },
        "stats": {"started_at": written, "completed_at": written},
        "samples": samples,
    }


def _score(kind: str, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "name": kind,
        "scorer": "steelyard",
        "scored_samples": evaluation.pairs,
        "metrics": {
            estimate.metric: {
                "name": estimate.metric,
                "value": estimate.value,
                "metadata": {"lower": estimate.low, "upper": estimate.high, "level": 0.95},
            }
            for estimate in evaluation.estimates.values()
        },
    }
