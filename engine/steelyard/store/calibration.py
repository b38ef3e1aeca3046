"""Calibrators on the disk: files of them, and the one that was applied to a run."""

from __future__ import annotations

from pathlib import Path

import xxhash

from steelyard.calibrators.calibrator import Calibrator
from steelyard.errors import CalibratorRefused, IntegrityFault, UsageError
from steelyard.store.durable import write_text, writing
from steelyard.store.rundir import CALIBRATION, SESSIONS, RunDir

NO_CALIBRATION = "none"  # in place of the digest of a calibrator
# Events in the log of sessions: what is missed if the calibrator's file is removed otherwise.
_APPLIED, _UNDONE = "calibrator applied", "calibrator undone"


def load_calibrator(path: Path) -> Calibrator:
    """Read a calibrator's file.

    Raises:
        UsageError: it is not there.
        CalibratorRefused: it is damaged, or not a calibrator.
    """
    return Calibrator.from_json(_read(path).decode(errors="replace"), str(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the calibrator cannot be read: {error.strerror or error}",
            place=str(path),
            remedy="name a file that `steelyard calibrate fit --out` wrote",
        ) from None


def save_calibrator(path: Path, calibrator: Calibrator) -> None:
    """Write a calibrator's file, whole or not at all."""
    write_text(path, calibrator.to_json())


def set_calibration(run: RunDir, calibrator: Calibrator) -> None:
    """Make a calibrator the one of a run's verdicts."""
    with writing(run.calibration):
        run.files.write(CALIBRATION, calibrator.to_json().encode())
    run.log_session(_APPLIED)


def note_undone(run: RunDir) -> None:
    """Note that a run's verdicts have no calibrator any more, by the user's wish."""
    run.log_session(_UNDONE)


def has_lost_calibrator(run: RunDir) -> bool:
    """Return whether a calibrator was applied to a run, not undone, and its file is gone.

    Runs to which versions before this one applied it do not say.
    """
    if run.files.exists(CALIBRATION):
        return False
    events = (entry.get("event") for entry in run.read_log(SESSIONS)[0])
    return [event for event in events if event in {_APPLIED, _UNDONE}][-1:] == [_APPLIED]


def shown_calibrator(path: Path) -> Calibrator:
    """Read the calibrator of a file, or the one that was applied to a run.

    Raises:
        UsageError: there is no calibrator.
        CalibratorRefused: it is damaged, or not a calibrator.
    """
    if not path.is_dir():
        return load_calibrator(path)
    calibrator, _ = read_calibration(RunDir(path))
    if calibrator is None:
        raise UsageError(
            "no calibrator was applied to this run",
            place=str(path),
            remedy="`steelyard calibrate fit` makes one from gold, `calibrate apply` applies it",
        )
    return calibrator


def read_calibration(run: RunDir) -> tuple[Calibrator | None, str]:
    """Read the calibrator that was applied to a run, and the digest of its file.

    Raises:
        IntegrityFault: its file is damaged.
    """
    try:
        content = run.files.read(CALIBRATION)
    except FileNotFoundError:
        return None, NO_CALIBRATION
    try:
        calibrator = Calibrator.from_json(content.decode(errors="replace"), str(run.calibration))
    except CalibratorRefused as refused:
        raise IntegrityFault(
            refused.cause,
            place=refused.place,
            effect="no verdict is shown with it; the raw reads are intact",
            remedy=f"delete that file, then `steelyard compact {run.root}`, and"
            " `steelyard calibrate apply` a good calibrator",
        ) from None
    return calibrator, xxhash.xxh3_128_hexdigest(content)


def lost_calibrator(run: RunDir) -> IntegrityFault:
    """Return the error for a run that has lost the calibrator that was applied to it."""
    return IntegrityFault(
        "the calibrator that was applied is gone",
        place=str(run.calibration),
        effect="no number is computed without it; the raw reads are intact",
        remedy=f"bring it back, or undo it with `steelyard compact {run.root}`",
    )
