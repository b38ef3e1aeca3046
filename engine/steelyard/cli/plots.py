"""Drawings as SVG and PNG; the only file that imports matplotlib (the extra `plot`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.errors import EnvironmentFault, UsageError, escape
from steelyard.evaluation.metrics.bootstrap import Bin
from steelyard.store.durable import TEMPORARY, publish, writing

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


def save(drawn: Any, folder: Path, name: str) -> list[Path]:
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


KINDS = (".svg", ".png")


def check_place(path: Path) -> None:
    """See that a diagram can be written, before the work.

    Raises:
        UsageError: the name is none of a picture, or something is in its way.
        EnvironmentFault: matplotlib is missing.
    """
    if path.suffix not in KINDS:
        raise UsageError(
            f"a diagram cannot be {escape(path.name)}", remedy="name a file ending in .svg or .png"
        )
    if not path.parent.is_dir() or path.is_dir():
        problem = "it is a folder" if path.is_dir() else "its folder does not exist"
        raise UsageError(
            f"the diagram cannot be written: {problem}",
            place=str(path),
            effect="nothing was computed",
            remedy="name a file in a folder that exists with --diagram",
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise EnvironmentFault(
            "matplotlib is not installed",
            effect="no diagram can be written; the text diagram needs nothing",
            remedy="pip install 'steelyard[plot]'",
        ) from None


def plot_reliability(path: Path, curves: Mapping[str, Sequence[Bin]]) -> None:
    """Draw one curve a name: gold's share for a over the mean preference of a bin.

    Bars are 95% intervals, the areas of the points the numbers of pairs. The file is the same for
    the same input.

    Args:
        path: .svg or .png.
        curves: name -> bins; empty bins are left out.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "steelyard", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5, 5), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
        for name, bins in curves.items():
            _draw(axes, name, [one for one in bins if one.pairs])
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_xlabel("preference: P(a is better), said")
        axes.set_ylabel("share of pairs where gold says a, seen")
        axes.legend(loc="upper left", frameon=False)
        temporary = path.with_name(path.name + TEMPORARY)
        kind = path.suffix.removeprefix(".")
        with writing(path):
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)
            publish(temporary, path)


def _draw(axes: Any, name: str, bins: Sequence[Bin]) -> None:
    most = max((one.pairs for one in bins), default=1)
    said = [one.said for one in bins]
    seen = [one.seen or 0.0 for one in bins]
    below = [max(0.0, at - _or(one.low, at)) for at, one in zip(seen, bins, strict=True)]
    above = [max(0.0, _or(one.high, at) - at) for at, one in zip(seen, bins, strict=True)]
    axes.errorbar(said, seen, yerr=[below, above], linewidth=1, capsize=2, label=name)
    axes.scatter(said, seen, s=[4 + 60 * one.pairs / most for one in bins])


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
