"""Steelyard: a batch engine that weighs pairs of responses with a local LLM judge."""

from __future__ import annotations

__version__ = "0.1.0"
