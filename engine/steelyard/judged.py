"""Judged pairs of a run, or of any table, and what their reads depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from steelyard.calibrate.features import Features, logit
from steelyard.records import Float64, Int64
from steelyard.store.rundir import RunDir
from steelyard.store.tables import describe, read_comparisons

WANTED = (
    "pair_id", "instruction", "tie", "length_a", "length_b", "preference_ab", "preference_ba",
    "label_mass_ab", "label_mass_ba",
)  # fmt: skip
CALIBRATED = ("calibrated_preference", "calibrated_tie")


@dataclass(frozen=True, slots=True)
class Source:
    """Where judged pairs are, and which columns play which role (`store.tables`)."""

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_run(self) -> bool:
        """Whether it is a run directory."""
        return (self.path / "run.json").exists()


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of a source; all columns have n rows."""

    table: pa.Table
    features: Features
    groups: Int64
    notes: tuple[str, ...]  # for the user: what was left out, what was assumed

    def __len__(self) -> int:
        return len(self.features)


def read_pairs(source: Source, want: tuple[str, ...] = ()) -> Pairs:
    """Judged pairs of a source.

    Raises:
        UsageError: the source or a column is not there.
        InputRefused: values that cannot be what they stand for.
    """
    need = ["preference", *(["score"] if "score" in source.columns else [])]
    found = read_comparisons(source.path, source.columns, need, (*WANTED, *CALIBRATED, *want))
    table = found.table
    notes = [f"left out: {describe(found.left_out)}"] if found.left_out else []
    preference = column_of(table, "preference")
    orders = [whole_of(table, f"preference_{order}") for order in ("ab", "ba")]
    lengths = [whole_of(table, f"length_{side}") for side in ("a", "b")]
    features = Features(
        score=column_of(table, "score") if "score" in table.column_names else logit(preference),
        score_ab=None if orders[0] is None else logit(orders[0]),
        score_ba=None if orders[1] is None else logit(orders[1]),
        longer=None if lengths[0] is None or lengths[1] is None else lengths[0] - lengths[1],
    )
    return Pairs(table, features, _groups(table), tuple(notes))


def binding(source: Source) -> dict[str, str]:
    """What reads depend on: a calibrator is fitted under it and refused under another.

    Raises:
        UsageError: a run directory without run.json.
    """
    if not source.is_run:
        return {"table": "logit" if "score" in source.columns else "preference"}
    passport: dict[str, Any] = RunDir(source.path).read_passport()
    judges, protocols = passport["judges"], passport["inquiry"]["protocols"]
    forms = json.dumps([judge.get("part") for judge in judges], sort_keys=True).encode()
    return {
        "fingerprint": str(passport["fingerprint"]),
        "judge": " + ".join(judge["name"] for judge in judges),
        "protocol": " + ".join(protocol["name"] for protocol in protocols),
        "templates": hashlib.sha256(forms).hexdigest()[:32],
        "truncation": str(passport["config"].get("overlong", "none")),
    }


def _groups(table: pa.Table) -> Int64:
    if "instruction" not in table.column_names:
        return np.arange(len(table), dtype=np.int64)
    values = table["instruction"].to_numpy()
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def column_of(table: pa.Table, name: str) -> Float64:
    """A column as numbers, NaN for null."""
    values: Float64 = table[name].cast(pa.float64()).to_numpy()
    return values


def numbers_of(table: pa.Table, name: str) -> Float64 | None:
    """A column as numbers, NaN for null; None where it is not there or has no value."""
    if name not in table.column_names or table[name].null_count == len(table):
        return None
    return column_of(table, name)


def whole_of(table: pa.Table, name: str) -> Float64 | None:
    """A column as numbers; None where it is not there or lacks a value."""
    values = numbers_of(table, name)
    return None if values is None or not np.isfinite(values).all() else values
