"""A calibrator: plain data that turns raw preferences into calibrated ones, versioned as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from steelyard.calibrators.abstention import TrustThreshold, confidence_of
from steelyard.calibrators.features import Features, logit_sql, number_sql
from steelyard.calibrators.linear import TERMS, Linear
from steelyard.calibrators.methods import Curve
from steelyard.calibrators.piecewise import Histogram, PiecewiseLinear
from steelyard.calibrators.ties import tie_probability, tie_sql
from steelyard.core.schemas import Bool, Float64
from steelyard.errors import CalibratorRefused, escape
from steelyard.statistics.drift import Reference

VERSION = 1
COLUMNS = ("calibrated_preference", "calibrated_tie", "trusted")
PREFERENCE = "raw_preference"  # the column of verdicts that is calibrated


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Calibrated values of n pairs; `tie` and `trusted` are None if the calibrator has none."""

    preference: Float64
    tie: Float64 | None
    trusted: Bool | None


@dataclass(frozen=True, slots=True)
class Calibrator:
    """How raw reads become probabilities, and what that was learned from.

    `bound` names what the reads were made with (judge fingerprint, protocol, templates,
    truncation); it is empty for reads of a table. `notes` describe the fit (pairs, votes,
    instructions, cross-validation) and have no effect.
    """

    method: str
    curve: Curve
    tie: float | None = None  # Davidson's parameter; None: gold had no ties
    selective: TrustThreshold | None = None
    reference: Reference | None = None
    bound: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, features: Features) -> Calibrated:
        """Calibrate n pairs."""
        preference = self.curve.preference(features)
        chosen = self.selective
        trusted: Bool | None = None
        if chosen is not None:
            limit = np.inf if chosen.threshold is None else chosen.threshold
            trusted = np.asarray(confidence_of(preference) >= limit)
        tie = None if self.tie is None else tie_probability(preference, self.tie)
        return Calibrated(preference, tie, trusted)

    def to_json(self) -> str:
        """Return the text of the calibrator's file."""
        content = {
            "steelyard_calibrator": VERSION,
            "method": self.method,
            "curve": _curve_json(self.curve),
            "tie": self.tie,
            "selective": asdict(self.selective) if self.selective else None,
            "reference": asdict(self.reference) if self.reference else None,
            "bound": dict(self.bound),
            "notes": dict(self.notes),
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, place: str) -> Calibrator:
        """Read what `to_json` wrote.

        Raises:
            CalibratorRefused: it is not a calibrator, has a newer version, or is damaged.
        """
        try:
            content = json.loads(text)
            version = content["steelyard_calibrator"]
            if version != VERSION:
                cause = f"its version is {escape(version)}, and only {VERSION} can be read"
                raise _refused(cause, place)
            selective, reference = content["selective"], content["reference"]
            return cls(
                method=str(content["method"]),
                curve=_curve(content["curve"]),
                tie=None if content["tie"] is None else _finite(content["tie"]),
                selective=TrustThreshold(**selective) if selective else None,
                reference=Reference(tuple(reference["quantiles"]), reference["pairs"])
                if reference
                else None,
                bound=dict(content["bound"]),
                notes=dict(content["notes"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"{type(error).__name__}: {escape(error)}"
            raise _refused(f"this is not a calibrator ({problem})", place) from None


def calibrated_sql(
    calibrator: Calibrator, value: str = PREFERENCE, *, is_logit: bool = False
) -> list[tuple[str, str]]:
    """Return the calibrated columns as (name, SQL) over the columns of `verdicts`.

    The only definition, for live views and hand-off files; equal to `Calibrator.apply` to 1e-12.
    Later expressions name the columns of earlier ones. NULL where a value that is read is NULL.

    Args:
        calibrator: what to apply.
        value: the SQL of what is calibrated.
        is_logit: whether that is a logit and not a preference.
    """
    preference, tie, trusted = COLUMNS
    # DuckDB's least() and greatest() pass over NULL, so it has to be kept out.
    known = " AND ".join(f"{name} IS NOT NULL" for name in (value, *calibrator.curve.columns))
    curve = calibrator.curve.sql(value if is_logit else logit_sql(value))
    chosen = calibrator.selective
    if chosen is None:
        trust = "NULL::BOOLEAN"
    elif chosen.threshold is None:
        trust = f"CASE WHEN {preference} IS NOT NULL THEN false END"
    else:
        trust = f"greatest({preference}, 1 - {preference}) >= {number_sql(chosen.threshold)}"
    ties = "NULL::DOUBLE" if calibrator.tie is None else tie_sql(preference, calibrator.tie)
    return [(preference, f"CASE WHEN {known} THEN {curve} END"), (tie, ties), (trusted, trust)]


def _curve_json(curve: Curve) -> dict[str, Any]:
    if isinstance(curve, Linear):
        return {
            "kind": "linear",
            "coefficients": curve.coefficients,
            "intervals": {name: list(bounds) for name, bounds in curve.intervals.items()},
            "constants": curve.constants,
        }
    if isinstance(curve, PiecewiseLinear):
        return {"kind": "knots", "x": list(curve.x), "y": list(curve.y)}
    return {"kind": "bins", "edges": list(curve.edges), "levels": list(curve.levels)}


def _curve(content: Mapping[str, Any]) -> Curve:
    kind = content["kind"]
    if kind == "linear":
        coefficients = {name: _finite(value) for name, value in content["coefficients"].items()}
        unknown = coefficients.keys() - TERMS.keys()
        if unknown:
            raise ValueError(f"unknown term {min(unknown)}")
        constants = {name: _finite(value) for name, value in content["constants"].items()}
        for name in coefficients:
            TERMS[name].sql("0", constants)  # a constant that it needs and lacks is a KeyError
        return Linear(
            coefficients,
            {name: (_finite(low), _finite(high)) for name, (low, high) in
             content["intervals"].items()},
            constants,
        )  # fmt: skip
    if kind == "knots":
        x, y = _row(content["x"]), _row(content["y"])
        if len(x) != len(y) or not x or not _rising(x):
            raise ValueError("knots do not rise")
        return PiecewiseLinear(x, y)
    if kind == "bins":
        edges, levels = _row(content["edges"]), _row(content["levels"])
        if len(levels) != len(edges) + 1 or not _rising(edges):
            raise ValueError("edges do not rise")
        return Histogram(edges, levels)
    raise ValueError(f"unknown curve {kind}")


def _row(values: list[Any]) -> tuple[float, ...]:
    return tuple(_finite(value) for value in values)


def _rising(values: tuple[float, ...]) -> bool:
    return bool(np.all(np.diff(values) > 0))


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return float(value)


def _refused(cause: str, place: str) -> CalibratorRefused:
    return CalibratorRefused(
        cause, place=place, remedy="name a file that `steelyard calibrate fit` wrote"
    )
