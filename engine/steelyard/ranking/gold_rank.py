"""`steelyard rank --gold`: ratings and win rates by people, from a few labels and the judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.core.schemas import Float64
from steelyard.errors import UsageError
from steelyard.evaluation.judged_pairs import GoldSource
from steelyard.ranking.bradley_terry import rate
from steelyard.ranking.differences import compare
from steelyard.ranking.gold_win_rates import TOO_LITTLE, estimates
from steelyard.ranking.labelled import LabelledComparisons, read_labelled
from steelyard.ranking.report import LEVEL, format_names
from steelyard.ranking.tournament import Tournament, tournament
from steelyard.ranking.tuned_ratings import TunedRatings, tuned_ratings
from steelyard.statistics.prediction_powered import FEWEST

METHOD = "bradley-terry"


def add_gold(
    content: dict[str, Any], columns: Mapping[str, str], gold: GoldSource
) -> dict[str, Any]:
    """Add to the report of `rank` what gold says: `gold`, in total and for each competitor.

    Args:
        content: the report; its `source`, `method`, `anchor` and `ranking` are read.
        columns: role -> column of the source.
        gold: where gold for some of the pairs is.

    Raises:
        UsageError: the ratings have no likelihood that gold could complete.
        GoldRefused: there is no gold for these pairs.
    """
    if content["method"] != METHOD:
        raise UsageError(
            f"--gold corrects the ratings of {METHOD}, not those of {content['method']}",
            place="--gold",
            remedy="leave out --method, or --gold; `winrate --gold` corrects win rates",
        )
    comparisons = read_labelled(Path(content["source"]), columns, gold)
    contest = tournament(comparisons.table)
    label = np.where(contest.swapped, 1 - comparisons.label, comparisons.label)
    anchor = content["anchor"]
    tuned, alone = tuned_ratings(contest, label, anchor), tuned_ratings(contest, label, anchor, 0.0)
    judged = rate(contest, model=METHOD, intervals="rows", anchor=anchor).rating
    few = []
    for row in content["ranking"]:
        position = contest.competitors.index(row["competitor"])
        row["gold"] = _competitor(comparisons, contest, label, position)
        row["gold"]["judge_rating"] = float(judged[position])
        row["gold"]["rating"] = _rating(tuned, alone, position)
        row["gold"]["rating_gold_only"] = _rating(alone, None, position)
        if row["gold"]["clusters"] < FEWEST:
            few.append(row["competitor"])
    content["gold"] = {
        "file": None if gold.gold is None else str(gold.gold),
        "labels": int(np.isfinite(label).sum()),
        "preference": comparisons.read_as,
        "weight": tuned.weight if tuned else None,
        "differences": _differences(tuned, contest, content["ranking"]) if tuned else [],
    }
    content["warnings"] += [*comparisons.notes, *_warnings(tuned, few, label)]
    return content


def _competitor(
    comparisons: LabelledComparisons, contest: Tournament, label: Float64, position: int
) -> dict[str, Any]:
    """Return the competitor's share of points over all its comparisons, from its side."""
    first = contest.rows.pair // contest.size == position
    mine = first | (contest.rows.pair % contest.size == position)
    own, judged = (
        np.where(first, values, 1 - values)[mine] for values in (label, contest.rows.preference)
    )
    return estimates(own, judged, comparisons.cluster[mine], comparisons.weight[mine])


def _rating(
    tuned: TunedRatings | None, alone: TunedRatings | None, position: int
) -> dict[str, Any] | None:
    if tuned is None or not tuned.known[position]:
        return None
    lower, upper = (float(bound[position]) for bound in tuned.interval(LEVEL))
    error = float(tuned.standard_error[position])
    rating = {
        "value": float(tuned.rating[position]),
        "standard_error": error,
        "lower": lower,
        "upper": upper,
    }
    if alone is not None and error > 0:
        gain = (float(alone.standard_error[position]) / error) ** 2
        rating["effective_labels"] = float(tuned.labels[position]) * gain
    return rating


def _differences(
    tuned: TunedRatings, contest: Tournament, ranking: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the differences of corrected ratings; add ranges of ranks to the competitors' own."""
    names, known = contest.competitors, tuned.known
    tested = compare(tuned.ratings(names, LEVEL), LEVEL, known[:, None] & known[None, :])
    for row in ranking:
        position = names.index(row["competitor"])
        if rating := row["gold"]["rating"]:
            rating["best_rank"] = int(tested.best_rank[position])
            rating["worst_rank"] = int(tested.worst_rank[position])
    order = [i for i in np.argsort(-tuned.rating, kind="stable").tolist() if known[i]]
    return [
        {
            "better": names[i],
            "worse": names[j],
            "difference": float(tested.difference[i, j]),
            "standard_error": float(tested.standard_error[i, j]),
            "p_value": None if np.isnan(tested.p_value[i, j]) else float(tested.p_value[i, j]),
        }
        for position, i in enumerate(order)
        for j in order[position + 1 :]
    ]


def _warnings(tuned: TunedRatings | None, few: list[str], label: Float64) -> list[str]:
    lines = []
    if few:
        lines.append(f"{format_names(few)}: {TOO_LITTLE}")
    if tuned is None and np.isfinite(label).all():
        lines.append("all comparisons have gold: rank the gold itself, there is nothing to correct")
    elif tuned is None:
        lines.append("no corrected ratings: with so little gold no finite ratings agree with it")
    return lines
