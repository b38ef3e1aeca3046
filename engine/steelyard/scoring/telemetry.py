"""What the machine spent: GPU energy, utilisation, memory and temperature by NVML; CPU seconds.

Each sample also says how far the run is, so that others see it before a part is committed.

A thread writes a line to `telemetry.jsonl` every few seconds; a crash loses no more than that.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise, repeat
from typing import Any

import msgspec

from steelyard.core.background import Worker
from steelyard.core.progress import Counts
from steelyard.errors import SteelyardError
from steelyard.store.rundir import TELEMETRY, RunDir

SECONDS = 5.0
LAST_SECONDS = 5.0  # for the last sample: in a driver that hangs, NVML hangs as well


class Telemetry:
    """Samples GPUs and CPU while it is open; what cannot be sampled is left out, never guessed.

    Where it cannot write, it warns once and samples no more: a full disk ends the run where reads
    are written, and telemetry does not end it first.
    """

    def __init__(
        self,
        run: RunDir,
        session: str,
        warn: Callable[[str], None],
        seconds: float = SECONDS,
        *,
        counts: Counts | None = None,
    ) -> None:
        self._run, self._session, self._warn, self._seconds = run, session, warn, seconds
        self._counts = counts  # of the session; it changes while prompts are read
        self._gpus = open_gpus()
        self._sampling = True

    def __enter__(self) -> Telemetry:
        self._sample()
        self._thread: Worker[Any] = Worker(
            lambda _: None,
            waiting=0,
            name="telemetry",
            flush=self._sample,
            flush_after=lambda: self._seconds if self._sampling else None,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.close(LAST_SECONDS)  # takes the last sample

    def _sample(self) -> None:
        if not self._sampling:
            return
        counts = self._counts
        line = {
            **({"prompts": counts.prompts, "pairs": counts.pairs} if counts else {}),
            "session": self._session,
            "time": round(time.time(), 3),
            "cpu_seconds": round(_cpu_seconds(), 3),
            "gpus": [sample() for sample in self._gpus],
        }
        try:
            self._run.log(TELEMETRY, **line)
        except SteelyardError as error:
            self._sampling = False
            self._warn(f"energy and CPU time are no longer recorded: {error.cause}")


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def open_gpus() -> list[Callable[[], dict[str, Any]]]:
    """Return one sampling function per GPU that NVML sees; none without NVML."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
    except pynvml.NVMLError:  # no driver, or no permission to ask it; `doctor` says which
        return []
    return [partial(_gpu, index, handle) for index, handle in enumerate(handles)]


def _gpu(index: int, handle: Any) -> dict[str, Any]:  # noqa: ANN401 - NVML's own handle
    """Sample watts, degrees Celsius, percent, MiB, and joules since the driver was loaded."""
    import pynvml as nvml

    readings: dict[str, Callable[[], float]] = {
        "watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        "joules": lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000,
        "percent": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "memory_mib": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20,
        "celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
    }
    values: dict[str, Any] = {"gpu": index}
    for name, reading in readings.items():
        try:
            values[name] = round(reading(), 1)
        except nvml.NVMLError:
            values[name] = None
    return values


class GpuSample(msgspec.Struct, frozen=True):
    """What NVML said of a GPU; None: it does not know."""

    joules: float | None
    watts: float | None


class Sample(msgspec.Struct, frozen=True):
    """A line of the log."""

    session: str
    time: float  # seconds since 1970
    cpu_seconds: float
    gpus: list[GpuSample]
    prompts: int | None = None  # that are read, be they committed or not
    pairs: int | None = None  # of which all prompts are read


def spent(samples: Sequence[Sample], damaged: int = 0) -> dict[str, Any]:
    """Sum up what all sessions of a run used, from `read_samples`.

    Returns:
        seconds and cpu_seconds with a judge loading or reading; gpu_watt_hours (None where no GPU
        was sampled); damaged_samples, lines that were left out. Energy is taken from the driver's
        counter where it has one, else from power times time between samples.
    """
    cpu, seconds = 0.0, 0.0
    joules: list[float] = []
    for last, sample in pairwise(samples):
        if last.session == sample.session:
            passed = sample.time - last.time
            seconds += passed
            cpu += sample.cpu_seconds - last.cpu_seconds
            used = map(_joules, last.gpus, sample.gpus, repeat(passed))
            joules += [value for value in used if value is not None]
    watt_hours = sum(joules) / 3600 if joules else None
    spent_on = {"seconds": seconds, "cpu_seconds": cpu, "gpu_watt_hours": watt_hours}
    return {**spent_on, "damaged_samples": damaged}


def read_samples(run: RunDir) -> tuple[list[Sample], int]:
    """Return a run's samples, oldest first, and how many lines were left out as damaged or torn."""
    entries, damaged = run.read_log(TELEMETRY)
    samples = []
    for entry in entries:
        try:
            samples.append(msgspec.convert(entry, Sample))
        except msgspec.ValidationError:
            damaged += 1
    return samples, damaged


def _joules(before: GpuSample, after: GpuSample, seconds: float) -> float | None:
    if before.joules is not None and after.joules is not None:
        return after.joules - before.joules
    if before.watts is not None and after.watts is not None:
        return (before.watts + after.watts) / 2 * seconds
    return None
