"""`steelyard rank`: a leaderboard with intervals, possible ranks and real differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.clusters import FEWEST
from steelyard.errors import UsageError, escape
from steelyard.ratings import classic
from steelyard.ratings.comparing import compare
from steelyard.ratings.connection import islands, loose_ends
from steelyard.ratings.strengths import INTERVALS, MODELS, rate
from steelyard.ratings.tournament import Tournament, tournament
from steelyard.records import Float64
from steelyard.reports.common import LEVEL, draw_source, draw_table, source
from steelyard.store.tables import read_comparisons

METHODS = (*MODELS, "average", "elo", "newman", "eigen", "pagerank")


@dataclass(frozen=True, slots=True)
class RankOptions:
    """How to rank; the command line's defaults."""

    method: str = "bradley-terry"  # one of METHODS
    intervals: str = "cluster"  # one of strengths.INTERVALS
    replicates: int = 1000
    anchor: str | None = None  # None: the mean is 1000
    shuffles: int = 100  # orders of Elo's; 0: the order of the rows
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("method", self.method, METHODS),
            ("intervals", self.intervals, INTERVALS),
        ):
            if value not in known:
                raise UsageError(
                    f"there is no {escape(value)} for --{name}",
                    remedy=f"choose one of {', '.join(known)}",
                )
        if self.replicates < 2 or self.shuffles < 0:
            raise UsageError(
                "too few replicates or shuffles", remedy="--replicates from 2, --shuffles from 0"
            )


def rank(path: Path, columns: Mapping[str, str], options: RankOptions) -> dict[str, Any]:
    """Rank the competitors of a run or a file.

    Returns:
        JSON: `ranking`, best first; `win_matrix`; `differences`, for the methods with a
        likelihood; what was read and left out; warnings.
    """
    read = read_comparisons(
        path, columns, ("model_a", "model_b", "preference"), ("tie", "instruction", "weight")
    )
    contest = tournament(read.table)
    points, ties = contest.points()
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
        ranking = _rated(contest, options, content)
    else:
        ranking = _scored(contest, points, ties, options)
        content["warnings"] = _doubts(contest, options)
    rates, average = classic.win_matrix(points), classic.average_win_rate(points)
    met = (contest.sums()[:, 0] > 0).reshape(contest.size, contest.size)
    place = {name: at for at, name in enumerate(contest.competitors)}
    count = np.bincount(contest.rows.pair, minlength=contest.size**2).reshape(met.shape)
    for row in ranking:
        at = place[row["competitor"]]
        row["average_win_rate"] = float(average[at])
        row["comparisons"] = int(count[at].sum() + count[:, at].sum())
    order = [place[row["competitor"]] for row in ranking]
    content["ranking"] = ranking
    content["win_matrix"] = {
        "competitors": [row["competitor"] for row in ranking],
        "share": [[_number(rates[i, j]) for j in order] for i in order],
    }
    return content


def draw_rank(content: dict[str, Any]) -> str:
    """The leaderboard as text."""
    rows, rated = [], content["ranking"][0].get("best_rank") is not None
    for row in content["ranking"]:
        score = row["rating"]
        line = [row["competitor"], row["rank"], f"{score:.1f}" if abs(score) >= 10 else score]
        if row.get("lower") is not None:
            line.append(f"{row['lower']:.1f} .. {row['upper']:.1f}")
        if rated:
            line.append(f"{row['best_rank']}-{row['worst_rank']}")
        rows.append([*line, row["average_win_rate"], f"{row['comparisons']:,}"])
    head = ["competitor", "rank", "rating"]
    head += ["interval"] if content["ranking"][0].get("lower") is not None else []
    head += ["ranks"] if rated else []
    parts = [draw_table(rows, [*head, "win rate", "comparisons"])]
    if content.get("differences"):
        real = sum(one["p_value"] < 1 - LEVEL for one in content["differences"])
        parts.append(
            f"{real} of {len(content['differences'])} differences are real (together at"
            f" {LEVEL:.0%}); ranks: what these leave possible"
        )
    return "\n\n".join([*parts, draw_source(content)])


def _rated(
    contest: Tournament, options: RankOptions, content: dict[str, Any]
) -> list[dict[str, Any]]:
    ratings = rate(
        contest,
        model=options.method,
        intervals=options.intervals,
        replicates=options.replicates,
        level=LEVEL,
        anchor=options.anchor,
        seed=options.seed,
    )
    tested = compare(ratings, LEVEL)
    order = np.argsort(-ratings.rating, kind="stable")
    names = contest.competitors
    content["warnings"] = list(ratings.warnings)
    content |= {"intervals": options.intervals, "level": LEVEL, "anchor": options.anchor}
    if ratings.ties is not None:
        content["tie_parameter"] = ratings.ties
    units = len(contest) if options.intervals == "rows" else contest.clusters
    sure = units >= FEWEST
    if not sure and options.intervals == "rows":
        content["warnings"].append(f"only {units} rows: no interval is given")
    content["differences"] = [
        {
            "better": names[i],
            "worse": names[j],
            "difference": float(tested.difference[i, j]),
            "standard_error": float(tested.standard_error[i, j]),
            "p_value": float(tested.p_value[i, j]),
        }
        for at, i in enumerate(order)
        for j in order[at + 1 :]
        if sure
    ]
    return [
        {
            "rank": at + 1,
            "competitor": names[i],
            "rating": float(ratings.rating[i]),
            "lower": float(ratings.lower[i]) if sure else None,
            "upper": float(ratings.upper[i]) if sure else None,
            "standard_error": float(ratings.standard_error[i]) if sure else None,
            "best_rank": int(tested.best_rank[i]) if sure else None,
            "worst_rank": int(tested.worst_rank[i]) if sure else None,
        }
        for at, i in enumerate(order.tolist())
    ]


def _scored(
    contest: Tournament, points: Float64, ties: Float64, options: RankOptions
) -> list[dict[str, Any]]:
    lower = upper = None
    methods = {
        "average": lambda: classic.average_win_rate(points),
        "newman": lambda: classic.newman(points, ties)[0],
        "eigen": lambda: classic.eigenvector(points),
        "pagerank": lambda: classic.pagerank(points),
    }
    if options.method == "elo":
        score, lower, upper = classic.elo(contest, shuffles=options.shuffles, seed=options.seed)
    else:
        try:
            score = methods[options.method]()
        except classic.NotConverged as error:
            ends = loose_ends(contest)
            why = f": {ends} won all, lost all or were never compared with the others"
            raise classic.NotConverged(
                error.cause + (why if ends else ""), remedy=error.remedy
            ) from None
    order = np.argsort(-score, kind="stable").tolist()
    ranking: list[dict[str, Any]] = []
    for at, i in enumerate(order):
        row = {"rank": at + 1, "competitor": contest.competitors[i], "rating": float(score[i])}
        if lower is not None and upper is not None and options.shuffles:
            row |= {"lower": float(lower[i]), "upper": float(upper[i])}
        ranking.append(row)
    return ranking


def _doubts(contest: Tournament, options: RankOptions) -> list[str]:
    """What a score without a likelihood does not tell by itself."""
    lines = []
    if apart := islands(contest):
        lines.append(
            f"no chain of comparisons joins {apart} to the others: where they stand among them"
            " means nothing"
        )
    weight = contest.rows.weight
    if options.method == "elo" and len(weight) and (weight != weight[0]).any():
        lines.append("elo counts every row once, whatever its weight")
    return lines


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
