"""Progress of a run, from its manifest, journal and telemetry: no DuckDB, no engine, no lock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steelyard.core.work import Work
from steelyard.errors import IntegrityFault
from steelyard.scoring.telemetry import Sample, read_samples, spent
from steelyard.store.calibration import has_lost_calibrator, lost_calibrator, read_calibration
from steelyard.store.disk import DISK, Disk
from steelyard.store.durable import reading
from steelyard.store.one_run import require_applied, require_one_run
from steelyard.store.plan.files import Manifest, read_manifest
from steelyard.store.reads.journal import Journal, Part, load, work_by_bucket
from steelyard.store.run_record import RunRecord, ScoredRecord, read_record
from steelyard.store.rundir import DATABASE, IMPORTED, PLAN, READS_FOLDER, SESSIONS, RunDir

_ENTRIES = {"plan": PLAN, "reads": READS_FOLDER, "database": DATABASE}
READ_KINDS = ("ok", "overlong", "error", "unparsable", "reused")


def run_status(root: Path, disk: Disk = DISK) -> dict[str, Any]:
    """Return everything that `status` shows, as plain values.

    `state` is planning, scoring, stopped, complete or damaged; `damage` and `remedy` say what
    is lost and what to do. `uncommitted` prompts and pairs are read, by the last sample of the
    session at work, but in no part yet; the other counts leave them out, and `fraction`, the share
    of unique prompts that is read, in [0, 1], has them. It is None before there is a plan;
    `seconds_left` is None unless the run is scored and has a rate.
    Token counts are of prompts: `prompt` those sent to the engine, of which `cached` came from its
    prefix cache and `computed` did not; `saved_by_dedupe` and `saved_by_reuse` were never sent.
    `work` is what the prompts read by an engine took (core.work.Work), in all and by bucket, with
    `hit_rate`, the share of their tokens that the engine had already, and `busy_share`, the
    engine's share of the time; None before anything was read.

    Raises:
        UsageError: `root` is not a run directory.
        IntegrityFault: run.json or the plan's manifest is damaged.
        EnvironmentFault: a file cannot be read.
    """
    with reading(root):
        return _status(RunDir(root, disk))


def _status(run: RunDir) -> dict[str, Any]:
    record = read_record(run)
    manifest = read_manifest(run)
    log = load(run)
    parts = log.parts
    sums: Counter[str] = Counter()
    for part in parts:
        sums.update(part.counts)
    read = sum(part.rows for part in parts)
    complete = not isinstance(record, ScoredRecord)  # its verdicts were imported
    complete = complete or (manifest is not None and read >= manifest.prompts)
    damage, remedy = _damage(run, record, log, manifest) or (None, None)
    done = sum(part.pairs for part in parts)
    samples, damaged_samples = read_samples(run)
    used = spent(samples, damaged_samples)
    watt_hours = used["gpu_watt_hours"]
    state = "damaged" if damage else _state(run, manifest is not None, complete)
    live = _live(run, samples) if state == "scoring" else None
    ahead = max(0, live.prompts - read) if live and live.prompts is not None else 0
    pairs_ahead = max(0, live.pairs - done) if live and live.pairs is not None else 0
    unread = max(0, manifest.prompts - read - ahead) if manifest else 0
    content = {
        "run": str(run.root),
        "state": state,
        "damage": damage,
        "remedy": remedy,
        "fraction": _fraction(read + ahead, manifest, complete=complete),
        "seconds_left": (
            _seconds_left(run, parts, unread, live, datetime.now(UTC))
            if state == "scoring"
            else None
        ),
        "part": record.part,
        "judge": record.judge,
        "protocol": record.protocol,
        "created": record.created,
        "updated": parts[-1].committed if parts else record.created,
        "pairs": {
            "planned": manifest.pairs if manifest else None,
            "done": done,
            "uncommitted": pairs_ahead,
        },
        "prompts": {
            "asked": manifest.asked if manifest else None,
            "unique": manifest.prompts if manifest else None,
            "read": read,
            "uncommitted": ahead,
            **{kind: sums[f"{kind}_reads"] for kind in READ_KINDS},
        },
        "tokens": _tokens(sums),
        "work": _work(work_by_bucket(parts)),
        "rejects": manifest.rejected if manifest else {},
        "parts": len(parts),
        "bytes": _sizes(run),
        **used,
        "gpu_watt_hours_per_1000_verdicts": (
            1000 * watt_hours / done if watt_hours is not None and done else None
        ),
    }
    return content | _imported(run, record)


def _fraction(read: int, manifest: Manifest | None, *, complete: bool) -> float | None:
    if complete:
        return 1.0
    return min(1.0, read / manifest.prompts) if manifest else None


def _live(run: RunDir, samples: Sequence[Sample]) -> Sample | None:
    """Return the last sample, if the writer at work took it."""
    since = run.locked_since()
    last = samples[-1] if samples else None
    return last if last and since and last.time >= since.timestamp() else None


def _seconds_left(
    run: RunDir, parts: Sequence[Part], unread: int, live: Sample | None, present: datetime
) -> float | None:
    """Predict when all prompts are read, by the rate since the judge was loaded.

    Args:
        run: the run.
        parts: all that are committed.
        unread: prompts that are neither in them nor in `live`.
        live: the last sample of the session at work; its prompts count those of the parts.
        present: the time, with its zone.

    Returns:
        Seconds from 0; None before the first prompt, or where its times are not what we write.
    """
    with suppress(ValueError, TypeError, KeyError):
        entries, _ = run.read_log(SESSIONS)
        loaded = [entry["at"] for entry in entries if entry["event"] == "start"]
        began = datetime.fromisoformat(loaded[-1]) if loaded else present
        last = datetime.fromisoformat(parts[-1].committed) if parts else began
        rows = sum(p.rows for p in parts if datetime.fromisoformat(p.committed) >= began)
        ahead = (live.prompts or 0) - sum(part.rows for part in parts) if live else 0
        if live and ahead > 0:
            last, rows = max(last, datetime.fromtimestamp(live.time, UTC)), rows + ahead
        seconds = (last - began).total_seconds()
        if rows and seconds > 0:
            each = seconds / rows
            return max(0.0, unread * each - (present - last).total_seconds())
    return None


def _imported(run: RunDir, record: RunRecord) -> dict[str, Any]:
    """Return what differs where no judge has read: the verdicts came from tables."""
    if isinstance(record, ScoredRecord):
        return {}
    imported = record.imported
    return {
        "pairs": {"planned": imported.pairs, "done": imported.pairs, "uncommitted": 0},
        "rejects": imported.rejected,
        "bytes": {"imported": run.files.size(IMPORTED), "database": run.files.size(DATABASE)},
        "imported": list(imported.tables),
    }


def _tokens(sums: Counter[str]) -> dict[str, int]:
    return {
        "prompt": sums["prompt_tokens"],
        "cached": sums["cached_tokens"],
        "computed": sums["prompt_tokens"] - sums["cached_tokens"],
        "saved_by_dedupe": sums["duplicate_tokens"],
        "saved_by_reuse": sums["reused_tokens"],
    }


def _work(by_bucket: dict[int, Work]) -> dict[str, Any]:
    """Sum up over all buckets, and list each bucket's own work."""
    total = Work()
    for work in by_bucket.values():
        total.add(work)
    each = [{"bucket": bucket, **_with_shares(work)} for bucket, work in by_bucket.items()]
    return {**_with_shares(total), "buckets": each}


def _with_shares(work: Work) -> dict[str, Any]:
    hits = work.unique_tokens - work.computed_tokens
    return {
        **asdict(work),
        "hit_rate": _share(hits, work.unique_tokens),
        "busy_share": _share(work.engine_seconds, work.reading_seconds),
    }


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _damage(
    run: RunDir, record: RunRecord, log: Journal, manifest: Manifest | None
) -> tuple[str, str] | None:
    """Return what is wrong with the run, and what to do; None: nothing is, or its writer mends it.

    Of the parts, only their sizes are compared.
    """
    try:
        require_one_run(run, record, log, manifest)
        require_applied(run, record, read_calibration(run)[0])
        if has_lost_calibrator(run):
            raise lost_calibrator(run)
    except IntegrityFault as fault:
        return fault.cause, fault.remedy
    lacking = [part.name for part in log.parts if run.files.size(part.name) != part.bytes]
    if lacking and not run.locked():
        return f"{lacking[0]} is damaged or missing", f"`steelyard resume {run.root}` mends it"
    return None


def _state(run: RunDir, planned: bool, complete: bool) -> str:
    if complete:
        return "complete"
    if not run.locked():
        return "stopped"
    return "scoring" if planned else "planning"


def _sizes(run: RunDir) -> dict[str, int]:
    """Return the bytes on the disk of plan, reads and database."""
    return {name: run.files.size(file) for name, file in _ENTRIES.items()}
