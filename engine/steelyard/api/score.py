"""Runs as Python objects: scored now, or opened."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steelyard.api.run import Run
from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter, is_notebook
from steelyard.input.memory import as_paths
from steelyard.scoring.run import score as score_run
from steelyard.store.run_input import keep_rows
from steelyard.store.run_record import read_record
from steelyard.store.rundir import RunDir


def score(
    inputs: Any,  # noqa: ANN401 - tables of libraries that may be missing
    *,
    run: str | os.PathLike[str],
    judge: str | Sequence[str] = (),
    quiet: bool | None = None,
    **options: Any,  # noqa: ANN401 - the fields of RunConfig
) -> Run:
    """Score pairs and return the finished run.

    Args:
        inputs: files, folders, globs or URLs (docs/inputs.md); or rows: a list of dictionaries, a
            pandas or polars DataFrame, a pyarrow.Table or RecordBatchReader, a datasets.Dataset.
            Rows are written into the run directory once, so that it is complete.
        run: the run directory; an earlier run of the same input and judge in it is continued.
        judge: a Hugging Face model name, a model folder, `demo` (a toy), or
            `scripted[:...]`; several for an ensemble. No judge is chosen in silence.
        quiet: whether to print no progress on stderr; None: print it in a notebook alone.
        **options: further fields of `RunConfig`, such as `map`, `engine`, `overlong`,
            `on_bad_row`, `reuse`.

    Raises:
        SteelyardError: the error that the command line would print.
    """
    paths = as_paths(inputs)
    if paths is None:
        paths = [str(keep_rows(inputs, RunDir(Path(run))).absolute())]
    values = {"inputs": paths, "judge": judge, **options}
    silent = not is_notebook(sys.stderr) if quiet is None else quiet
    score_run(RunConfig.from_mapping(values, "score()"), Path(run), Reporter(quiet=silent))
    return Run(Path(run))


def open_run(run: str | os.PathLike[str]) -> Run:
    """Open a run directory, finished or not, for reading.

    Raises:
        UsageError: it is not a run directory.
    """
    read_record(RunDir(Path(run)))
    return Run(Path(run))
