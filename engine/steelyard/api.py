"""Steelyard as a Python library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.export.exporter import Responses, export_dataset
from steelyard.export.options import ExportOptions, make_options
from steelyard.scoring.run import score as score_run
from steelyard.scoring.status import run_status
from steelyard.store.run_record import read_record
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import database

__all__ = ["ExportOptions", "Run", "RunConfig", "open_run", "score"]


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory. Reading it takes no lock and disturbs no writer."""

    root: Path

    def sql(self, query: str) -> pa.Table:
        """Query the tables verdicts, answers, reads, rejects, work and run (docs/sql.md).

        Raises:
            UsageError: DuckDB refuses the query.
            IntegrityFault: a file of the run is damaged.
        """
        return database.query(RunSnapshot.take(self.root), query)

    def verdicts(self) -> pa.Table:
        """Return all verdicts, in the order of the input."""
        return self.sql('SELECT * FROM verdicts ORDER BY shard, "row"')

    def export(
        self,
        out: str | os.PathLike[str],
        format: str,  # noqa: A002 - the name of the option
        *,
        responses: Sequence[str] = (),
        remote: bool = False,
        quiet: bool = True,
        **options: Any,  # noqa: ANN401 - the fields of ExportOptions
    ) -> dict[str, Any]:
        """Write the verdicts as a training dataset (docs/reward-datasets.md).

        Args:
            out: the folder to create.
            format: preference, reward, kto, sft, autorater or grpo.
            responses: files with the texts of imported verdicts.
            remote: whether texts may be fetched from addresses that the run directory names.
            quiet: whether to print no progress on stderr.
            **options: further fields of `ExportOptions`.

        Returns:
            The content of export.json: counts, judge, and files with their digests.

        Raises:
            SteelyardError: the error that the command line would print.
        """
        wanted = make_options({"format": format, **options})
        texts = Responses(responses, {}) if responses else None
        reporter = Reporter(quiet=quiet)
        return export_dataset(self.root, Path(out), wanted, texts, reporter, remote=remote)

    def status(self) -> dict[str, Any]:
        """Return what `steelyard status --json` prints."""
        return run_status(self.root)


def score(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    run: str | os.PathLike[str],
    judge: str | Sequence[str] = (),
    quiet: bool = True,
    **options: Any,  # noqa: ANN401 - the fields of RunConfig
) -> Run:
    """Score Parquet shards and return the finished run.

    Args:
        inputs: files, folders, globs or URLs.
        run: the run directory; an earlier run of the same input and judge in it is continued.
        judge: a Hugging Face model name, a model folder, `demo` (a toy), or
            `scripted[:...]`; several for an ensemble.
        quiet: whether to print no progress on stderr.
        **options: further fields of `RunConfig`, such as `map`, `engine`, `limit`,
            `overlong`, `on_bad_row`, `reuse`.

    Raises:
        SteelyardError: the error that the command line would print.
    """
    paths = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    values = {"inputs": [os.fspath(path) for path in paths], "judge": judge, **options}
    score_run(RunConfig.from_mapping(values, "score()"), Path(run), Reporter(quiet=quiet))
    return Run(Path(run))


def open_run(run: str | os.PathLike[str]) -> Run:
    """Open a run directory, finished or not, for reading.

    Raises:
        UsageError: it is not a run directory.
    """
    read_record(RunDir(Path(run)))
    return Run(Path(run))
