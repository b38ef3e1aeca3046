"""Steelyard: a batch engine that compares pairs of responses with a local LLM judge.

Public names are loaded when they are first used, so that `steelyard --help` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from steelyard.core.version import __version__

if TYPE_CHECKING:
    from steelyard.api import ExportOptions, Run, RunConfig, open_run, score

__all__ = ["ExportOptions", "Run", "RunConfig", "__version__", "open_run", "score"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the type of the public name
    if name in __all__:
        return getattr(import_module("steelyard.api"), name)
    raise AttributeError(f"module 'steelyard' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
