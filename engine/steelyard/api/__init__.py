"""Steelyard as a Python library (docs/python.md)."""

from __future__ import annotations

from steelyard.api.run import Run
from steelyard.api.score import open_run, score
from steelyard.core.config import RunConfig
from steelyard.export.options import ExportOptions

__all__ = ["ExportOptions", "Run", "RunConfig", "open_run", "score"]
