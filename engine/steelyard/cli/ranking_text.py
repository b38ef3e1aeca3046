"""Leaderboards, win rates and biases as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steelyard.cli.gold_text import format_gold_rates, format_gold_ratings
from steelyard.cli.tables import format_table
from steelyard.comparisons.read import CALIBRATED
from steelyard.errors import escape
from steelyard.ranking.report import LEVEL

BIASES = {
    "position": {
        "first": "decisions for the response shown first",
        "lean": "preference_ab - preference_ba",
        "deviation": "size of that difference",
        "flips": "pairs whose winner changes with the order",
    },
    "verbosity": {
        "longer": "judge's preference for the longer response",
        "gold_longer": "gold's preference for the longer response",
        "excess": "judge's preference minus gold's",
        "longer_at_equal_strength": "preference for the longer response at equal strength",
    },
    "label_mass": {
        "shortfall": "probability outside the labels",
        "low": "pairs with a label mass below 0.5",
    },
}


def format_rank(content: dict[str, Any]) -> str:
    """Return the leaderboard as text."""
    ranking, rows = content["ranking"], []
    spans = any(row.get("lower") is not None for row in ranking)
    rated = any(row.get("best_rank") is not None for row in ranking)
    for row in ranking:
        score = row["rating"]
        line = [row["competitor"], row["rank"], f"{score:.1f}" if abs(score) >= 10 else score]
        if spans:
            known = row["lower"] is not None
            line.append(f"{row['lower']:.1f} .. {row['upper']:.1f}" if known else "")
        if rated:
            known = row["best_rank"] is not None
            line.append(f"{row['best_rank']}-{row['worst_rank']}" if known else "")
        rows.append([*line, row["average_win_rate"], f"{row['comparisons']:,}"])
    head = ["competitor", "rank", "rating", *["interval"][:spans], *["ranks"][:rated]]
    parts = [_format_preference(content), format_table(rows, [*head, "win rate", "comparisons"])]
    if content.get("differences"):
        parts.append(_format_differences(content["differences"]))
    if "sensitivity" in content:
        parts.append(_format_sensitivity(content))
    if gold := format_gold_ratings(content):
        parts.append(gold)
    return "\n\n".join([*parts, _format_source(content)])


def format_winrate(content: dict[str, Any]) -> str:
    """Return the win rates as text, in per cent."""
    rates, rows = content["win_rates"], []
    titles = {"length_controlled": "equal length", "style_controlled": "equal style"}
    controls = [kind for kind in titles if any(rate[kind] for rate in rates)]
    for rate in rates:
        raw = rate["win_rate"]
        line = [rate["competitor"], _percent(raw["value"]), _percent(raw["standard_error"])]
        line += [_span(raw), _percent(rate["discrete_win_rate"])]
        for kind in controls:
            held = rate[kind] or dict.fromkeys(("win_rate", "standard_error", "lower", "upper"))
            line += [_percent(held["win_rate"]), _percent(held["standard_error"]), _span(held)]
        rows.append([*line, f"{raw['rows']:,}"])
    head = ["competitor", "win rate %", "se", f"{LEVEL:.0%}", "discrete"]
    head += [cell for kind in controls for cell in (titles[kind], "se", f"{LEVEL:.0%}")]
    title = f"{_format_preference(content)}\nagainst {escape(content['baseline'])}"
    parts = [title, format_table(rows, [*head, "rows"]), format_gold_rates(content)]
    if removal := content["sensitivity"]["verdicts"]:
        parts.append(
            f"highest win rate: without {removal['removed']:,} of {removal['of']:,} verdicts"
            f" ({removal['removed'] / removal['of']:.2%}) it is that of {escape(removal['first'])};"
            " no fewer can do that"
        )
    return "\n\n".join([part for part in parts if part] + [_format_source(content)])


def format_bias(content: dict[str, Any]) -> str:
    """Return all biases as text, with a column for each group of comparisons."""
    groups = {"all": content["all"], **content.get("by", {})}
    parts = [_format_preference(content)]
    parts += [_format_section(title, labels, groups) for title, labels in BIASES.items()]
    rows = [
        [name if len(groups) > 1 else "", family["family"], _format_interval(family["preference"]),
         _format_interval(family["own_judges"]), _format_interval(family["gold"]),
         _format_interval(family["self_preference_estimate"])]
        for name, sections in groups.items()
        for family in sections["families"] or ()
    ]  # fmt: skip
    if rows:
        head = ["", "family", "preference", "by judges of the family", "gold", "self-preference"]
        parts.append("self-preference by family\n" + format_table(rows, head))
    parts += [f"no {what}: it needs {columns}" for what, columns in content["missing"].items()]
    return "\n\n".join([part for part in parts if part] + [_format_source(content)])


def _format_differences(differences: list[dict[str, Any]]) -> str:
    tested = [pair["p_value"] for pair in differences if pair["p_value"] is not None]
    significant = sum(p_value < 1 - LEVEL for p_value in tested)
    untested = len(differences) - len(tested)
    return (
        f"{significant} of {len(differences)} differences are significant (jointly at {LEVEL:.0%})"
        + (f", {untested} cannot be tested" if untested else "")
        + "; ranks: the range that the significant differences allow"
    )


def _format_sensitivity(content: dict[str, Any]) -> str:
    """Return in a sentence how few verdicts the first place hangs on."""
    words = {"instructions": "pairs"} if content["clusters_by"] == "pair_id" else {}
    removals = {
        words.get(units, units): removal
        for units, removal in content["sensitivity"].items()
        if removal
    }
    if not removals:
        return "first place: no set of verdicts was found that decides it"
    ways = [
        f"without {removal['removed']:,} of {removal['of']:,} {units}"
        f" ({removal['removed'] / removal['of']:.2%}) {escape(removal['first'])} is first"
        for units, removal in removals.items()
    ]
    least = [
        f"{removal['at_least']:,} {units}"
        for units, removal in removals.items()
        if (removal["at_least"] or 1) > 1
    ]
    bound = f"; no fewer than {' or '.join(least)} can do that" if least else ""
    return f"first place: {', '.join(ways)}{bound}"


def _format_section(title: str, labels: Mapping[str, str], groups: Mapping[str, Any]) -> str:
    present = {name: sections[title] for name, sections in groups.items() if sections[title]}
    rows = []
    for key, label in labels.items():
        cells = [_format_cell(section, key) for section in present.values()]
        if any(cell is not None for cell in cells):
            rows.append([label, *cells])
    return format_table(rows, [title.replace("_", " "), *present]) if present else ""


def _format_cell(section: dict[str, Any], key: str) -> str | None:
    value = section[key]
    if isinstance(value, float):
        lower, upper = section[f"{key}_interval"] or (None, None)
        value = {"value": value, "lower": lower, "upper": upper}
    return None if value is None else _format_interval(value)


def _format_interval(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return ""
    if estimate["lower"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} [{estimate['lower']:.3f}, {estimate['upper']:.3f}]"


def _span(estimate: dict[str, Any]) -> str:
    if estimate["lower"] is None:
        return ""
    return f"[{_percent(estimate['lower'])}, {_percent(estimate['upper'])}]"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _format_preference(content: dict[str, Any]) -> str:
    """Return the first line of a report: which preferences it is of."""
    read = content["preference"]
    other = " (others: --map preference=COLUMN)" if read == CALIBRATED[0] else ""
    return f"preferences: {escape(read)}{other}"


def _format_source(content: dict[str, Any]) -> str:
    """Return the lines under a report: what it rests on, and warnings."""
    lines = [f"{content['rows']:,} comparisons, intervals over {content['clusters_by']}"]
    lines += [f"left out: {count:,} rows: {why}" for why, count in content["left_out"].items()]
    lines += [f"note: {text}" for text in content.get("notes", ())]
    lines += [f"warning: {text}" for text in content.get("warnings", ())]
    return "\n".join(lines)
