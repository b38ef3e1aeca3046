"""Plots as SVG and PNG; the only module that imports matplotlib (the extra `plot`)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.errors import EnvironmentFault, UsageError, printable
from steelyard.evaluation.evaluate import Assessment
from steelyard.evaluation.metrics.bootstrap import Bin
from steelyard.store.durable import TEMPORARY, publish, writing

ROW = 0.28  # inches per competitor
MOST = 60  # competitors that can be read in a plot
NUMBERED = 20  # competitors whose win rates are also written as numbers
LONGEST = 120  # characters of a name
# Fonts of Chinese, Japanese and Korean characters, if this machine has any of them.
FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "IPAexGothic", "PingFang SC", "Microsoft YaHei"),
)
KINDS = (".svg", ".png")
# The same plot is the same file, and texts in it stay texts.
STYLE = {"svg.hashsalt": "steelyard", "svg.fonttype": "none"}


def require_matplotlib() -> None:
    """Raise EnvironmentFault if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise EnvironmentFault(
            "plots need matplotlib, which is not installed",
            effect="nothing was computed",
            remedy="pip install 'steelyard[plot]', or leave the plot out",
        ) from None


def check_folder(folder: Path) -> None:
    """Make the folder for plots, before the work; raise UsageError where that is impossible."""
    require_matplotlib()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"plots cannot be written here: {error.strerror}",
            place=str(folder),
            remedy="name another folder with --plot",
        ) from None


def check_diagram(path: Path) -> None:
    """Check, before the work, that a diagram can be written to a file; else raise UsageError."""
    problem = ""
    if path.suffix not in KINDS:
        problem = f"a diagram is a {' or '.join(KINDS)} file"
    elif not path.parent.is_dir():
        problem = "the folder for the diagram does not exist"
    elif path.is_dir():
        problem = "the diagram cannot be written: this is a folder"
    if problem:
        remedy = "name another file with --diagram"
        raise UsageError(problem, place=str(path), remedy=remedy)
    require_matplotlib()


def plot_rank(content: dict[str, Any], folder: Path) -> None:
    """Write plots of `ranking.rank`'s ratings and win matrix, of the best 60 competitors."""
    figures = {"ratings": _ratings_figure(content), "win_matrix": _win_matrix_figure(content)}
    for name, figure in figures.items():
        for kind in KINDS:
            _write(figure, folder / (name + kind))


def plot_reliability(path: Path, assessment: Assessment) -> None:
    """Write a reliability diagram: gold's share for a over the mean preference of each bin.

    Bars are 95% intervals; the areas of the points are proportional to the numbers of pairs.
    """
    figure, axes = _new_figure(4, 4)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    _add_curve(axes, "raw", assessment.raw.bins)
    if assessment.calibrated:
        _add_curve(axes, "calibrated", assessment.calibrated.bins)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title("Reliability: the judge against gold, with 95% intervals", fontsize="medium")
    axes.set_xlabel("mean preference of the judge: P(a is better), 0 to 1")
    axes.set_ylabel("share of pairs where gold says a, 0 to 1")
    axes.legend(loc="upper left", frameon=False)
    _write(figure, path)


def _ratings_figure(content: dict[str, Any]) -> Any:
    """Draw one line per competitor, the best on top."""
    ranking, method = content["ranking"][:MOST], content["method"]
    figure, axes = _new_figure(6, 0.4 + ROW * len(ranking))
    lines = np.arange(len(ranking))
    bounded = [line for line in lines if ranking[line].get("lower") is not None]
    low, high = ([ranking[line][side] for line in bounded] for side in ("lower", "upper"))
    axes.hlines(bounded, low, high, color="0.6", linewidth=2)
    axes.plot([row["rating"] for row in ranking], lines, "o", color="black", markersize=4)
    axes.set_yticks(lines, [_label(row["competitor"]) for row in ranking])
    axes.set_ylim(len(ranking) - 0.5, -0.5)
    axes.set_ylabel("competitor, the best first")
    elo = method == "elo"
    if "intervals" in content or elo:
        axes.set_xlabel("rating in points: 400 more are odds of 10 to 1")
    else:
        axes.set_xlabel(f"{method} score, without a unit")
    over = f"over {content['clusters_by']}" if "intervals" in content else "over random orders"
    bars = f"bars: 95% {over}" if bounded else "no intervals"
    axes.set_title(f"Ratings{_best(content)}: {method}, {bars}", fontsize="medium")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    return figure


def _win_matrix_figure(content: dict[str, Any]) -> Any:
    """Draw the points of each row's competitor against each column's, as shares.

    Pairs that never met are hatched, so that they do not look like equals.
    """
    from matplotlib.patches import Patch, Rectangle

    matrix = content["win_matrix"]
    names = [_label(name) for name in matrix["competitors"][:MOST]]
    share = np.array(matrix["share"], dtype=np.float64)[:MOST, :MOST]
    side = max(2.4, ROW * len(names))
    figure, axes = _new_figure(side, side)
    image = axes.imshow(share, cmap="RdBu", vmin=0, vmax=1)
    ticks = np.arange(len(names))
    axes.set_xticks(ticks, names, rotation=90)
    axes.set_yticks(ticks, names)
    axes.set_xlabel("against competitor, the best first")
    axes.set_ylabel("competitor, the best first")
    axes.set_title(f"Win rates{_best(content)}", fontsize="medium")
    empty: dict[str, Any] = {
        "facecolor": "0.85",
        "edgecolor": "0.5",
        "hatch": "////",
        "linewidth": 0,
    }
    axes.patch.set(**empty)  # it shows where the image has nothing
    for i in ticks:
        axes.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, facecolor="0.65"))
    if np.isnan(share[~np.eye(len(names), dtype=np.bool_)]).any():
        met = Patch(label="never met", **empty)
        axes.legend(handles=[met], loc="upper right", bbox_to_anchor=(-0.1, -0.1), frameon=False)
    if len(names) <= NUMBERED:
        for i, j in zip(*np.nonzero(np.isfinite(share)), strict=True):
            color = "black" if 0.2 < share[i, j] < 0.8 else "white"
            text = f"{share[i, j]:.2f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=6, color=color)
    bar = axes.inset_axes([1 + 0.3 / side, 0, 0.15 / side, 1])
    figure.colorbar(image, cax=bar, label="win rate of the row, 0 to 1")
    return figure


def _best(content: dict[str, Any]) -> str:
    shown, total = min(MOST, len(content["ranking"])), len(content["ranking"])
    return f" of the best {shown} of {total} competitors" if shown < total else ""


def _label(name: str) -> str:
    """Return a name as it is drawn: on one line, in full up to LONGEST characters."""
    shown = printable(name, keep="")
    if len(shown) <= LONGEST:
        return shown
    return f"{shown[: LONGEST * 2 // 3]} … {shown[-LONGEST // 3 :]}"


def _add_curve(axes: Any, name: str, bins: Sequence[Bin]) -> None:
    filled = [entry for entry in bins if entry.pairs]
    most = max((entry.pairs for entry in filled), default=1)
    said = [entry.said for entry in filled]
    seen = np.array([entry.seen or 0.0 for entry in filled])
    low, high = (
        np.array([getattr(entry, side) for entry in filled], dtype=np.float64)
        for side in ("low", "high")
    )
    # Where there is no interval, the bar has no length.
    bars = np.nan_to_num(np.maximum(0, [seen - low, high - seen]))
    axes.errorbar(said, seen, yerr=bars, linewidth=1, capsize=2, label=name)
    axes.scatter(said, seen, s=[4 + 60 * entry.pairs / most for entry in filled])


def _new_figure(width: float, height: float) -> tuple[Any, Any]:
    """Return a figure and its axes, whose frame has this size in inches; no screen is needed.

    Labels lie outside of the frame: `_write` grows the figure by what they need.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.add_axes((0, 0, 1, 1))


def _write(figure: Any, path: Path) -> None:
    """Write a figure, whole or not at all; the same figure becomes the same bytes."""
    import matplotlib as mpl
    from matplotlib.font_manager import get_font_names
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name with two dollar signs is not a formula
    fonts = sorted(set(FONTS) & set(get_font_names()), key=FONTS.index)
    temporary = path.with_name(path.name + TEMPORARY)
    kind = path.suffix.removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    style = STYLE | {"font.family": ["DejaVu Sans", *fonts]}
    options = {"bbox_inches": "tight", "pad_inches": 0.1, "dpi": 150, "metadata": metadata}
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        with writing(path, "the plot was not written", "try again"):
            figure.savefig(temporary, format=kind, **options)
            publish(temporary, path)
