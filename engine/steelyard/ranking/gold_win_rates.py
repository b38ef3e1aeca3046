"""`steelyard winrate --gold`: win rates by people, from a few labels and the judge's verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.arrow import to_mask
from steelyard.core.schemas import Float64, Int64
from steelyard.evaluation.judged_pairs import GoldSource
from steelyard.input.roles import MODELS
from steelyard.ranking.labelled import LabelledComparisons, read_labelled
from steelyard.ranking.report import LEVEL, estimate_json, format_names
from steelyard.statistics.means import SHARE, mean
from steelyard.statistics.prediction_powered import FEWEST, Tuned, prediction_powered_mean
from steelyard.statistics.rogan_gladen import CorrectedRate, rogan_gladen

HARD = (0.0, 0.5, 1.0)
TOO_LITTLE = (
    f"gold for fewer than {FEWEST} instructions: nothing is corrected; label more of their pairs,"
    " chosen at random"
)
COMPLETE = "all of its pairs have gold, which is the answer: there is nothing to correct"


def add_gold(
    content: dict[str, Any], columns: Mapping[str, str], gold: GoldSource
) -> dict[str, Any]:
    """Add to the report of `winrate` what gold says: `gold`, in total and for each competitor.

    Args:
        content: the report; its `source`, `baseline` and `win_rates` are read.
        columns: role -> column of the source.
        gold: where gold for some of the pairs is.

    Raises:
        GoldRefused: there is no gold for these pairs.
    """
    comparisons = read_labelled(Path(content["source"]), columns, gold)
    against = _against(comparisons, content["baseline"])
    unknown: dict[str, list[str]] = {}
    for rate in content["win_rates"]:
        rate["gold"] = estimates(*against.get(rate["competitor"], _NOTHING))
        if rate["competitor"] in against and rate["gold"]["prediction_powered"] is None:
            complete = rate["gold"]["labels"] == rate["gold"]["judge"]["rows"]
            unknown.setdefault(COMPLETE if complete else TOO_LITTLE, []).append(rate["competitor"])
    labels = sum(rate["gold"]["labels"] for rate in content["win_rates"])
    content["gold"] = {
        "file": None if gold.gold is None else str(gold.gold),
        "labels": labels,
        "preference": comparisons.read_as,
    }
    lines = [f"{format_names(names)}: {why}" for why, names in unknown.items()]
    content["warnings"] += [*comparisons.notes, *lines]
    return content


Columns = tuple[Any, ...]  # label, preference, cluster and weight of a competitor's rows
_NOTHING: Columns = (np.zeros(0), np.zeros(0), np.zeros(0, np.int64), np.zeros(0))


def _against(comparisons: LabelledComparisons, baseline: str) -> dict[str, Columns]:
    """Return the rows of each competitor, seen from its side."""
    sides = [pc.equal(comparisons.table[name].cast(pa.string()), baseline) for name in MODELS]
    comparisons = comparisons.take(to_mask(pc.or_(*sides)))
    first, second = (comparisons.table[name].cast(pa.string()) for name in MODELS)
    turned = pc.equal(first, baseline)
    coded = pc.if_else(turned, second, first).combine_chunks().dictionary_encode()
    back, codes = to_mask(turned), np.asarray(coded.indices)
    label = np.where(back, 1 - comparisons.label, comparisons.label)
    preference = np.where(back, 1 - comparisons.preference, comparisons.preference)
    columns = (label, preference, comparisons.cluster, comparisons.weight)
    rows = {name: codes == code for code, name in enumerate(coded.dictionary.to_pylist())}
    return {name: tuple(column[mask] for column in columns) for name, mask in rows.items()}


def estimates(
    label: Float64, preference: Float64, cluster: Int64, weight: Float64
) -> dict[str, Any]:
    """Return a competitor's rate by the judge, by gold, and corrected, as JSON; all are [n]."""
    rows = np.isfinite(label)
    hard = bool(np.isin(preference, HARD).all()) and len(preference) > 0
    return {
        "labels": int(rows.sum()),
        "clusters": len(np.unique(cluster[rows])),
        "judge": _mean(preference, cluster, weight),
        "gold_only": _mean(label[rows], cluster[rows], weight[rows]),
        "prediction_powered": _tuned_json(
            prediction_powered_mean(label, preference, cluster, weight) if rows.any() else None
        ),
        "rogan_gladen": _corrected_json(
            rogan_gladen(label, preference, cluster, weight, LEVEL) if hard else None
        ),
    }


def _mean(values: Float64, cluster: Int64, weight: Float64) -> dict[str, Any] | None:
    return estimate_json(mean(values, cluster, weight, bounds=SHARE)) if len(values) else None


def _tuned_json(tuned: Tuned | None) -> dict[str, Any] | None:
    if tuned is None:
        return None
    lower, upper = tuned.interval(LEVEL)
    return {
        "value": min(max(tuned.value, 0.0), 1.0),
        "standard_error": tuned.standard_error,
        "lower": lower,
        "upper": upper,
        "weight": tuned.weight,
        "effective_labels": tuned.effective_labels,
    }


def _corrected_json(rate: CorrectedRate | None) -> dict[str, Any] | None:
    if rate is None:
        return None
    return {
        "value": rate.value,
        "lower": rate.lower,
        "upper": rate.upper,
        "sensitivity": rate.sensitivity,
        "specificity": rate.specificity,
    }
