"""What methods of `Run` return: the values that commands print with --json, as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec
import pyarrow as pa
from typing_extensions import override

from steelyard.api import frames
from steelyard.calibrators.calibrator import Calibrator
from steelyard.evaluation.crossfit import FitGold
from steelyard.evaluation.metrics.annotators import Annotator
from steelyard.evaluation.metrics.bootstrap import Bin
from steelyard.evaluation.metrics.bootstrap import Estimate as Metric
from steelyard.statistics.drift import Drift


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a result."""


class Result(Record, frozen=True, kw_only=True):
    """A result with a main table, which notebooks show."""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Make a result of the JSON of a report."""
        return msgspec.convert(content, cls)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        return content

    def records(self) -> list[dict[str, Any]]:
        """Return the rows of the main table, with the same keys."""
        raise NotImplementedError

    def to_arrow(self) -> pa.Table:
        """Return the main table."""
        return pa.Table.from_pylist(self.records())

    def to_pandas(self) -> Any:  # noqa: ANN401 - a DataFrame of a library that may be missing
        """Return the main table as a pandas DataFrame."""
        return frames.to_pandas(self.to_arrow())

    def to_polars(self) -> Any:  # noqa: ANN401 - a DataFrame of a library that may be missing
        """Return the main table as a polars DataFrame."""
        return frames.to_polars(self.to_arrow())

    def caption(self) -> str:
        """Return what the main table is of."""
        return type(self).__name__

    def remarks(self) -> tuple[str, ...]:
        """Return what has to be read with the table."""
        return ()

    def _repr_html_(self) -> str:
        return frames.html_table(self.records(), self.caption(), self.remarks())


class Estimate(Record, frozen=True, kw_only=True):
    """A mean with its 95% interval, clustered by instruction."""

    value: float
    standard_error: float | None  # this and the bounds: None for fewer than five clusters
    lower: float | None
    upper: float | None
    rows: int
    clusters: int  # instructions


class Metrics(Record, frozen=True, kw_only=True):
    """What n pairs say about a judge."""

    pairs: int
    instructions: int
    metrics: tuple[Metric, ...]  # those that are defined
    reliability: tuple[Bin, ...]

    def __getitem__(self, name: str) -> Metric:
        """Return a metric by name, such as `agreement`."""
        return {metric.metric: metric for metric in self.metrics}[name]


class Assessment(Record, frozen=True, kw_only=True):
    """Pairs with one value of a column."""

    value: str | None
    raw: Metrics
    calibrated: Metrics | None
    change: tuple[Metric, ...]  # calibrated less raw


class Evaluation(Result, frozen=True, kw_only=True):
    """A judge measured against gold (`steelyard evaluate`)."""

    raw: Metrics
    calibrated: Metrics | None
    change: tuple[Metric, ...]  # calibrated less raw
    parts: tuple[Assessment, ...]
    annotators: tuple[Annotator, ...]
    annotator_kappa: float | None
    fit_gold: FitGold | None  # how many of the pairs the calibrator was fitted to
    by: str | None
    tie_band: float
    bootstraps: int
    seed: int
    notes: tuple[str, ...]

    @override
    def records(self) -> list[dict[str, Any]]:
        """Return one row per metric, raw and calibrated."""
        kinds = {"raw": self.raw, "calibrated": self.calibrated}
        return [
            {
                "verdicts": kind,
                "metric": metric.metric,
                "value": metric.value,
                "lower": metric.low,
                "upper": metric.high,
            }
            for kind, metrics in kinds.items()
            if metrics
            for metric in metrics.metrics
        ]

    @override
    def caption(self) -> str:
        """Return how many pairs have gold."""
        return f"{self.raw.pairs:,} pairs with gold, {self.raw.instructions:,} instructions"

    @override
    def remarks(self) -> tuple[str, ...]:
        """Return notes."""
        return self.notes


class Calibration(Result, frozen=True, kw_only=True):
    """A calibrator that was fitted to gold, and applied to the run (`steelyard calibrate`)."""

    out: str  # the calibrator's file
    pairs: int  # verdicts that have calibrated columns
    calibrator: Calibrator
    coverage_risk: tuple[dict[str, float], ...]  # coverage, threshold and risk, in [0, 1]
    drift: Drift | None  # of all pairs from those with gold
    notes: tuple[str, ...]

    @override
    def records(self) -> list[dict[str, Any]]:
        """Return one row per threshold."""
        return list(self.coverage_risk)

    @override
    def caption(self) -> str:
        """Return the method, and where the calibrator is."""
        return f"{self.calibrator.method}, applied to {self.pairs:,} pairs; {self.out}"

    @override
    def remarks(self) -> tuple[str, ...]:
        """Return notes."""
        return self.notes


class Pair(Record, frozen=True, kw_only=True):
    """A pair with its verdict; columns are described in docs/sql.md."""

    pair_id: str
    shard: str
    row: int
    model_a: str | None
    model_b: str | None
    status: str  # ok, or why there is no verdict
    error: str | None
    preference: float | None  # P(a is better), in [0, 1]; calibrated if the run is
    raw_preference: float | None
    calibrated_preference: float | None
    preference_ab: float | None  # with a shown first
    preference_ba: float | None  # with b shown first
    score_a: float | None
    score_b: float | None
    winner: str | None
    consistent: bool | None
    trusted: bool | None
    flags: tuple[str, ...] | None
    gold_side: str | None
    gold: dict[str, float] | None
    texts: dict[str, Any] = msgspec.field(
        default_factory=dict
    )  # by role; empty if they cannot be read
    written: tuple[dict[str, Any], ...] = ()  # what the judge wrote


class Pairs(Result, frozen=True, kw_only=True):
    """Pairs with their texts (`steelyard show`)."""

    kinds: dict[str, tuple[Pair, ...]]
    notes: tuple[str, ...] = ()

    @override
    def records(self) -> list[dict[str, Any]]:
        """Return one row per pair."""
        return [
            {
                "kind": kind,
                "pair_id": pair.pair_id,
                "preference": pair.preference,
                "a first": pair.preference_ab,
                "b first": pair.preference_ba,
                **{
                    role: pair.texts.get(role)
                    for role in ("instruction", "response_a", "response_b")
                },
            }
            for kind, pairs in self.kinds.items()
            for pair in pairs
        ]

    @override
    def remarks(self) -> tuple[str, ...]:
        """Return notes."""
        return self.notes
