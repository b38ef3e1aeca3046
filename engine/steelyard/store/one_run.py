"""Whether the files of a run directory are of one run: most of them carry its id."""

from __future__ import annotations

from steelyard.calibrators.calibrator import Calibrator
from steelyard.errors import IntegrityFault
from steelyard.store.plan.files import MANIFEST, Manifest
from steelyard.store.reads.journal import Journal, require_whole
from steelyard.store.run_record import RunRecord, ScoredRecord
from steelyard.store.rundir import CALIBRATION, COMPLETE, PLAN, RECORD, RunDir


def require_own(run: RunDir, record: RunRecord, manifest: Manifest | None) -> None:
    """Check that a plan is of the run that run.json describes.

    Raises:
        IntegrityFault: it is of another one.
    """
    if manifest is not None and manifest.run not in {"", record.run}:
        raise _mixed(
            run,
            f"{PLAN}/{MANIFEST}",
            f"bring back the file that was replaced, {RECORD} or {PLAN}/{MANIFEST}",
        )


def require_one_run(
    run: RunDir, record: RunRecord, log: Journal, manifest: Manifest | None
) -> None:
    """Check that a reader can rely on what a run directory says of its run.

    Raises:
        IntegrityFault: the journal is not whole, or a file is of another run.
    """
    if not isinstance(record, ScoredRecord):
        return
    require_own(run, record, manifest)
    require_whole(run, log)
    if log.run not in {"", record.run}:
        remedy = f"bring back {RECORD}; if it is the right one, `steelyard resume {run.root}`"
        raise _mixed(run, COMPLETE, f"{remedy} writes {COMPLETE} again")


def require_applied(run: RunDir, record: RunRecord, calibrator: Calibrator | None) -> None:
    """Check that a calibrator was applied to this run.

    What earlier versions applied does not name its run, but the reads that it was fitted to.

    Raises:
        IntegrityFault: it was applied to another run.
    """
    if calibrator is None:
        return
    fitted = calibrator.bound.get("fingerprint", record.fingerprint)
    allowed = fitted == record.fingerprint or "forced" in calibrator.notes
    if calibrator.run == record.run or (calibrator.run is None and allowed):
        return
    raise _mixed(
        run,
        CALIBRATION,
        f"delete that file, then `steelyard compact {run.root}`, and `steelyard calibrate apply`"
        " this run's calibrator",
    )


def _mixed(run: RunDir, file: str, remedy: str) -> IntegrityFault:
    return IntegrityFault(
        f"{file} and {RECORD} are of different runs",
        place=str(run.root / file),
        effect="no number is computed from them; nothing was changed",
        remedy=remedy,
    )
