"""The program as a Python library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from steelyard.config import RunConfig
from steelyard.export.options import make_options
from steelyard.exporting import Responses, export_dataset
from steelyard.progress import Reporter
from steelyard.run import score as score_run
from steelyard.status import run_status
from steelyard.store import database
from steelyard.store.rundir import RunDir


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
    """See `steelyard.score`; `quiet=False` shows progress on stderr."""
    listed = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    values = {"inputs": [os.fspath(one) for one in listed], "judge": judge, **options}
    score_run(RunConfig.from_mapping(values, "score()"), Path(run), Reporter(quiet=quiet))
    return Run(Path(run))


def open_run(run: str | os.PathLike[str]) -> Run:
    """See `steelyard.open_run`."""
    RunDir(Path(run)).read_passport()
    return Run(Path(run))
