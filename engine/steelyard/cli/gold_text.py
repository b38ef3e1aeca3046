"""Win rates and ratings that count the judge's error, as text for a terminal."""

from __future__ import annotations

import math
from typing import Any

from steelyard.cli.tables import format_table
from steelyard.errors import escape


def format_gold_rates(content: dict[str, Any]) -> str:
    """Return win rates by judge, corrected, and by gold alone, in per cent; empty without gold."""
    if "gold" not in content:
        return ""
    rates = content["win_rates"]
    hard = any(rate["gold"]["rogan_gladen"] for rate in rates)
    rows = []
    for rate in rates:
        gold = rate["gold"]
        tuned = gold["prediction_powered"]
        line = [rate["competitor"], _percent(gold["judge"] and gold["judge"]["value"])]
        for estimate in (tuned, gold["gold_only"], *[gold["rogan_gladen"]][:hard]):
            line += [_percent(estimate and estimate["value"]), _interval(estimate)]
        rows.append([*line, f"{gold['labels']:,}", _labels(tuned)])
    head = ["competitor", "judge", "corrected", "interval", "gold alone", "interval"]
    head += ["Rogan-Gladen", "interval"] if hard else []
    table = format_table(rows, [*head, "labels", "worth"])
    return f"{_title(content)}, in %\n{table}\n{LEGEND}"


def format_gold_ratings(content: dict[str, Any]) -> str:
    """Return ratings by judge, corrected, and by gold alone, best first; empty without gold."""
    if "gold" not in content:
        return ""
    rows = []
    for row in sorted(content["ranking"], key=lambda row: -_value(row["gold"]["rating"])):
        gold = row["gold"]
        line = [row["competitor"], f"{gold['judge_rating']:.1f}"]
        for rating in (gold["rating"], gold["rating_gold_only"]):
            line += ["", ""] if rating is None else [f"{rating['value']:.1f}", _range(rating)]
        ranks = gold["rating"] and gold["rating"].get("best_rank")
        line.insert(4, f"{ranks}-{gold['rating']['worst_rank']}" if ranks else "")
        rows.append([*line, f"{gold['labels']:,}", _labels(gold["rating"])])
    head = ["competitor", "judge", "corrected", "interval", "ranks", "gold alone", "interval"]
    table = format_table(rows, [*head, "labels", "worth"])
    return f"{_title(content)}\n{table}\n{LEGEND}"


def _value(rating: dict[str, Any] | None) -> float:
    return float("-inf") if rating is None else float(rating["value"])


def _range(rating: dict[str, Any]) -> str:
    return f"{rating['lower']:.1f} .. {rating['upper']:.1f}"


LEGEND = (
    "corrected: prediction-powered, right for a random sample of the pairs; worth: how many labels"
    " alone would give its interval"
)


def _title(content: dict[str, Any]) -> str:
    file = content["gold"]["file"]
    by = escape(file) if file else "the source's own gold"
    judge = escape(content["gold"]["preference"])
    return f"by {content['gold']['labels']:,} labels of {by}, and the judge's {judge}"


def _labels(tuned: dict[str, Any] | None) -> str:
    labels: float | None = tuned.get("effective_labels") if tuned else None
    return "" if labels is None or math.isinf(labels) else f"{labels:,.0f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _interval(estimate: dict[str, Any] | None) -> str:
    if estimate is None or estimate["lower"] is None:
        return ""
    return f"{_percent(estimate['lower'])} .. {_percent(estimate['upper'])}"
