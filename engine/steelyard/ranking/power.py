"""`steelyard power`: which differences a run detects, how many pairs and labels others need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.calibrators.abstention import instructions_needed
from steelyard.comparisons.read import read_comparisons
from steelyard.core.schemas import Float64, Int64
from steelyard.errors import UsageError, escape
from steelyard.evaluation.judged_pairs import GoldSource
from steelyard.input.roles import MODELS
from steelyard.ranking.labelled import LabelledComparisons, read_labelled
from steelyard.ranking.report import source
from steelyard.ranking.tournament import Tournament, position_of, tournament
from steelyard.statistics.means import SHARE, mean
from steelyard.statistics.power import Spread, assumed_spread, labels_for_width, spread_of
from steelyard.statistics.prediction_powered import FEWEST

MOST_INSTRUCTIONS = 100_000  # that differences of competitors are measured on
MOST_DIFFERENCES = 5000  # of two competitors that are measured, at equal steps
CORRELATIONS = (0.0, 0.3, 0.5, 0.7)  # of judge and gold, where there is no gold to measure it


@dataclass(frozen=True, slots=True)
class PowerOptions:
    """What is asked for. None means not given."""

    baseline: str | None = None  # None: all opponents
    difference: float = 0.05  # of win rates
    width: float = 0.1  # of a win rate's interval, from bound to bound
    agreement: float = 0.9  # promised of trusted verdicts
    power: float = 0.8
    confidence: float = 0.95
    sd: float | None = None  # of a preference; only without a source, None: 0.5
    per_instruction: int | None = None  # pairs; only without a source, None: 1
    correlation: float | None = None  # of pairs of an instruction; only without a source, None: 0

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("difference", self.difference, 0, 1), ("width", self.width, 0, 1),
            ("agreement", self.agreement, 0, 1), ("power", self.power, 0.5, 1),
            ("confidence", self.confidence, 0.5, 1), ("sd", self.sd, 0, 0.5 + 1e-12),
            ("correlation", self.correlation, -1e-12, 1 + 1e-12),
        ):  # fmt: skip
            if value is not None and not low < value < high:
                between = f"{max(low, 0):g} and {min(high, 1):.3g}"
                raise UsageError(
                    f"--{name} is {value:g}", remedy=f"give a number between {between}"
                )
        if self.per_instruction is not None and self.per_instruction < 1:
            raise UsageError(
                f"--per-instruction is {self.per_instruction}", remedy="give 1 pair or more"
            )

    def assumptions(self) -> dict[str, float]:
        """Return what is assumed of a run that is yet to be, hard verdicts if nothing is given."""
        return {
            "sd": 0.5 if self.sd is None else self.sd,
            "pairs_per_instruction": self.per_instruction or 1,
            "correlation": self.correlation or 0.0,
        }


def planned(options: PowerOptions) -> dict[str, Any]:
    """Return how many pairs and labels a run needs, from assumptions alone, as JSON."""
    if options.baseline is not None:
        raise UsageError("--baseline needs a run or a file", remedy="name one, or leave it out")
    assumed = options.assumptions()
    rows, deviation = assumed["pairs_per_instruction"], assumed["sd"]
    spread = assumed_spread(deviation, rows, assumed["correlation"])
    between = assumed_spread(deviation * math.sqrt(2), rows, assumed["correlation"])
    pairs = 100 * spread.for_width(options.width, level=options.confidence) * rows
    return {
        **_asked(options),
        "assumptions": assumed,
        "needs": _needs(spread, options),
        "between": _needs(between, options),
        "labels": [
            {"correlation": r, "labels": _labels(options, spread, r, round(pairs))}
            for r in CORRELATIONS
        ],
        "promise": _promise(np.array([round(rows)]), options),
        "warnings": [],
    }


def power(
    path: Path,
    columns: Mapping[str, str],
    options: PowerOptions,
    gold: GoldSource | None = None,
) -> dict[str, Any]:
    """Return which differences the comparisons of a run or a file detect, as JSON.

    Args:
        path: run or file.
        columns: role -> column.
        options: what is asked for.
        gold: where gold is, to say how many labels are needed; None: it is not asked for.

    Raises:
        UsageError: an option is for plans alone, or there is no such baseline.
        InputRefused: values cannot be used.
    """
    for name, value in (("sd", options.sd), ("per-instruction", options.per_instruction),
                        ("correlation", options.correlation)):  # fmt: skip
        if value is not None:
            raise UsageError(
                f"--{name} is for a plan without data: {escape(path)} says what it is",
                remedy="leave it out, or leave out the run or file",
            )
    read = read_comparisons(path, columns, (*MODELS, "preference"), ("instruction", "weight"))
    contest = tournament(read.table)
    baseline = options.baseline
    position = None if baseline is None else position_of(contest, baseline, "--baseline")
    shares = _shares(contest, position)
    content: dict[str, Any] = {
        **source(path, read),
        **_asked(options),
        "baseline": options.baseline,
        "competitors": [_competitor(*share, options) for share in shares],
        "between": _between(contest, shares, options),
        "warnings": [],
    }
    content["promise"] = _promise(np.bincount(contest.cluster), options)
    if gold is not None:
        comparisons = read_labelled(path, columns, gold)
        pairs = int(np.median([row["pairs"] for row in content["competitors"]]))
        content["labels"] = _measured_labels(comparisons, pairs, options)
        content["warnings"] += comparisons.notes
    return content


def _asked(options: PowerOptions) -> dict[str, Any]:
    names = ("difference", "width", "agreement", "power", "confidence")
    return {name: value for name, value in asdict(options).items() if name in names}


Share = tuple[str, Float64, Int64, Float64]  # a competitor's points, instructions and weights


def _shares(contest: Tournament, baseline: int | None) -> list[Share]:
    """Return each competitor's comparisons, with the baseline alone or with all opponents."""
    first, second = contest.rows.pair // contest.size, contest.rows.pair % contest.size
    weight = contest.rows.weight if len(contest.rows.weight) else np.ones(len(contest))
    met = np.ones(len(contest), np.bool_)
    if baseline is not None:
        met = (first == baseline) | (second == baseline)
    shares = []
    for k, name in enumerate(contest.competitors):
        mine = met & ((first == k) | (second == k))
        if k == baseline or not mine.any():
            continue
        points = np.where(first == k, contest.rows.preference, 1 - contest.rows.preference)[mine]
        shares.append((name, points, contest.cluster[mine].astype(np.int64), weight[mine]))
    return shares


def _competitor(
    name: str, points: Float64, cluster: Int64, weight: Float64, options: PowerOptions
) -> dict[str, Any]:
    estimate = mean(points, cluster, weight, bounds=SHARE)
    spread = spread_of(points, cluster, weight)
    return {
        "competitor": name,
        "pairs": len(points),
        "instructions": estimate.clusters,
        "win_rate": estimate.value,
        "design_effect": spread.design_effect if spread else None,
        "detectable_difference": spread.detectable(
            estimate.clusters, level=options.confidence, power=options.power
        )
        if spread
        else None,
        "interval_width": spread.width(estimate.clusters, level=options.confidence)
        if spread
        else None,
        "needs": _needs(spread, options) if spread else None,
    }


def _needs(spread: Spread, options: PowerOptions) -> dict[str, int]:
    """Return instructions and pairs for the difference and the width that are asked for."""
    difference = spread.for_difference(
        options.difference, level=options.confidence, power=options.power
    )
    width = spread.for_width(options.width, level=options.confidence)
    return {
        "difference_instructions": difference,
        "difference_pairs": math.ceil(difference * spread.rows),
        "width_instructions": width,
        "width_pairs": math.ceil(width * spread.rows),
    }


def _between(
    contest: Tournament, shares: list[Share], options: PowerOptions
) -> dict[str, Any] | None:
    """Return which differences of two win rates are detected, paired by instruction."""
    groups = min(contest.clusters, MOST_INSTRUCTIONS)
    means = np.full((len(shares), groups), np.nan)
    for k, (_, points, cluster, weight) in enumerate(shares):
        rows = cluster < groups
        total = np.bincount(cluster[rows], weight[rows], groups)
        sums = np.bincount(cluster[rows], (weight * points)[rows], groups)
        np.divide(sums, total, out=means[k], where=total > 0)
    scale = contest.clusters / groups
    smallest, needed = [], []
    asked = {"level": options.confidence, "power": options.power}
    differences = list(combinations(range(len(shares)), 2))
    for i, j in differences[:: 1 + len(differences) // MOST_DIFFERENCES]:
        both = means[i] - means[j]
        both = both[np.isfinite(both)]
        spread = spread_of(both, np.arange(len(both))) if len(both) else None
        if spread is not None:
            smallest.append(spread.detectable(len(both) * scale, **asked))
            needed.append(spread.for_difference(options.difference, **asked))
    if not smallest:
        return None
    return {
        "differences": len(smallest),
        "detectable_difference": {
            "median": float(np.median(smallest)), "largest": float(max(smallest))
        },
        "difference_instructions": {
            "median": math.ceil(np.median(needed)), "largest": max(needed)
        },
    }  # fmt: skip


def _measured_labels(
    comparisons: LabelledComparisons, pairs: int, options: PowerOptions
) -> dict[str, Any]:
    """Return how many of a competitor's pairs need a label, with this judge and without it.

    Both sides of each pair count, so that it does not matter which response was called a.
    """
    gold = np.isfinite(comparisons.label)
    label, judged = comparisons.label[gold], comparisons.preference[gold]
    cluster = comparisons.cluster[gold]
    both_labels, both_judged = (np.concatenate([x, 1 - x]) for x in (label, judged))
    varies = len(label) >= FEWEST and both_labels.std() > 0 and both_judged.std() > 0
    spread = spread_of(label, cluster) if varies else None
    content: dict[str, Any] = {"labels": len(label), "pairs": pairs, "correlation": None}
    if spread is None:
        return content | {"needed": None, "needed_alone": None}
    correlation = max(float(np.corrcoef(both_labels, both_judged)[0, 1]), 0.0)
    deviation = float(both_labels.std()) * math.sqrt(max(spread.design_effect, 1.0))
    needed, alone = (
        labels_for_width(options.width, deviation, r, pairs, level=options.confidence)
        if pairs > FEWEST
        else None
        for r in (correlation, 0.0)
    )
    return content | {"correlation": correlation, "needed": needed, "needed_alone": alone}


def _labels(options: PowerOptions, spread: Spread, correlation: float, pairs: int) -> int | None:
    deviation = math.sqrt(spread.variance * spread.rows)
    return labels_for_width(options.width, deviation, correlation, pairs, level=options.confidence)


def _promise(sizes: Int64, options: PowerOptions) -> dict[str, int]:
    """Return how much gold proves the promised agreement of a judge that is never wrong.

    A second half of gold, for the curve, is counted as well (`calibrate fit --agreement`).
    """
    sizes = sizes[sizes > 0]
    tested = instructions_needed(sizes, options.agreement, options.confidence, int(sizes.max()))
    return {
        "instructions": 2 * tested,
        "labels": math.ceil(2 * tested * float(sizes.mean())),
    }
