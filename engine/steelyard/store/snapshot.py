"""The state of a run at one moment, which a command takes once and passes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steelyard.calibrators.calibrator import COLUMNS, PREFERENCE, Calibrator
from steelyard.store.calibration import has_lost_calibrator, read_calibration
from steelyard.store.disk import DISK, Disk
from steelyard.store.durable import reading
from steelyard.store.one_run import require_applied, require_one_run
from steelyard.store.plan.files import Manifest, read_manifest
from steelyard.store.reads import journal
from steelyard.store.run_record import RunRecord, read_record
from steelyard.store.rundir import RunDir
from steelyard.store.verdicts.views import DEFINITION


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """A run as it was at one moment: nothing that its writer commits later is in it."""

    run: RunDir
    record: RunRecord
    journal: journal.Journal
    manifest: Manifest | None  # None while there is no plan
    calibrator: Calibrator | None
    calibration: str  # digest of the calibrator's file, or "none"
    lost_calibrator: bool = False  # whether one was applied, and is gone

    @classmethod
    def take(cls, root: Path, disk: Disk = DISK, *, at_rest: bool = False) -> RunSnapshot:
        """Read the state of a run.

        Args:
            root: the run directory.
            disk: how it is read.
            at_rest: whether nobody writes to it, as its writer knows.

        Raises:
            UsageError: this is not a run directory, or a later version made it.
            IntegrityFault: run.json, the journal, the plan's manifest or the applied calibrator
                is damaged, or of another run.
            EnvironmentFault: a file cannot be read.
        """
        run = RunDir(root, disk)
        with reading(root):
            record = read_record(run)
            # Before the plan, which is there before any part.
            log = journal.load(run, at_rest=at_rest)
            manifest = read_manifest(run)
            require_one_run(run, record, log, manifest)
            calibrator, digest = read_calibration(run)
            require_applied(run, record, calibrator)
            lost = calibrator is None and has_lost_calibrator(run)
            return cls(run, record, log, manifest, calibrator, digest, lost)

    @property
    def preference(self) -> str:
        """The column of verdicts that winners and statistics are of: calibrated if there is one."""
        return PREFERENCE if self.calibrator is None else COLUMNS[0]

    @property
    def state(self) -> dict[str, str]:
        """What a hand-off file of this state is built from: committed parts and the calibrator.

        Also the definition of a verdict, which earlier versions did not name.
        """
        return {
            "journal": self.journal.state,
            "calibration": self.calibration,
            "definition": DEFINITION,
        }
