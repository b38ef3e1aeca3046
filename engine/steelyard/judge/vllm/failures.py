"""What vLLM raises, as errors that say what to do."""

from __future__ import annotations

import contextlib
from pathlib import Path

from steelyard.errors import JudgeUnavailable, SteelyardError, escape
from steelyard.judge.base import INSTALL

VERBOSE = "VLLM_LOGGING_LEVEL=INFO shows vLLM's own messages"


def not_importable(error: Exception) -> JudgeUnavailable:
    """Explain why vLLM cannot be imported."""
    text = str(error)
    if "torchvision" in text or "operator torchvision" in str(error.__cause__):
        return JudgeUnavailable(
            "the installed torchvision does not fit the installed torch",
            remedy="pip uninstall torchvision torchaudio torchcodec: Steelyard does not need them",
        )
    return JudgeUnavailable(f"vLLM cannot be imported: {escape(text, 300)}", remedy=INSTALL)


def describe(error: BaseException) -> str:
    """Describe an exception in one line."""
    listed = getattr(error, "errors", None)  # pydantic's own text ends with an address
    if callable(listed):
        with contextlib.suppress(Exception):
            return str(listed()[0]["msg"])
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


def not_started(error: Exception, logged: str | None, folder: Path) -> SteelyardError:
    """Explain why an engine could not be built; what its process logged is closer to the cause."""
    if isinstance(error, SteelyardError):
        return error
    cause = logged or describe(error)
    remedy = VERBOSE
    if "memory" in cause.lower():
        lower = "--engine gpu_memory_utilization (GPU) or kv_cache_memory_bytes (CPU)"
        remedy = f"free memory, or lower {lower}; {VERBOSE}"
    elif "architecture" in cause.lower():
        remedy = f"choose a judge that this vLLM supports, or upgrade vLLM; {VERBOSE}"
    cause = f"vLLM cannot start: {escape(cause, 300)}"
    return JudgeUnavailable(cause, place=str(folder), effect="nothing was read", remedy=remedy)
