"""Applying a calibrator to a run or to a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from steelyard.calibrators.calibrator import Calibrator
from steelyard.errors import CalibratorRefused, UsageError
from steelyard.evaluation.judged_pairs import (
    Source,
    binding,
    describe_differences,
    describe_missing,
    optional_column,
    read_pairs,
)
from steelyard.statistics.drift import PSI_LIMIT, Drift, measure_drift
from steelyard.store.calibration import load_calibrator, set_calibration
from steelyard.store.rundir import DATABASE, RunDir
from steelyard.store.verdicts import handoff
from steelyard.store.verdicts.calibrated_tables import calibrate_file


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """Where the calibrated columns of how many pairs are."""

    path: Path
    pairs: int
    drift: Drift | None
    notes: tuple[str, ...]

    def to_json(self) -> Mapping[str, Any]:
        """Return plain values."""
        drift = asdict(self.drift) if self.drift else None
        return {"place": str(self.path), "pairs": self.pairs, "drift": drift}


def apply_calibrator(source: Source, path: Path, out: Path | None, *, force: bool) -> ApplyResult:
    """Give verdicts their calibrated columns; no judge is loaded and raw values stay.

    A run keeps the calibrator as calibration.json, and its hand-off file is written again. A table
    is written to `out` with the columns added.

    Raises:
        CalibratorRefused: it was fitted under something else, or needs what the reads lack.
        RunLocked: the run is being written.
    """
    if source.run is None and source.path.suffix == ".duckdb":
        raise UsageError(
            "a database by itself is not calibrated",
            place=str(source.path),
            remedy="name its run directory, or write its table `verdicts` to Parquet",
        )
    calibrator = load_calibrator(path)
    pairs = read_pairs(source)
    if differences := describe_differences(calibrator.bound, binding(source)):
        if not force:
            raise CalibratorRefused(
                f"the calibrator was fitted to other reads ({differences})",
                place=str(path),
                remedy="fit a calibrator to gold for these reads, or apply this one with --force",
            )
        calibrator = replace(calibrator, notes={**calibrator.notes, "forced": differences})
    notes = [*pairs.notes, *_missing(calibrator, pairs.table, str(source.path))]
    drift, count = None, len(pairs)
    if calibrator.reference is not None:
        preference = pairs.table["preference"].to_numpy()
        drift = measure_drift(calibrator.reference, preference, pairs.groups)
        notes += [_drift_note(drift)] if drift.drifted else []
    del pairs  # the memory is DuckDB's from here on
    if source.run is None:
        if out is None:
            raise UsageError(
                "a calibrated table needs a file to be written to", remedy="name it with --out"
            )
        columns = {role: column for role, column in source.columns.items() if role != "score"}
        count = calibrate_file(source.path, columns, calibrator, out)
        return ApplyResult(out, count, drift, tuple(notes))
    run = RunDir(source.path)
    with run.lock():
        set_calibration(run, replace(calibrator, run=source.run.record.run))
        if run.files.exists(DATABASE):
            handoff.recalibrate(run)
    return ApplyResult(source.path, count, drift, tuple(notes))


def _missing(calibrator: Calibrator, table: pa.Table, place: str) -> list[str]:
    """Return a note on columns that the calibrator reads and some rows lack.

    Raises:
        CalibratorRefused: all rows lack one.
    """
    columns = calibrator.curve.columns
    lacking = [name for name in columns if optional_column(table, name) is None]
    if lacking:
        raise CalibratorRefused(
            f"the calibrator ({calibrator.method}) needs {' and '.join(sorted(lacking))},"
            " which these reads lack",
            place=place,
            remedy="fit a calibrator with a method that needs less, such as platt; for a table,"
            " --map ROLE=COLUMN names columns",
        )
    missing = describe_missing(table, columns)
    return [f"pairs lack {missing}: they get no calibrated_preference"] if missing else []


def _drift_note(drift: Drift) -> str:
    return (
        f"the pairs have drifted from those that the calibrator was fitted to: population stability"
        f" index {drift.psi:.2f} (above {PSI_LIMIT} is a large shift), Kolmogorov-Smirnov distance"
        f" {drift.ks:.2f} (p = {drift.p_value:.2g}); have people label some of these pairs and fit"
        " again: how far the calibrator is off on them cannot be seen without labels"
    )
