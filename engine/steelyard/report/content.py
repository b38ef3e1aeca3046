"""What a report says, as plain values: the page and `--json` show the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from steelyard.core.version import __version__
from steelyard.errors import SteelyardError
from steelyard.evaluation.evaluate import EvaluateOptions, evaluate_source
from steelyard.evaluation.judged_pairs import Source
from steelyard.ranking.bias_report import bias
from steelyard.ranking.rank import RankOptions, rank
from steelyard.report import aggregates
from steelyard.report.samples import KINDS, read_samples
from steelyard.scoring.status import run_status
from steelyard.store.run_record import RunRecord, ScoredRecord
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts.database import open_sql


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What a user decides about a report."""

    gold: Path | None = None  # a file; None: the gold of the run's own shards
    gold_columns: Mapping[str, str] | None = None  # role -> column of that file
    samples: int = 20  # pairs shown of each kind
    replicates: int = 1000  # of the bootstrap
    remote: bool = False  # whether texts may be fetched from addresses that the run names


def gather(root: Path, options: ReportOptions) -> dict[str, Any]:
    """Return all that a report on a run shows.

    Returns:
        JSON: `run`, `status`, `verdicts`, `samples`, and, where the run has what they need,
        `ranking`, `bias` and `evaluation`; `left_out` says why another one is missing.

    Raises:
        UsageError: it is not a run directory.
        IntegrityFault: a file of the run is damaged.
    """
    snapshot = RunSnapshot.take(root)
    status = run_status(root)
    with open_sql(snapshot) as connection:
        verdicts = aggregates.summarise(connection, snapshot)
        samples = read_samples(connection, snapshot, dict.fromkeys(KINDS, options.samples))
    left_out: dict[str, str] = {}

    def section(name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return make()
        except SteelyardError as error:
            left_out[name] = error.cause
            return None

    columns: dict[str, str] = {}
    texts = section("texts", lambda: samples.with_texts(snapshot.record, remote=options.remote))
    return {
        "steelyard": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": _describe(root, snapshot.record),
        "status": status,
        "verdicts": verdicts,
        "ranking": section("ranking", lambda: rank(root, columns, RankOptions())),
        "bias": section("bias", lambda: bias(root, columns)),
        "evaluation": section("evaluation", lambda: _evaluate(root, options)),
        "samples": samples.to_json() if texts is None else texts,
        "left_out": left_out,
    }


def _evaluate(root: Path, options: ReportOptions) -> dict[str, Any]:
    wanted = EvaluateOptions(replicates=options.replicates)
    return evaluate_source(Source(root), options.gold, wanted, options.gold_columns).to_json()


def _describe(root: Path, record: RunRecord) -> dict[str, Any]:
    content = {
        "name": root.resolve().name,
        "judge": record.judge,
        "protocol": record.protocol,
        "created": record.created,
        "fingerprint": record.fingerprint,
        "inputs": [],
        "config": {},
    }
    if isinstance(record, ScoredRecord):
        config = msgspec.to_builtins(record.config)
        content["inputs"] = list(config.get("inputs", ()))
        content["config"] = config
    return content
