"""Power and paired tests as text for a terminal."""

from __future__ import annotations

from typing import Any

from steelyard.cli.tables import format_fields, format_table
from steelyard.errors import escape


def format_power(content: dict[str, Any]) -> str:
    """Return which differences a run detects, and what more would take."""
    rows = []
    for row in content["competitors"]:
        needs = row["needs"] or {}
        cells = [f"{row['pairs']:,}", f"{row['instructions']:,}", _points(row["win_rate"])]
        cells += [_number(row["design_effect"]), _points(row["detectable_difference"])]
        cells += [_points(row["interval_width"])]
        cells += [_count(needs.get(f"{name}_pairs")) for name in ("difference", "width")]
        rows.append([row["competitor"], *cells])
    head = ["competitor", "pairs", "instructions", "win rate %", "design effect", "detectable"]
    head += ["width", f"pairs for {_points(content['difference'])}"]
    head += [f"for width {_points(content['width'])}"]
    parts = [format_table(rows, head), _legend(content), _format_between(content)]
    parts += [_format_measured_labels(content), _format_promise(content)]
    ends = [f"{content['rows']:,} comparisons, clusters by {content['clusters_by']}"]
    ends += [f"left out: {count:,} rows: {why}" for why, count in content["left_out"].items()]
    ends += [f"warning: {text}" for text in content["warnings"]]
    return "\n\n".join([*(part for part in parts if part), "\n".join(ends)])


def format_planned(content: dict[str, Any]) -> str:
    """Return what a run will need, and under which assumptions."""
    assumed, needs = content["assumptions"], content["needs"]
    parts = [
        f"assumed: preferences with a standard deviation of {assumed['sd']:g};"
        f" {assumed['pairs_per_instruction']:g} pair(s) per instruction, with a correlation of"
        f" {assumed['correlation']:g}; independent preferences of two competitors",
        format_table(
            [
                [f"a win rate {_points(content['difference'])} points from 50%",
                 _count(needs["difference_instructions"]), _count(needs["difference_pairs"])],
                [f"two win rates {_points(content['difference'])} points apart, each",
                 _count(content["between"]["difference_instructions"]),
                 _count(content["between"]["difference_pairs"])],
                [f"an interval {_points(content['width'])} points wide",
                 _count(needs["width_instructions"]), _count(needs["width_pairs"])],
            ],
            ["per competitor", "instructions", "pairs"],
        ),
        f"labels per competitor for a corrected interval {_points(content['width'])} points wide,"
        " if many more pairs are judged\n"
        + format_table(
            [[f"{row['correlation']:g}", _count(row["labels"])] for row in content["labels"]],
            ["judge's correlation with people", "labels"],
        ),
        _format_promise(content),
    ]  # fmt: skip
    return "\n\n".join(parts) + f"\n\n{_legend(content)}"


MEASURES = {
    "consistency": "verdicts that survive the swap",
    "first_position": "preference_ab - preference_ba",
    "agreement": "agreement with gold",
    "mse": "squared distance to gold's votes",
    "vote_log_loss": "log loss of gold's votes",
}


def format_judges(content: dict[str, Any]) -> str:
    """Return two judges side by side, with a test of each difference."""
    same = content["same_side"]
    interval = "" if same["lower"] is None else f" [{same['lower']:.3f}, {same['upper']:.3f}]"
    left = [f"{content[name]:,} only in the {name[5:]}" for name in ("only_first", "only_second")]
    named = format_fields([(name, escape(content[name])) for name in ("first", "second")])
    parts = [
        f"{named}\n"
        f"{content['pairs']:,} pairs of {content['clusters']:,} instructions judged by both"
        f" ({', '.join(left)}); they name the same side in {same['value']:.3f}{interval}"
    ]
    head = ["first", "second", "difference", "interval", "p", "detectable"]
    if content["measures"]:
        rows = [[MEASURES[row["measure"]], *_tested(row)] for row in content["measures"]]
        parts.append(format_table(rows, ["measure", *head]))
    if content["competitors"]:
        rows = [[row["competitor"], *_tested(row)] for row in content["competitors"]]
        table = format_table(rows, ["share of points", *head])
        parts.append(f"{table}\np: adjusted for {len(rows)} competitors (Holm)")
    return "\n\n".join([*parts, *_warnings(content)])


def format_competitors(content: dict[str, Any]) -> str:
    """Return both tests of two competitors."""
    first, second = escape(content["first"]), escape(content["second"])
    rows = []
    if test := content["head_to_head"]:
        rows.append([f"P({first} is better)", test["preference"], *_ends(test)])
    if test := content["shared_opponents"]:
        label = "win rate against shared opponents, difference"
        rows.append([label, test["difference"], *_ends(test)])
    title = f"{first} and {second}"
    head = [title, "value", "interval", "p", "detectable", "comparisons", "instructions"]
    for row, test in zip(
        rows, filter(None, (content["head_to_head"], content["shared_opponents"])), strict=True
    ):
        row += [f"{test['rows']:,}", f"{test['clusters']:,}"]
    return "\n\n".join([format_table(rows, head), *_warnings(content)])


def _tested(row: dict[str, Any]) -> list[Any]:
    return [row["first"], row["second"], row["difference"], *_ends(row)]


def _ends(test: dict[str, Any]) -> list[Any]:
    """Return a test's interval, p-value and detectable difference."""
    lower, p_value = test["lower"], test["p_value"]
    interval = "" if lower is None else f"{lower:.3f} .. {test['upper']:.3f}"
    small = p_value is not None and p_value < 0.0005
    return [interval, "<0.001" if small else p_value, test["detectable"]]


def _warnings(content: dict[str, Any]) -> list[str]:
    lines = [f"warning: {text}" for text in content["warnings"]]
    return ["\n".join(lines)] if lines else []


def _legend(content: dict[str, Any]) -> str:
    level = 1 - content["confidence"]
    return (
        f"differences are found in {content['power']:.0%} of such runs, by a two-sided test at"
        f" {level:.1%}, each by itself; points are hundredths"
    )


def _format_between(content: dict[str, Any]) -> str:
    between = content["between"]
    if between is None:
        return "no two competitors have five instructions in common"
    smallest, needed = between["detectable_difference"], between["difference_instructions"]
    return (
        f"two competitors, paired by instruction ({between['differences']:,} differences): they"
        f" differ detectably from {_points(smallest['median'])} points on (the median; at most"
        f" {_points(smallest['largest'])}); {_points(content['difference'])} points need"
        f" {_count(needed['median'])} instructions (at most {_count(needed['largest'])})"
    )


def _format_measured_labels(content: dict[str, Any]) -> str:
    labels = content.get("labels")
    if labels is None:
        return ""
    if labels["correlation"] is None:
        return f"{labels['labels']:,} labels are too few to say how many are needed"
    width = f"a corrected interval {_points(content['width'])} points wide"
    of = f"of a competitor's {labels['pairs']:,} pairs"
    if labels["needed"] is None:
        return f"{width} needs more than labels for all {of}: judge and label more"
    alone = labels["needed_alone"]
    without = "labels alone do not suffice" if alone is None else f"{alone:,} without the judge"
    return (
        f"{width} needs labels for {labels['needed']:,} {of} ({without}); judge and people"
        f" correlate by {labels['correlation']:.2f} on {labels['labels']:,} labels"
    )


def _format_promise(content: dict[str, Any]) -> str:
    promise = content["promise"]
    return (
        f"a promise of {content['agreement']:.0%} agreement takes labels on at least"
        f" {promise['instructions']:,} instructions ({promise['labels']:,} pairs), if the judge is"
        " never wrong on them"
    )


def _points(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.3g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _count(count: int | None) -> str:
    return "" if count is None else f"{count:,}"
