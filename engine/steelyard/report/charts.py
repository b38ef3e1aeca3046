"""The drawings of a report as Vega-Lite (vega.github.io/vega-lite), from what `gather` returns.

Text and lines have the colour of the page's text, so that they fit light and dark pages.
"""

from __future__ import annotations

from typing import Any

MOST_COMPETITORS = 60  # in the drawing of ratings
MOST_IN_MATRIX = 30
BAND_NAMES = {31: "31-100", 101: "101-300", 301: "301-1,000", 1001: "over 1,000"}
BLUE, ORANGE = "#4c8dd6", "#e08a3c"  # which colour-blind readers can distinguish
_CURRENT = "currentColor"
CONFIG = {
    "background": None,
    "font": "inherit",
    "axis": {
        "labelColor": _CURRENT, "titleColor": _CURRENT, "domainColor": _CURRENT,
        "tickColor": _CURRENT, "gridColor": _CURRENT, "gridOpacity": 0.12, "labelLimit": 260,
        "titleFontWeight": "normal",
    },
    "legend": {"labelColor": _CURRENT, "titleColor": _CURRENT, "labelLimit": 260},
    "view": {"stroke": None},
}  # fmt: skip

Chart = dict[str, Any]


def charts(content: dict[str, Any]) -> dict[str, Chart]:
    """Return the drawings that the content has numbers for, by name."""
    verdicts, ranking = content["verdicts"], content["ranking"]
    evaluation, status = content["evaluation"], content["status"]
    made: dict[str, Chart] = {}
    if ranking and len(ranking["ranking"]) > 1:
        made["ratings"] = _ratings(ranking)
        made["win_matrix"] = _win_matrix(ranking["win_matrix"])
    if verdicts["histogram"]:
        made["preferences"] = _preferences(verdicts["histogram"])
    if verdicts["scores"]:
        made["scores"] = _scores(verdicts["scores"])
    if evaluation:
        made["reliability"] = _reliability(evaluation)
    if verdicts["lengths"]:
        made["lengths"] = _lengths(verdicts["lengths"])
    if len(verdicts["rates"]) > 1:
        made["rates"] = _rates(verdicts["rates"])
    if status["work"]["logical_tokens"]:
        made["tokens"] = _tokens(status["work"])
    return {name: _complete(chart) for name, chart in made.items()}


def _complete(chart: Chart) -> Chart:
    schema = "https://vega.github.io/schema/vega-lite/v6.json"
    return {"$schema": schema, "config": CONFIG, **chart}


def _ratings(ranking: dict[str, Any]) -> Chart:
    rows = ranking["ranking"][:MOST_COMPETITORS]
    keys = ("competitor", "rating", "lower", "upper", "rank", "comparisons")
    values = [{key: row.get(key) for key in keys} for row in rows]
    y = {"field": "competitor", "type": "nominal", "sort": None, "title": None}
    scale = {"zero": False}
    tips = [{"field": key, "type": "nominal" if key == "competitor" else "quantitative",
             "format": "" if key == "competitor" else ",.4~g"} for key in keys]  # fmt: skip
    for tip in tips:
        if not tip["format"]:
            del tip["format"]
    return {
        "description": "Ratings of competitors with 95% intervals, the best on top",
        "width": "container",
        "height": {"step": 18},
        "data": {"values": values},
        "encoding": {"y": y, "tooltip": tips},
        "layer": [
            {
                "mark": {"type": "rule", "color": _CURRENT, "opacity": 0.5, "strokeWidth": 2},
                "transform": [{"filter": "isValid(datum.lower)"}],
                "encoding": {
                    "x": {"field": "lower", "type": "quantitative", "scale": scale,
                          "title": f"{ranking['method']} rating"},
                    "x2": {"field": "upper"},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 50, "color": BLUE, "opacity": 1},
                "encoding": {"x": {"field": "rating", "type": "quantitative", "scale": scale}},
            },
        ],
    }  # fmt: skip


def _win_matrix(matrix: dict[str, Any]) -> Chart:
    names = matrix["competitors"][:MOST_IN_MATRIX]
    values = [
        {"row": a, "column": b, "share": matrix["share"][i][j]}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if matrix["share"][i][j] is not None
    ]
    axis = {"type": "nominal", "sort": names, "scale": {"domain": names}}
    return {
        "description": "Share of points of each competitor against each other",
        "width": {"step": 22},
        "height": {"step": 22},
        "data": {"values": values},
        "mark": {"type": "rect"},
        "encoding": {
            "x": {**axis, "field": "column", "title": "against", "axis": {"labelAngle": -60}},
            "y": {**axis, "field": "row", "title": None},
            "color": {"field": "share", "type": "quantitative", "title": "win rate of the row",
                      "scale": {"domain": [0, 0.5, 1], "range": [ORANGE, "#dddddd", BLUE]}},
            "tooltip": [{"field": "row"}, {"field": "column"},
                        {"field": "share", "type": "quantitative", "format": ".3f"}],
        },
    }  # fmt: skip


def _preferences(histogram: list[dict[str, Any]]) -> Chart:
    from steelyard.report.aggregates import BINS

    values = [
        {**row, "start": row["bin"] / BINS, "stop": (row["bin"] + 1) / BINS} for row in histogram
    ]
    kinds = list(dict.fromkeys(row["kind"] for row in histogram))
    return {
        "description": "How many pairs have each preference",
        "width": "container",
        "height": 180,
        "data": {"values": values},
        "mark": {"type": "bar", "opacity": 0.65, "binSpacing": 1},
        "encoding": {
            "x": {"field": "start", "bin": {"binned": True}, "type": "quantitative",
                  "scale": {"domain": [0, 1]}, "title": "P(response a is better)"},
            "x2": {"field": "stop"},
            "y": {"field": "pairs", "type": "quantitative", "stack": None, "title": "pairs"},
            "color": {"field": "kind", "type": "nominal", "title": None,
                      "scale": {"domain": kinds, "range": [BLUE, ORANGE][: len(kinds)]},
                      "legend": {"orient": "top"} if len(kinds) > 1 else None},
            "tooltip": [{"field": "kind"}, {"field": "start", "type": "quantitative"},
                        {"field": "pairs", "type": "quantitative", "format": ",d"}],
        },
    }  # fmt: skip


def _scores(scores: list[dict[str, Any]]) -> Chart:
    return {
        "description": "How many responses have each score",
        "width": "container",
        "height": 180,
        "data": {"values": scores},
        "mark": {"type": "bar", "color": BLUE, "binSpacing": 1},
        "encoding": {
            "x": {"field": "start", "bin": {"binned": True}, "type": "quantitative",
                  "title": "score of a response"},
            "x2": {"field": "stop"},
            "y": {"field": "responses", "type": "quantitative"},
            "tooltip": [{"field": "start", "type": "quantitative", "format": ".3~f"},
                        {"field": "responses", "type": "quantitative", "format": ",d"}],
        },
    }  # fmt: skip


def _reliability(evaluation: dict[str, Any]) -> Chart:
    values = [
        {"kind": kind, **row}
        for kind in ("raw", "calibrated")
        if evaluation.get(kind)
        for row in evaluation[kind]["reliability"]
        if row["pairs"]
    ]
    kinds = list(dict.fromkeys(row["kind"] for row in values))
    x = {"field": "said", "type": "quantitative", "scale": {"domain": [0, 1]},
         "title": "mean preference of the judge"}  # fmt: skip
    colour = {"field": "kind", "type": "nominal", "title": None,
              "scale": {"domain": kinds, "range": [BLUE, ORANGE][: len(kinds)]},
              "legend": {"orient": "top"}}  # fmt: skip
    return {
        "description": "How often gold agrees, for each preference of the judge",
        "width": 320,
        "height": 320,
        "layer": [
            {
                "data": {"values": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]},
                "mark": {"type": "line", "color": _CURRENT, "opacity": 0.4, "strokeDash": [4, 4]},
                "encoding": {"x": {"field": "x", "type": "quantitative"},
                             "y": {"field": "y", "type": "quantitative"}},
            },
            {
                "data": {"values": values},
                "transform": [{"filter": "isValid(datum.low)"}],
                "mark": {"type": "rule", "strokeWidth": 1.5},
                "encoding": {"x": x, "color": colour,
                             "y": {"field": "low", "type": "quantitative",
                                   "scale": {"domain": [0, 1]},
                                   "title": "share of pairs where gold says a"},
                             "y2": {"field": "high"}},
            },
            {
                "data": {"values": values},
                "mark": {"type": "point", "filled": True, "opacity": 1},
                "encoding": {"x": x, "color": colour,
                             "y": {"field": "seen", "type": "quantitative"},
                             "size": {"field": "pairs", "type": "quantitative", "legend": None,
                                      "scale": {"range": [20, 220]}},
                             "tooltip": [{"field": key, "type": "quantitative", "format": ".3~f"}
                                         for key in ("said", "seen", "low", "high")]
                             + [{"field": "pairs", "type": "quantitative", "format": ",d"}]},
            },
        ],
    }  # fmt: skip


def _lengths(lengths: list[dict[str, Any]]) -> Chart:
    names = [BAND_NAMES[row["longer_by"]] for row in lengths]
    values = [{**row, "band": name} for row, name in zip(lengths, names, strict=True)]
    return {
        "description": "Mean preference for the longer response, by how much longer it is",
        "width": "container",
        "height": 180,
        "data": {"values": values},
        "layer": [
            {
                "mark": {"type": "bar", "color": BLUE},
                "encoding": {
                    "x": {"field": "band", "type": "nominal", "sort": names,
                          "axis": {"labelAngle": 0}, "title": "longer by (characters)"},
                    "y": {"field": "prefers_longer", "type": "quantitative",
                          "scale": {"domain": [0, 1]}, "title": "preference for the longer"},
                    "tooltip": [{"field": "band"},
                                {"field": "prefers_longer", "type": "quantitative",
                                 "format": ".3f"},
                                {"field": "pairs", "type": "quantitative", "format": ",d"}],
                },
            },
            {"mark": {"type": "rule", "color": _CURRENT, "strokeDash": [4, 4]},
             "encoding": {"y": {"datum": 0.5}}},
        ],
    }  # fmt: skip


def _rates(rates: list[dict[str, Any]]) -> Chart:
    values = [
        {"time": 1000 * row["start"], "rate": row["prompts"] / row["seconds"],
         "tokens": row["tokens"] / row["seconds"]}
        for row in rates
    ]  # fmt: skip
    return {
        "description": "Prompts per second over the time of the run",
        "width": "container",
        "height": 160,
        "data": {"values": values},
        "mark": {"type": "area", "color": BLUE, "opacity": 0.7, "interpolate": "step"},
        "encoding": {
            "x": {"field": "time", "type": "temporal", "title": None},
            "y": {"field": "rate", "type": "quantitative", "title": "prompts/s"},
            "tooltip": [{"field": "time", "type": "temporal", "format": "%H:%M:%S"},
                        {"field": "rate", "type": "quantitative", "format": ",.1f"},
                        {"field": "tokens", "type": "quantitative", "format": ",.0f"}],
        },
    }  # fmt: skip


def _tokens(work: dict[str, Any]) -> Chart:
    names = {
        "logical_tokens": "in all prompts",
        "unique_tokens": "after removing duplicates",
        "computed_tokens": "computed",
    }
    values = [{"what": name, "tokens": work[key]} for key, name in names.items()]
    return {
        "description": "Tokens of all prompts, of unique ones, and computed",
        "width": "container",
        "height": {"step": 26},
        "data": {"values": values},
        "mark": {"type": "bar", "color": BLUE},
        "encoding": {
            "y": {"field": "what", "type": "nominal", "sort": None, "title": None},
            "x": {"field": "tokens", "type": "quantitative", "axis": {"format": "~s"},
                  "title": "prompt tokens"},
            "tooltip": [{"field": "what"},
                        {"field": "tokens", "type": "quantitative", "format": ",d"}],
        },
    }  # fmt: skip
