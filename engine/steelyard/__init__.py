"""Steelyard: a batch engine that weighs pairs of responses with a local LLM judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from steelyard.api import Run

__version__ = "0.1.0"
__all__ = ["__version__", "open_run", "score"]


def score(
    inputs: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    run: str | PathLike[str],
    judge: str = "demo",
    **options: Any,  # noqa: ANN401 - the fields of RunConfig
) -> Run:
    """Score Parquet shards and return the finished run.

    Args:
        inputs: files, folders, globs or URLs.
        run: the run directory; a run of the same input and judge is continued.
        judge: `demo`, `scripted[:...]`, a hub name or a model folder.
        **options: further fields of `steelyard.config.RunConfig`, such as `map`, `engine`,
            `overlong`, `on_bad_row`, `reuse`.

    Raises:
        steelyard.errors.SteelyardError: what the command line would print.
    """
    from steelyard import api

    return api.score(inputs, run=run, judge=judge, **options)


def open_run(run: str | PathLike[str]) -> Run:
    """A run directory, finished or not, for reading."""
    from steelyard import api

    return api.open_run(run)
