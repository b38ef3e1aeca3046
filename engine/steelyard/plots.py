"""Drawings as SVG and PNG; the only file that imports matplotlib (the extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from steelyard.errors import EnvironmentFault, UsageError

ROW = 0.28  # inches a competitor
MOST = 60  # competitors that can be read in a drawing


def figure(width: float, height: float) -> tuple[Any, Any]:
    """An empty figure and its axes, without a screen.

    Raises:
        EnvironmentFault: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentFault(
            "drawing needs matplotlib, which is not installed",
            effect="nothing was drawn",
            remedy="pip install 'steelyard[plot]'",
        ) from error
    mpl.rcParams["svg.hashsalt"] = "steelyard"  # the same drawing is the same file
    drawn = Figure(figsize=(width, height), layout="constrained")
    return drawn, drawn.subplots()


def save(drawn: Any, folder: Path, name: str) -> list[Path]:  # noqa: ANN401 - matplotlib's
    """Write a figure as SVG and PNG.

    Raises:
        UsageError: the folder is a file, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}.{kind}" for kind in ("svg", "png")]
        drawn.savefig(paths[0], metadata={"Date": None})
        drawn.savefig(paths[1], dpi=150)
    except OSError as error:
        raise UsageError(
            f"drawings cannot be written: {error.strerror}",
            place=str(folder),
            remedy="name a folder with --plot",
        ) from None
    return paths


def plot_rank(content: dict[str, Any], folder: Path) -> list[Path]:
    """Ratings with their intervals, and the win matrix, of `reports.rank`; the best 60."""
    return [*plot_ratings(content, folder), *plot_win_matrix(content, folder)]


def plot_ratings(content: dict[str, Any], folder: Path) -> list[Path]:
    """`ratings.svg` and `ratings.png`: a line for each competitor, the best on top."""
    ranking = content["ranking"][:MOST]
    drawn, axes = figure(8, 1.2 + ROW * len(ranking))
    places = np.arange(len(ranking))
    rating = np.array([row["rating"] for row in ranking])
    sure = [at for at, row in enumerate(ranking) if row.get("lower") is not None]
    low, high = ([ranking[at][side] for at in sure] for side in ("lower", "upper"))
    axes.hlines(sure, low, high, color="0.6", linewidth=2)
    axes.plot(rating, places, "o", color="black", markersize=4)
    axes.set_yticks(places, [row["competitor"] for row in ranking])
    axes.invert_yaxis()
    axes.set_xlabel(f"{content['method']} rating")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    return save(drawn, folder, "ratings")


def plot_win_matrix(content: dict[str, Any], folder: Path) -> list[Path]:
    """`win_matrix.svg` and `.png`: share of points of the row against the column."""
    names = content["win_matrix"]["competitors"][:MOST]
    share = np.array(content["win_matrix"]["share"], dtype=np.float64)[:MOST, :MOST]
    side = 2.5 + ROW * len(names)
    drawn, axes = figure(side + 1, side)
    image = axes.imshow(share, cmap="RdBu", vmin=0, vmax=1)
    places = np.arange(len(names))
    axes.set_xticks(places, names, rotation=90)
    axes.set_yticks(places, names)
    axes.set_facecolor("0.95")
    if len(names) <= 20:
        for i, j in zip(*np.nonzero(np.isfinite(share)), strict=True):
            axes.text(j, i, f"{share[i, j]:.2f}", ha="center", va="center", fontsize=7)
    drawn.colorbar(image, ax=axes, shrink=0.8, label="points of the row against the column")
    return save(drawn, folder, "win_matrix")
