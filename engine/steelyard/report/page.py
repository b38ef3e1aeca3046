"""The page of a report: one HTML file with everything in it, which asks no network for anything."""

from __future__ import annotations

import json
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from steelyard.errors import EnvironmentFault
from steelyard.report.charts import charts
from steelyard.report.content import ReportOptions, gather
from steelyard.store.durable import check_out, write_text

ASSETS = files("steelyard.report") / "assets"
BEGINS = b"<!doctype html>"


def write_page(root: Path, out: Path, options: ReportOptions) -> None:
    """Write the page of a run; an earlier page is replaced.

    Raises:
        UsageError: something else has the name of the page, or it is not a run directory.
        EnvironmentFault: the library that draws is not installed, or the page cannot be written.
    """
    require_drawing()
    check_out(out, BEGINS, read=(options.gold,))
    write_text(out, render(gather(root, options)))


def render(content: dict[str, Any]) -> str:
    """Return the page of what `gather` returned; needs `require_drawing`."""
    environment = Environment(
        loader=FunctionLoader(read_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": _share, "count": _count, "number": _number}
    drawn = charts(content)
    return environment.get_template("report.html.j2").render(
        **content,
        drawn={name: chart["description"] for name, chart in drawn.items()},
        charts=_script_json(drawn),
        style=Markup(read_asset("report.css")),  # noqa: S704 - our own file
        script=Markup(read_asset("report.js")),  # noqa: S704 - our own file
        vega=Markup(vega()),  # noqa: S704 - a library
    )


def require_drawing() -> None:
    """Raise EnvironmentFault if the library that draws is not installed."""
    if find_spec("vl_convert") is None:
        raise EnvironmentFault(
            "reports need vl-convert-python, which is not installed",
            effect="no report was written",
            remedy="pip install 'steelyard[report]'",
        )


def read_asset(name: str) -> str:
    """Return a file of the pages."""
    return (ASSETS / name).read_text("utf-8")


def vega() -> str:
    """Return Vega and Vega-Lite as a script, which defines `vegaEmbed`."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script")


def _script_json(value: object) -> Markup:
    """Return JSON that cannot end a script element, whatever texts are in it."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - no markup is left in it


def _share(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}%"  # noqa: RUF001 - a dash


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"  # noqa: RUF001 - a dash


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"  # noqa: RUF001 - a dash
