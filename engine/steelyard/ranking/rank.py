"""`steelyard rank`: a leaderboard with intervals, possible ranks and significant differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from steelyard.comparisons.read import read_comparisons
from steelyard.core.schemas import Bool, Float64
from steelyard.errors import UsageError, escape
from steelyard.ranking import scores
from steelyard.ranking.bradley_terry import INTERVALS, MODELS, Ratings, rate
from steelyard.ranking.connectivity import (
    APART,
    cluster_counts,
    connectivity_warnings,
    disconnected,
    largest,
    strongly_connected,
)
from steelyard.ranking.differences import NO_SPREAD, compare
from steelyard.ranking.first_place import sensitivity_json
from steelyard.ranking.report import LEVEL, format_names, source
from steelyard.ranking.tournament import Tournament, tournament
from steelyard.statistics.clusters import MIN_FOR_INTERVAL, MIN_FOR_NORMAL

METHODS = (*MODELS, "average", "elo", "newman", "eigen", "pagerank")
REPLICATES = 1000
FEWEST_REPLICATES = 100  # with fewer, the ends of an interval rest on two or three of them
SHUFFLES = 100
OPTIONAL = ("tie", "instruction", "weight", "pair_id")
EQUAL = "all preferences are equal, which hides their spread: no interval, no difference tested"
LEAST_DEGREES = 1.0  # of freedom: with fewer, one cluster holds most of the information


@dataclass(frozen=True, slots=True)
class RankOptions:
    """How to rank. None means not given: an option may be given only if it has an effect."""

    method: str = "bradley-terry"  # one of METHODS
    intervals: str | None = None  # one of bradley_terry.INTERVALS; None: cluster
    replicates: int | None = None  # of the bootstrap; None: REPLICATES
    anchor: str | None = None  # None: the mean is 1000
    shuffles: int | None = None  # random orders for Elo; 0: the order of the rows; None: SHUFFLES
    seed: int | None = None  # None: 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("method", self.method, METHODS),
            ("intervals", self.intervals, INTERVALS),
        ):
            if value is not None and value not in known:
                raise UsageError(
                    f"there is no {escape(value)} for --{name}",
                    remedy=f"choose one of {', '.join(known)}",
                )
        rated, drawn = self.method in MODELS, self.intervals == "bootstrap"
        likely = f"--method {', '.join(MODELS)}"
        for name, given, works, where in (
            ("intervals", self.intervals, rated, likely),
            ("anchor", self.anchor, rated, likely),
            ("replicates", self.replicates, rated and drawn, "--intervals bootstrap"),
            ("shuffles", self.shuffles, self.method == "elo", "--method elo"),
            ("seed", self.seed, drawn or self.method == "elo",
             "--intervals bootstrap and --method elo"),
        ):  # fmt: skip
            if given is not None and not works:
                raise UsageError(
                    f"--{name} has no effect here", remedy=f"leave it out; it is for {where}"
                )
        least = (("replicates", self.replicates, FEWEST_REPLICATES), ("shuffles", self.shuffles, 0))
        for name, number, lowest in least:
            if number is not None and number < lowest:
                raise UsageError(
                    f"too few {name}: {number}", remedy=f"give --{name} from {lowest} on"
                )


def rank(path: Path, columns: Mapping[str, str], options: RankOptions) -> dict[str, Any]:
    """Rank the competitors of a run or a file.

    Returns:
        JSON: `ranking`, best first; `win_matrix`; for methods with a likelihood `differences` and
        `sensitivity`; what was read and left out; warnings.
    """
    read = read_comparisons(path, columns, ("model_a", "model_b", "preference"), OPTIONAL)
    contest = tournament(read.table)
    content = {
        **source(path, read),
        "method": options.method,
        "competitors": contest.size,
        "clusters": contest.clusters,
        "warnings": [],
    }
    if contest.alone:
        content["left_out"] = {
            **content["left_out"], "a competitor against itself": contest.alone
        }  # fmt: skip
    if options.method in MODELS:
        ranking = _rated(contest, read.table, options, content)
    else:
        ranking = _scored(contest, options)
        content["warnings"] = _score_warnings(contest, options)
    points, _ = contest.points()
    rates, average = scores.win_matrix(points), scores.average_win_rate(points)
    count = cluster_counts(contest, clustered=False)
    order = [contest.competitors.index(row["competitor"]) for row in ranking]
    for i, row in zip(order, ranking, strict=True):
        row["average_win_rate"] = float(average[i])
        row["comparisons"] = int(count[i])
    content["ranking"] = ranking
    content["win_matrix"] = {
        "competitors": [row["competitor"] for row in ranking],
        "share": [[_number(rates[i, j]) for j in order] for i in order],
    }
    return content


def _rated(
    contest: Tournament, table: pa.Table, options: RankOptions, content: dict[str, Any]
) -> list[dict[str, Any]]:
    intervals = options.intervals or INTERVALS[0]
    ratings = rate(
        contest,
        model=options.method,
        intervals=intervals,
        replicates=options.replicates or REPLICATES,
        level=LEVEL,
        anchor=options.anchor,
        seed=options.seed or 0,
    )
    content["warnings"] = list(ratings.warnings)
    content |= {"intervals": intervals, "level": LEVEL, "anchor": options.anchor}
    if ratings.ties is not None:
        content["tie_parameter"] = ratings.ties
    clustered = intervals != "rows"
    if ratings.estimate and (first := sensitivity_json(contest, ratings.estimate, table)):
        content["sensitivity"] = first
    known, bounded, enough = _identified(contest, ratings, options.anchor, clustered=clustered)
    content["warnings"] += _cluster_warnings(contest, ratings, intervals)
    if equal := _without_spread(ratings, bounded, options.anchor):
        content["warnings"].append(f"{format_names(equal)}: {EQUAL}")
        bounded &= ~np.isin(contest.competitors, equal)
    total = contest.clusters if clustered else len(contest)
    tested = compare(ratings, LEVEL, known)
    order = np.argsort(-ratings.rating, kind="stable").tolist()
    names = contest.competitors
    content["differences"] = [
        {
            "better": names[i],
            "worse": names[j],
            "difference": float(tested.difference[i, j]),
            "standard_error": float(tested.standard_error[i, j]) if known[i, j] else None,
            "p_value": _number(tested.p_value[i, j]),
        }
        for position, i in enumerate(order)
        for j in order[position + 1 :]
        if total >= MIN_FOR_INTERVAL
    ]
    return [
        {
            "rank": position,
            "competitor": names[i],
            "rating": float(ratings.rating[i]),
            "lower": float(ratings.lower[i]) if bounded[i] else None,
            "upper": float(ratings.upper[i]) if bounded[i] else None,
            "standard_error": float(ratings.standard_error[i]) if bounded[i] else None,
            "best_rank": int(tested.best_rank[i]) if enough[i] else None,
            "worst_rank": int(tested.worst_rank[i]) if enough[i] else None,
        }
        for position, i in enumerate(order, 1)
    ]


def _identified(
    contest: Tournament, ratings: Ratings, anchor: str | None, *, clustered: bool
) -> tuple[Bool, Bool, Bool]:
    """Return which differences [K, K], intervals [K] and ranges of ranks [K] can be estimated.

    All need MIN_FOR_INTERVAL clusters per competitor, and LEAST_DEGREES. Differences and intervals
    also need a likelihood that is bounded on both sides, and not only by the tie with an average
    competitor.
    """
    enough = cluster_counts(contest, clustered=clustered) >= MIN_FOR_INTERVAL
    enough &= np.diag(ratings.spread.degrees) >= LEAST_DEGREES
    groups = strongly_connected(contest)
    known = (groups[:, None] == groups[None, :]) & enough[:, None] & enough[None, :]
    if anchor is not None:
        return known, known[:, contest.competitors.index(anchor)], enough
    return known, enough & (groups == largest(groups)), enough


def _without_spread(ratings: Ratings, bounded: Bool, anchor: str | None) -> list[str]:
    """Return competitors whose verdicts are all equal, so that an interval would have no width."""
    names = _named(ratings.competitors, bounded & (ratings.standard_error < NO_SPREAD))
    return [name for name in names if name != anchor]


def _cluster_warnings(contest: Tournament, ratings: Ratings, intervals: str) -> list[str]:
    """Name competitors that have too few clusters although there are enough in total."""
    clustered = intervals != "rows"
    units, what = cluster_counts(contest, clustered=clustered), "clusters" if clustered else "rows"
    total = contest.clusters if clustered else len(contest)
    if total < MIN_FOR_INTERVAL:
        return [] if clustered else [f"only {total} rows: no interval is given"]
    rare = units < MIN_FOR_INTERVAL
    heavy = ~rare & (np.diag(ratings.spread.degrees) < LEAST_DEGREES)
    few = ~rare & (units < MIN_FOR_NORMAL) & (total >= MIN_FOR_NORMAL) & (intervals == "bootstrap")
    none = "no interval, range of ranks or significant difference"
    return [
        f"{format_names(_named(contest.competitors, mask))}: {reason}"
        for mask, reason in (
            (rare, f"compared in fewer than {MIN_FOR_INTERVAL} {what}: {none}"),
            (heavy, f"one of the {what} has nearly all of their weight: {none}"),
            (
                few,
                f"compared in fewer than {MIN_FOR_NORMAL} {what}: their intervals are too narrow",
            ),
        )
        if mask.any()
    ]


def _named(competitors: tuple[str, ...], mask: Bool) -> list[str]:
    return [competitors[i] for i in np.flatnonzero(mask).tolist()]


def _scored(contest: Tournament, options: RankOptions) -> list[dict[str, Any]]:
    points, ties = contest.points()
    bounds: dict[str, Float64] = {}
    methods = {
        "average": lambda: scores.average_win_rate(points),
        "newman": lambda: scores.newman(points, ties)[0],
        "eigen": lambda: scores.eigenvector(points),
        "pagerank": lambda: scores.pagerank(points),
    }
    if options.method == "elo":
        shuffles = SHUFFLES if options.shuffles is None else options.shuffles
        score, lower, upper = scores.elo(contest, shuffles=shuffles, seed=options.seed or 0)
        bounds = {"lower": lower, "upper": upper} if shuffles else {}
    else:
        try:
            score = methods[options.method]()
        except scores.NotConverged as error:
            why = "; ".join(connectivity_warnings(contest))
            cause = f"{error.cause}: {why}" if why else error.cause
            raise scores.NotConverged(cause, remedy=error.remedy) from None
    return [
        {
            "rank": position,
            "competitor": contest.competitors[i],
            "rating": float(score[i]),
            **{name: float(end[i]) for name, end in bounds.items()},
        }
        for position, i in enumerate(np.argsort(-score, kind="stable").tolist(), 1)
    ]


def _score_warnings(contest: Tournament, options: RankOptions) -> list[str]:
    """Return what a score without a likelihood hides."""
    lines = []
    if apart := disconnected(contest):
        lines.append(APART.format(apart))
    weight = contest.rows.weight
    if options.method == "elo" and len(weight) and (weight != weight[0]).any():
        lines.append("elo ignores weights: every row counts once")
    return lines


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
