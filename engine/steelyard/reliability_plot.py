"""The reliability diagram as SVG or PNG, drawn with matplotlib (extra `plot`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steelyard.errors import EnvironmentFault, UsageError, escape
from steelyard.metrics.report import Bin
from steelyard.store.files import TEMPORARY, publish, writing

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


def _draw(axes: Any, name: str, bins: Sequence[Bin]) -> None:  # noqa: ANN401 - no types
    most = max((one.pairs for one in bins), default=1)
    said = [one.said for one in bins]
    seen = [one.seen or 0.0 for one in bins]
    below = [max(0.0, at - _or(one.low, at)) for at, one in zip(seen, bins, strict=True)]
    above = [max(0.0, _or(one.high, at) - at) for at, one in zip(seen, bins, strict=True)]
    axes.errorbar(said, seen, yerr=[below, above], linewidth=1, capsize=2, label=name)
    axes.scatter(said, seen, s=[4 + 60 * one.pairs / most for one in bins])


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
