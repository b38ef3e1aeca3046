"""Drawings: titles, axes, whole names, and pairs that never met."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from matplotlib.image import imread

from steelyard.cli import plots

LONG = [
    f"a competitor with a name of sixty characters, number {i:02d} {'y' * 9}"[:60]
    for i in range(50)
]
NAMES = {"long": LONG, "wide": ["通义千问" * 15, "a$b$c", "x"], "two": ["x", "y"]}


def content(names, share=None, **more):
    size = len(names)
    shares = np.full((size, size), 0.6) if share is None else np.array(share, float)
    return {
        "method": "bradley-terry", "intervals": "cluster", "clusters_by": "prompt",
        "ranking": [
            {"rank": i + 1, "competitor": name, "rating": 1100.0 - i, "lower": 1090.0 - i,
             "upper": 1110.0 - i} for i, name in enumerate(names)
        ],
        "win_matrix": {"competitors": names, "share": shares.tolist()},
        **more,
    }  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_names_titles_and_axes_are_whole(tmp_path, kind):
    names = NAMES[kind]
    plots.plot_rank(content(names), tmp_path)
    for name in ("ratings", "win_matrix"):
        svg = (tmp_path / f"{name}.svg").read_text("utf-8")
        assert all(f">{shown}<" in svg for shown in names)
        picture = imread(tmp_path / f"{name}.png")[:, :, :3]
        edges = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
        assert all((edge == 1).all() for edge in edges)  # nothing reaches the border
        assert "competitor, the best first" in svg
    assert ">rating in points: 400 more are odds of 10 to 1<" in (
        tmp_path / "ratings.svg"
    ).read_text("utf-8")
    assert ">Ratings: bradley-terry, bars: 95% over prompt<" in (
        tmp_path / "ratings.svg"
    ).read_text("utf-8")
    assert ">win rate of the row, 0 to 1<" in svg


def test_a_name_beyond_all_measure_is_shortened():
    shown = plots._label("x" * 100 + "y" * 1000)
    assert len(shown) == 120 + 3
    assert shown.startswith("x" * 80)
    assert shown.endswith("y" * 40)


def test_who_never_met_does_not_look_equal(tmp_path):
    """Cells of 0.5 are nearly white; hatched ones have lines in them, and a legend."""
    names = ["x", "y", "z"]
    share = [[np.nan, 0.5, np.nan], [0.5, np.nan, 0.5], [np.nan, 0.5, np.nan]]
    figure = plots._win_matrix_figure(content(names, share))
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["never met"]
    figure.savefig(tmp_path / "x.png", dpi=100)  # the frame alone: three cells in each direction
    picture = imread(tmp_path / "x.png")[:, :, 0]
    side = len(picture) // 3
    met = picture[side // 8 : side // 4, side + side // 8 : 2 * side - side // 8]
    never = picture[side // 8 : side // 4, 2 * side + side // 8 : 3 * side - side // 8]
    assert met.min() > 0.9
    assert np.ptp(met) < 0.02
    assert np.ptp(never) > 0.2
    whole = plots._win_matrix_figure(content(["x", "y"], [[np.nan, 0.4], [0.6, np.nan]]))
    assert whole.axes[0].get_legend() is None


@pytest.mark.parametrize(
    ("method", "more", "label"),
    [("elo", {}, "rating in points"), ("pagerank", {}, "pagerank score, without a unit")],
)
def test_scores_have_their_own_units(method, more, label):
    plain = content(["x", "y"], method=method, **more)
    del plain["intervals"]
    for row in plain["ranking"]:
        if method != "elo":
            del row["lower"], row["upper"]
    (axes,) = plots._ratings_figure(plain).axes
    assert axes.get_xlabel().startswith(label)
    ends = "bars: 95% over random orders" if method == "elo" else "no intervals"
    assert axes.get_title() == f"Ratings: {method}, {ends}"


def test_more_than_sixty_say_how_many_are_left_out():
    many = content([f"m{i:02d}" for i in range(61)])
    assert (
        "Ratings of the best 60 of 61 competitors"
        in plots._ratings_figure(many).axes[0].get_title()
    )
