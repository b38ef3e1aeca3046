"""A run as a Python object."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from steelyard.api import frames
from steelyard.api.arguments import Columns, Gold, PathLike, as_path, gold_source, make_fields
from steelyard.api.comparisons import Bias, Ranking, WinRates
from steelyard.api.results import Calibration, Evaluation, Pairs
from steelyard.core.progress import Reporter, share_text
from steelyard.errors import check_keys
from steelyard.evaluation.apply import apply_calibrator
from steelyard.evaluation.evaluate import EvaluateOptions, evaluate_source
from steelyard.evaluation.fit import FitOptions, fit_calibrator
from steelyard.evaluation.judged_pairs import Source
from steelyard.export.exporter import Responses, export_dataset
from steelyard.export.options import make_options
from steelyard.ranking import gold_rank, gold_win_rates
from steelyard.ranking.bias_report import bias
from steelyard.ranking.rank import RankOptions, rank
from steelyard.ranking.winrate import winrate
from steelyard.report.content import ReportOptions
from steelyard.report.page import write_page
from steelyard.report.samples import NAMES, read_pairs
from steelyard.scoring.status import run_status
from steelyard.store.calibration import save_calibrator
from steelyard.store.durable import check_out
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import user_queries

VERDICTS = 'SELECT * FROM verdicts ORDER BY shard, "row"'


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory. Reading it takes no lock and disturbs no writer."""

    root: Path

    def sql(self, query: str, *, remote: bool = False) -> pa.Table:
        """Query verdicts, answers, reads, rejects, work, run and texts (docs/sql.md).

        Args:
            query: in DuckDB's SQL.
            remote: whether `texts` may be fetched from addresses that the run directory names.

        Raises:
            UsageError: DuckDB refuses the query.
            InputRefused: it reads `texts`, and the run's shards are missing or have changed.
            IntegrityFault: a file of the run is damaged.
        """
        return user_queries.query(RunSnapshot.take(self.root), query, remote=remote)

    def verdicts(self) -> pa.Table:
        """Return all verdicts, in the order of the input."""
        return self.sql(VERDICTS)

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

    def to_pandas(self, query: str = VERDICTS) -> Any:  # noqa: ANN401 - pandas may be missing
        """Return the rows of a query, all verdicts by default, as a pandas DataFrame."""
        return frames.to_pandas(self.sql(query))

    def to_polars(self, query: str = VERDICTS) -> Any:  # noqa: ANN401 - polars may be missing
        """Return the rows of a query, all verdicts by default, as a polars DataFrame."""
        return frames.to_polars(self.sql(query))

    def rank(
        self,
        *,
        columns: Columns | None = None,
        gold: Gold = None,
        gold_columns: Columns | None = None,
        **options: Any,  # noqa: ANN401 - the fields of RankOptions
    ) -> Ranking:
        """Rank the competitors, as `steelyard rank` does.

        Args:
            columns: role -> column, as `--map`.
            gold: a file, or True for the run's own gold: ratings are corrected by it.
            gold_columns: role -> column of that file.
            **options: method, intervals, replicates, anchor, shuffles, seed.

        Raises:
            SteelyardError: the error that the command line would print.
        """
        content = rank(self.root, columns or {}, make_fields(RankOptions, options, "rank()"))
        if (labels := gold_source(gold, gold_columns)) is not None:
            gold_rank.add_gold(content, columns or {}, labels)
        return Ranking.of(content)

    def winrate(
        self,
        baseline: str,
        *,
        columns: Columns | None = None,
        difficulty: PathLike | None = None,
        style: bool = False,
        gold: Gold = None,
        gold_columns: Columns | None = None,
        remote: bool = False,
    ) -> WinRates:
        """Compute win rates against a baseline, as `steelyard winrate` does.

        Args:
            baseline: the competitor that the others are compared with.
            columns: role -> column, as `--map`.
            difficulty: Parquet with instruction_id and difficulty, in log-odds; None: learned.
            style: whether to add rates at equal style, for which texts are read.
            gold: a file, or True for the run's own gold: rates are corrected by it.
            gold_columns: role -> column of that file.
            remote: whether texts may be fetched from addresses that the run directory names.

        Raises:
            SteelyardError: the error that the command line would print.
        """
        hard = None if difficulty is None else Path(difficulty)
        content = winrate(
            self.root, columns or {}, baseline, difficulty=hard, style=style, remote=remote
        )
        if (labels := gold_source(gold, gold_columns)) is not None:
            gold_win_rates.add_gold(content, columns or {}, labels)
        return WinRates.of(content)

    def bias(self, *, by: str | None = None, columns: Columns | None = None) -> Bias:
        """Measure what sways the judge besides quality, as `steelyard bias` does.

        Args:
            by: a column for each of whose values all is measured again.
            columns: role -> column, as `--map`.

        Raises:
            SteelyardError: the error that the command line would print.
        """
        return Bias.of(bias(self.root, columns or {}, by))

    def evaluate(
        self,
        gold: PathLike | None = None,
        *,
        gold_columns: Columns | None = None,
        columns: Columns | None = None,
        **options: Any,  # noqa: ANN401 - the fields of EvaluateOptions
    ) -> Evaluation:
        """Measure the judge against gold, as `steelyard evaluate` does.

        Args:
            gold: Parquet with pair_id and gold; None: the gold in the run's shards.
            gold_columns: role -> column of that file.
            columns: role -> column, as `--map`.
            **options: by, tie_band, replicates, seed.

        Raises:
            SteelyardError: the error that the command line would print.
        """
        wanted = make_fields(EvaluateOptions, options, "evaluate()")
        source, file = Source(self.root, columns or {}), as_path(gold)
        return Evaluation.of(evaluate_source(source, file, wanted, gold_columns).to_json())

    def calibrate(
        self,
        gold: PathLike | None = None,
        *,
        out: PathLike = "calibrator.json",
        gold_columns: Columns | None = None,
        **options: Any,  # noqa: ANN401 - the fields of FitOptions
    ) -> Calibration:
        """Fit a calibrator to gold and apply it to this run, as `steelyard calibrate` does.

        Args:
            gold: Parquet with pair_id and gold; None: the gold in the run's shards.
            out: file to write the calibrator to. The looks at gold of one that is there go on.
            gold_columns: role -> column of that file.
            **options: method, agreement, confidence, content_free, seed.

        Raises:
            SteelyardError: the error that the command line would print.
        """
        path, file = Path(out), as_path(gold)
        wanted = make_fields(FitOptions, {**options, "previous": path}, "calibrate()")
        check_out(path, b"{", read=(file,))
        fitted = fit_calibrator(Source(self.root), file, wanted, gold_columns)
        save_calibrator(path, fitted.calibrator)
        applied = apply_calibrator(Source(self.root), path, None, force=False)
        return Calibration(
            out=str(path),
            pairs=applied.pairs,
            calibrator=fitted.calibrator,
            coverage_risk=tuple(fitted.curve),
            drift=applied.drift,
            notes=(*fitted.notes, *applied.notes),
        )

    def report(
        self,
        out: PathLike = "report.html",
        *,
        gold: PathLike | None = None,
        gold_columns: Columns | None = None,
        samples: int = 20,
        remote: bool = False,
    ) -> Path:
        """Write an HTML page about the run, as `steelyard report` does, and return its path.

        Args:
            out: the file; an earlier page there is replaced.
            gold: Parquet with pair_id and gold; None: the gold in the run's shards.
            gold_columns: role -> column of that file.
            samples: pairs to show of each kind.
            remote: whether texts may be fetched from addresses that the run directory names.

        Raises:
            SteelyardError: the error that the command line would print.
        """
        path, file = Path(out), as_path(gold)
        write_page(
            self.root,
            path,
            ReportOptions(gold=file, gold_columns=gold_columns, samples=samples, remote=remote),
        )
        return path

    def show(self, *pair_ids: str, remote: bool = False, **numbers: int) -> Pairs:
        """Return pairs with their texts, as `steelyard show` does.

        Args:
            *pair_ids: which pairs.
            remote: whether texts may be fetched from addresses that the run directory names.
            **numbers: in place of ids how many pairs of each kind: most_certain, least_certain,
                flipped, against_gold, not_judged, any. The default is least_certain=3.

        Raises:
            SteelyardError: the error that the command line would print.
        """
        check_keys(numbers, list(NAMES.values()), "show()")
        kinds = {kind: numbers[name] for kind, name in NAMES.items() if name in numbers}
        pairs, notes = read_pairs(self.root, pair_ids, kinds, remote=remote)
        return Pairs.of({"kinds": pairs, "notes": notes})

    def _repr_html_(self) -> str:
        status = self.status()
        prompts = status["prompts"]
        rows = [
            {"": name, " ": value}
            for name, value in (
                ("state", status["state"]),
                ("done", share_text(prompts["read"] + prompts["uncommitted"], prompts["unique"])),
                ("judge", status["judge"]),
                ("protocol", status["protocol"]),
                ("pairs", status["pairs"]["done"]),
                ("rejects", sum(status["rejects"].values())),
            )
        ]
        return frames.html_table(rows, str(self.root), head=False)
