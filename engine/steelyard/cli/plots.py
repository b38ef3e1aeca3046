"""Plots as SVG and PNG; the only module that imports matplotlib (the extra `plot`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.errors import EnvironmentFault, UsageError
from steelyard.evaluation.evaluate import Assessment
from steelyard.evaluation.metrics.bootstrap import Bin
from steelyard.store.durable import TEMPORARY, publish, writing

ROW = 0.28  # inches per competitor
MOST = 60  # competitors that can be read in a plot
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
    matrix = _win_matrix_figure(content["win_matrix"])
    for name, figure in (("ratings", _ratings_figure(content)), ("win_matrix", matrix)):
        for kind in KINDS:
            _write(figure, folder / (name + kind))


def plot_reliability(path: Path, assessment: Assessment) -> None:
    """Write a reliability diagram: gold's share for a over the mean preference of each bin.

    Bars are 95% intervals; the areas of the points are proportional to the numbers of pairs.
    """
    figure, axes = _new_figure(5, 5)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    _add_curve(axes, "raw", assessment.raw.bins)
    if assessment.calibrated:
        _add_curve(axes, "calibrated", assessment.calibrated.bins)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("mean preference of the judge: P(a is better)")
    axes.set_ylabel("share of pairs where gold says a")
    axes.legend(loc="upper left", frameon=False)
    _write(figure, path)


def _ratings_figure(content: dict[str, Any]) -> Any:
    """Draw one line per competitor, the best on top."""
    ranking = content["ranking"][:MOST]
    figure, axes = _new_figure(8, 1.2 + ROW * len(ranking))
    lines = np.arange(len(ranking))
    bounded = [line for line in lines if ranking[line].get("lower") is not None]
    low, high = ([ranking[line][side] for line in bounded] for side in ("lower", "upper"))
    axes.hlines(bounded, low, high, color="0.6", linewidth=2)
    axes.plot([row["rating"] for row in ranking], lines, "o", color="black", markersize=4)
    axes.set_yticks(lines, [row["competitor"] for row in ranking])
    axes.invert_yaxis()
    axes.set_xlabel(f"{content['method']} rating")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    return figure


def _win_matrix_figure(matrix: dict[str, Any]) -> Any:
    """Draw the points of each row's competitor against each column's, as shares."""
    names = matrix["competitors"][:MOST]
    share = np.array(matrix["share"], dtype=np.float64)[:MOST, :MOST]
    side = 2.5 + ROW * len(names)
    figure, axes = _new_figure(side + 1, side)
    image = axes.imshow(share, cmap="RdBu", vmin=0, vmax=1)
    ticks = np.arange(len(names))
    axes.set_xticks(ticks, names, rotation=90)
    axes.set_yticks(ticks, names)
    axes.set_facecolor("0.95")
    if len(names) <= 20:
        for i, j in zip(*np.nonzero(np.isfinite(share)), strict=True):
            axes.text(j, i, f"{share[i, j]:.2f}", ha="center", va="center", fontsize=7)
    figure.colorbar(image, ax=axes, shrink=0.8, label="win rate of the row against the column")
    return figure


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
    """Return an empty figure, in inches, and its axes; no screen is needed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _write(figure: Any, path: Path) -> None:
    """Write a figure, whole or not at all; the same figure becomes the same bytes."""
    import matplotlib as mpl

    temporary = path.with_name(path.name + TEMPORARY)
    kind = path.suffix.removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(STYLE), writing(path, "the plot was not written", "try again"):
        figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)
        publish(temporary, path)
