"""The program as a Python library."""

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

__all__ = ["ExportOptions", "Run", "RunConfig", "open_run", "score"]
from steelyard.store.verdicts import database


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory. Reading it takes no lock and disturbs no writer."""

    root: Path

    def sql(self, query: str) -> pa.Table:
        """The rows of a query over verdicts, answers, reads, rejects, work and run (docs/sql.md).

        Raises:
            UsageError: DuckDB refuses the query.
            IntegrityFault: a file of the run is damaged.
        """
        return database.query(RunDir(self.root), query)

    def verdicts(self) -> pa.Table:
        """All verdicts, in the order of the input."""
        return self.sql('SELECT * FROM verdicts ORDER BY shard, "row"')

    def export(
        self,
        out: str | os.PathLike[str],
        format: str,  # noqa: A002 - as the option is called
        *,
        responses: Sequence[str] = (),
        quiet: bool = True,
        **options: Any,  # noqa: ANN401 - the fields of ExportOptions
    ) -> dict[str, Any]:
        """Write the verdicts as a dataset to train on (docs/reward-datasets.md).

        Args:
            out: the folder to make.
            format: preference, reward, kto, sft, autorater or grpo.
            responses: files with the texts of imported verdicts.
            quiet: no progress on stderr.
            **options: further fields of `steelyard.export.options.ExportOptions`.

        Returns:
            the content of export.json: counts, judge, files with their digests.

        Raises:
            steelyard.errors.SteelyardError: what the command line would print.
        """
        wanted = make_options({"format": format, **options})
        texts = Responses(responses, {}) if responses else None
        return export_dataset(self.root, Path(out), wanted, texts, Reporter(quiet=quiet))

    def status(self) -> dict[str, Any]:
        """What `steelyard status --json` prints."""
        return run_status(self.root)


def score(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    run: str | os.PathLike[str],
    judge: str = "demo",
    quiet: bool = True,
    **options: Any,  # noqa: ANN401 - the fields of RunConfig
) -> Run:
    """Score Parquet shards and return the finished run.

    Args:
        inputs: files, folders, globs or URLs.
        run: the run directory; a run of the same input and judge is continued.
        judge: `demo`, `scripted[:...]`, a hub name or a model folder.
        quiet: False shows progress on stderr.
        **options: further fields of `RunConfig`, such as `map`, `engine`, `overlong`,
            `on_bad_row`, `reuse`.

    Raises:
        steelyard.errors.SteelyardError: the error that the command line would print.
    """
    listed = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    values = {"inputs": [os.fspath(one) for one in listed], "judge": judge, **options}
    score_run(RunConfig.from_mapping(values, "score()"), Path(run), Reporter(quiet=quiet))
    return Run(Path(run))


def open_run(run: str | os.PathLike[str]) -> Run:
    """Open a run directory, finished or not, for reading."""
    read_record(RunDir(Path(run)))
    return Run(Path(run))
