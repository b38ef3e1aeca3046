"""A calibrator: plain data that turns raw preferences into calibrated ones, versioned as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import msgspec

from steelyard.calibrators.abstention import TrustThreshold
from steelyard.calibrators.features import logit_sql, number_sql
from steelyard.calibrators.gold_trace import GoldTrace
from steelyard.calibrators.looks import Looks
from steelyard.calibrators.methods import Curve
from steelyard.calibrators.ties import MOST_TIES, tie_sql
from steelyard.core.sealed import seal, unseal
from steelyard.errors import CalibratorRefused, escape
from steelyard.statistics.drift import Reference

VERSION = 1
COLUMNS = ("calibrated_preference", "calibrated_tie", "trusted")
PREFERENCE = "raw_preference"  # the column of verdicts that is calibrated


class _Notes(TypedDict, total=False):
    """Types of what is shown of the notes."""

    pairs: int
    votes: float
    instructions: int
    forced: str
    members: list[str]


@dataclass(frozen=True, slots=True)
class Calibrator:
    """How raw reads become probabilities, and what that was learned from.

    `bound` names what the reads were made with (judge fingerprint, protocol, templates,
    truncation); it is empty for reads of a table. `notes` describe the fit (pairs, votes,
    instructions, cross-validation) and have no effect.
    """

    method: str
    curve: Curve
    tie: Annotated[float, msgspec.Meta(gt=0, le=MOST_TIES)] | None = (
        None  # Davidson's parameter; None: gold had no ties
    )
    selective: TrustThreshold | None = None
    reference: Reference | None = None
    bound: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    gold: GoldTrace | None = None  # None: an earlier version fitted it, or no pair has an id
    looks: Looks | None = None  # None: no threshold of trust was ever asked for
    run: str | None = (
        None  # id of the run that it was applied to; None: none, or an earlier version did
    )

    def to_builtins(self) -> dict[str, Any]:
        """Return the content of the calibrator's file."""
        return {"steelyard_calibrator": VERSION, **msgspec.to_builtins(self)}

    def to_json(self) -> str:
        """Return the text of the calibrator's file, with its check."""
        return seal(self.to_builtins(), indent=2).decode()

    @classmethod
    def from_json(cls, text: str, place: str) -> Calibrator:
        """Read what `to_json` wrote.

        Raises:
            CalibratorRefused: it is not a calibrator, has a newer version, or is damaged.
        """
        try:
            content, sealed = unseal(text.encode("utf-8", "surrogatepass"))
            version = content["steelyard_calibrator"]
            if version != VERSION:
                cause = f"its version is {escape(version)}, and only {VERSION} can be read"
                raise _refused(cause, place)
            calibrator = msgspec.convert(content, cls)
            if not sealed and (strange := content.keys() - calibrator.to_builtins().keys()):
                cause = f"it has no check, and the unknown key {escape(min(strange))}"
                raise _refused(cause, place)
            calibrated_sql(calibrator)  # a constant that it needs and lacks is a KeyError
            msgspec.convert(calibrator.notes, _Notes)
        except KeyError as error:
            raise _refused(f"this is not a calibrator: it has no {escape(error)}", place) from None
        except (ValueError, TypeError) as error:
            raise _refused(f"this is not a calibrator: {escape(error)}", place) from None
        return calibrator


def calibrated_sql(
    calibrator: Calibrator, value: str = PREFERENCE, *, is_logit: bool = False
) -> list[tuple[str, str]]:
    """Return the calibrated columns as (name, SQL) over the columns of `verdicts`.

    The only definition, for live views and hand-off files; equal to NumPy to 1e-12. Later
    expressions name the columns of earlier ones. NULL where a value that is read is NULL.
    `value` is the SQL of what is calibrated: a preference, or a logit.
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


def _refused(cause: str, place: str) -> CalibratorRefused:
    return CalibratorRefused(
        cause, place=place, remedy="name a file that `steelyard calibrate fit` wrote"
    )
