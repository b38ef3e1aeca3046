"""Ratings: covariances by differences, intervals and warnings by hand, and every refusal."""

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from steelyard.errors import InputRefused, UsageError
from steelyard.ranking import bradley_terry
from steelyard.ranking.bradley_terry import MODELS, POINTS, RatingFailed, rate
from steelyard.ranking.tournament import tournament
from steelyard_kernels.resampling import Resampled
from support import rating_twins as twins
from support.rating_twins import comparisons as table

# Three competitors, soft outcomes with ties, three instructions of 3, 2 and 1 rows.
GAMES = [
    (0, 1, 0.8, 0.2, 1.0), (0, 1, 0.3, 0.1, 2.0), (1, 2, 0.6, 0.3, 1.0),
    (0, 2, 0.9, 0.1, 1.0), (1, 2, 0.4, 0.5, 0.5), (0, 2, 0.5, 0.4, 1.0),
]  # fmt: skip
CLUSTERS = [0, 0, 0, 1, 1, 2]
NAMES = np.array(["x", "y", "z"])


def contest(games=GAMES, clusters=CLUSTERS, *, ties=True):
    i, j, y, t, w = (np.array(column) for column in zip(*games, strict=True))
    columns = {"model_a": NAMES[i], "model_b": NAMES[j], "preference": y, "weight": w}
    if ties:
        columns["tie"] = t
    return tournament(pa.table(columns | {"instruction": pa.array(clusters, pa.uint64())}))


def naive_covariance(model, ratings, games, clusters):
    """CR2 by differences and decomposition, with x fixed: of y, z and the parameter for ties."""
    logs = (ratings.rating - ratings.rating[0]) / POINTS
    point = np.append(logs, math.log(ratings.ties) if ratings.ties else 0.0)
    size = 3 if ratings.ties else 2

    def value(free):
        return twins.value(model, games, np.concatenate([[0.0], free, point[size + 1 :]]))

    free = point[1 : size + 1]
    hessian = -twins.slope(lambda a: twins.slope(value, a, 1e-4), free, 1e-4)
    inverse = np.zeros((4, 4))
    inverse[1 : size + 1, 1 : size + 1] = np.linalg.inv(hessian)
    middle = twins.naive_corrected_products(model, games, clusters, point, inverse)
    return (inverse @ middle @ inverse)[1:3, 1:3] * POINTS**2


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("intervals", ["cluster", "rows"])
def test_covariances_equal_those_by_differences(model, intervals):
    result = rate(contest(), model=model, intervals=intervals, anchor="x")
    clusters = CLUSTERS if intervals == "cluster" else range(6)
    wanted = naive_covariance(MODELS[model], result, GAMES, list(clusters))
    covariance = result.spread.covariance
    assert np.allclose(covariance[1:, 1:], wanted, rtol=1e-3, atol=1e-2)
    assert not covariance[0].any()
    assert not covariance[:, 0].any()


@pytest.mark.parametrize("model", MODELS)
def test_two_clusters_have_large_leverages(model):
    clusters = [0, 0, 1, 1, 1, 0]
    result = rate(contest(clusters=clusters), model=model, anchor="x")
    wanted = naive_covariance(MODELS[model], result, GAMES, clusters)
    assert np.allclose(result.spread.covariance[1:, 1:], wanted, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("model", MODELS)
def test_one_cluster_has_no_spread(model):
    """All gradients are in one sum, which is 0 at the maximum."""
    result = rate(contest(clusters=[0] * 6), model=model)
    assert np.allclose(result.standard_error, 0, atol=1e-4)
    assert result.warnings == (
        "only 1 cluster: too few to estimate uncertainty; no interval is given",
    )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("times", [1e-6, 1e6, 1e9])
def test_the_scale_of_weights_is_of_no_account(model, times):
    heavy = [(i, j, y, t, w * times) for i, j, y, t, w in GAMES]
    plain, scaled = (rate(contest(games), model=model) for games in (GAMES, heavy))
    assert np.allclose(scaled.rating, plain.rating, rtol=1e-6)
    assert np.allclose(scaled.spread.covariance, plain.spread.covariance, rtol=1e-4)
    assert np.allclose(scaled.spread.degrees, plain.spread.degrees)


@pytest.mark.parametrize("anchor", [None, "x", "z"])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_intervals_are_students_around_the_rating(anchor, level):
    result = rate(contest(), anchor=anchor, level=level)
    fixed = {"x": 0, "z": 2}.get(anchor)
    degrees = result.spread.degrees
    own = np.diag(degrees) if fixed is None else degrees[:, fixed]
    width = stats.t.ppf((1 + level) / 2, own) * np.sqrt(np.diag(result.spread.covariance))
    assert np.allclose(result.upper - result.rating, width)
    assert np.allclose(result.rating - result.lower, width)
    assert np.allclose(result.standard_error, np.sqrt(np.diag(result.spread.covariance)))
    if anchor is None:
        assert result.rating.mean() == pytest.approx(1000)
        assert np.allclose(result.spread.covariance.sum(axis=0), 0, atol=1e-6)
    else:
        assert (result.rating[fixed], result.lower[fixed], result.upper[fixed]) == (1000,) * 3
        assert result.standard_error[fixed] == 0


def test_the_anchor_only_shifts():
    free, tied = rate(contest()), rate(contest(), anchor="y")
    assert np.allclose(free.rating - free.rating[1] + 1000, tied.rating)
    change = np.eye(3) - np.array([0.0, 1.0, 0.0])
    assert np.allclose(tied.spread.covariance, change @ free.spread.covariance @ change.T)


def test_half_a_win_to_both_is_a_tie_to_the_plain_model():
    plain, tied = rate(contest(ties=False)), rate(contest())
    assert np.allclose(plain.rating, tied.rating)
    assert np.allclose(plain.spread.covariance, tied.spread.covariance)
    assert tied.ties is None


def many(seed=0, instructions=60):
    draw = np.random.default_rng(seed)
    i = draw.integers(0, 2, 4 * instructions)
    j = i + 1
    y = draw.random(len(i))
    games = [(*row, 0.0, 1.0) for row in zip(i, j, y, strict=True)]
    return contest(games, np.repeat(np.arange(instructions), 4), ties=False)


def test_the_bootstrap_by_default():
    source = many()
    result = rate(source, intervals="bootstrap")
    same = rate(source, intervals="bootstrap", replicates=1000, seed=0)
    assert result.lower.tolist() == same.lower.tolist()
    assert result.standard_error.tolist() == same.standard_error.tolist()
    other = rate(source, intervals="bootstrap", replicates=1000, seed=1)
    assert result.lower.tolist() != other.lower.tolist()
    assert result.warnings == ()
    half = rate(source, intervals="bootstrap", level=0.5)
    assert (half.lower > result.lower).all()
    assert (half.upper < result.upper).all()
    assert (half.lower < half.rating).all()


def replicates(strengths, regularised, converged):
    return lambda *_, **__: Resampled(strengths, regularised, converged)


def test_percentiles_of_replicates_by_hand(monkeypatch):
    """Replicates whose log-strengths are known: x is ahead of y and z by 0, 1, ..., 100."""
    steps = np.arange(101.0)[np.random.default_rng(0).permutation(101)]
    drawn = np.stack([steps, 0 * steps, 0 * steps, 7 + 0 * steps], axis=1)
    never = np.zeros(101, bool)
    monkeypatch.setattr(
        bradley_terry,
        "resampled_strengths",
        replicates(drawn, never, ~never),
    )
    result = rate(contest(), intervals="bootstrap", replicates=101, level=0.9, anchor="y")
    assert result.lower.tolist() == pytest.approx([1000 + POINTS * 5, 1000, 1000])
    assert result.upper.tolist() == pytest.approx([1000 + POINTS * 95, 1000, 1000])
    assert np.allclose(result.standard_error, [POINTS * np.std(steps, ddof=1), 0, 0])
    assert "replicates" not in " ".join(result.warnings)


@pytest.mark.parametrize(("loose", "failed"), [(0, 0), (1, 0), (3, 0), (0, 1), (2, 4)])
def test_replicates_that_need_a_prior_or_fail_are_counted(monkeypatch, loose, failed):
    order = np.arange(10)
    monkeypatch.setattr(
        bradley_terry,
        "resampled_strengths",
        replicates(np.zeros((10, 4)), order < loose, order >= failed),
    )
    if failed:
        with pytest.raises(RatingFailed, match=f"{failed} of 10 replicates have no finite"):
            rate(many(), intervals="bootstrap", replicates=10)
        return
    warnings = rate(many(), intervals="bootstrap", replicates=10).warnings
    if loose:
        (warning,) = warnings
        assert warning.startswith(f"{loose} of 10 replicates had a competitor that won or lost all")
        assert warning.endswith("got the tie with an average one")
    else:
        assert warnings == ()


@pytest.mark.parametrize("converged", [True, False])
@pytest.mark.parametrize("where", ["none", "one", "all"])
def test_what_has_no_maximum_is_refused(monkeypatch, converged, where):
    estimate = np.zeros(4)
    estimate[{"none": [], "one": [1], "all": slice(None)}[where]] = np.inf
    monkeypatch.setattr(
        bradley_terry, "solve", lambda *_: bradley_terry.Fit(estimate, np.eye(4), converged)
    )
    if converged and where == "none":
        assert rate(many()).rating.tolist() == [1000] * 3
    else:
        with pytest.raises(RatingFailed, match="bradley-terry model has no finite maximum"):
            rate(many())


def test_warnings_go_by_what_is_independent():
    few = contest()
    (warning,) = rate(few).warnings
    assert warning.startswith("only 3 clusters")
    assert rate(few, intervals="rows").warnings == ()
    assert rate(few, intervals="bootstrap", replicates=20).warnings[0] == warning
    assert rate(many()).warnings == ()
    # Student's t holds with ten; percentiles of refits to ten are too narrow.
    some = many(instructions=10)
    assert rate(some).warnings == ()
    (warning,) = rate(some, intervals="bootstrap", replicates=20).warnings
    assert warning.startswith("only 10 clusters: the intervals are too narrow")


@pytest.mark.parametrize("parts", [1, 2])
def test_degrees_of_freedom_of_a_small_design(parts):
    """All are equal, so that each comparison has the same information: x 4, y 6, z 2 of it.

    x met y in four instructions, y met z in two others. An estimate's own degrees are one less than
    its instructions. Shares of information give overlaps of xx 1/4, yy 1/6, zz 1/2, xy and yz 1/6,
    xz 0, so odds of 1/3, 1/5, 1, 1/5, 1/5, 0; variances are as 1/4, 1/6, 1/2.
    """
    games = [(0, 1, 0.5, 0.0, 1 / parts)] * 4 * parts + [(1, 2, 0.5, 0.0, 1.0)] * 2
    clusters = [*np.repeat(np.arange(4), parts).tolist(), 4, 5]
    degrees = rate(contest(games, clusters, ties=False)).spread.degrees
    x, y, z = 1 / 4, 1 / 6, 1 / 2
    own = {"x": x * x / 3, "y": y * y / 5, "z": z * z}
    wanted = [
        [
            3,
            (x + y) ** 2 / (own["x"] + own["y"] + 2 * x * y / 5),
            (x + z) ** 2 / (own["x"] + own["z"]),
        ],
        [0, 5, (y + z) ** 2 / (own["y"] + own["z"] + 2 * y * z / 5)],
        [0, 0, 1],
    ]
    assert np.triu(degrees).tolist() == [pytest.approx(row) for row in wanted]
    assert degrees.T.tolist() == [pytest.approx(row) for row in degrees.tolist()]


@pytest.mark.parametrize("model", ["davidson", "rao-kupper"])
@pytest.mark.parametrize(
    ("rows", "ties", "cause"),
    [
        ([0.9, 0.2], None, "needs both wins and ties"),
        ([0.9, 0.2], [0.0, 0.0], "needs both wins and ties"),
        ([0.5, 0.5], [1.0, 1.0], "every comparison is a tie"),
        ([0.5, 0.9], [1.0, 0.0], None),
        ([0.9, 0.2], [0.2, 0.4], None),
        ([0.9, 0.9], [0.3, 0.5], "larger than preferences allow"),  # 0.4 > 0.2
        ([0.2, 0.2], [0.5, 0.5], "larger than preferences allow"),  # 0.5 > 0.4
        ([0.8, 0.8], [0.5, 0.5], "larger than preferences allow"),
    ],
)
def test_ties_have_to_fit_preferences(model, rows, ties, cause):
    columns = {} if ties is None else {"tie": ties}
    source = tournament(table([("x", "y", y) for y in rows], **columns))
    if cause is None:
        assert rate(source, model=model).ties is not None
        return
    with pytest.raises((UsageError, InputRefused), match=cause):
        rate(source, model=model)
    rate(source)  # the plain model takes all of them


def test_one_pair_whose_ties_do_not_fit_is_enough():
    rows = [("x", "y", 0.5), ("y", "z", 0.9)]
    with pytest.raises(InputRefused, match="larger than preferences allow"):
        rate(tournament(table(rows, tie=[0.2, 0.6])), model="davidson")


def test_ties_that_fit_exactly_and_up_to_rounding():
    """All that y has against x are halves of ties; 1000 - 1000 x 0.7 is not quite 1000 x 0.3."""
    others = [("y", "z", 0.6), ("z", "x", 0.6)]
    for y, t, times in ((0.25, 0.5, 1), (0.75, 0.5, 1), (0.7, 0.6, 1000), (0.3, 0.6, 1000)):
        rows, ties = [("x", "y", y)] * times + others, [t] * times + [0.2, 0.2]
        assert rate(tournament(table(rows, tie=ties)), model="davidson").ties > 0


def test_a_prior_keeps_ratings_finite_and_says_so():
    """x won twice: with a tie to an average competitor each, p = e^x / (1 + e^x) solves
    2 (1 - P) + (1/2 - p) = 0 with P = e^2x / (1 + e^2x); y is its mirror image."""
    result = rate(tournament(table([("x", "y", 1)] * 2)))
    x = (result.rating[0] - 1000) / POINTS
    assert 2 / (1 + math.exp(2 * x)) + 0.5 - 1 / (1 + math.exp(-x)) == pytest.approx(0, abs=1e-9)
    assert result.rating.mean() == pytest.approx(1000)
    assert result.warnings[-2:] == (
        "all competitors got a tie with an average one, to keep ratings finite",
        "only 2 clusters: too few to estimate uncertainty; no interval is given",
    )


def test_covariances_with_a_prior_are_about_the_mean():
    rows = [("king", "x", 1), ("king", "y", 1), ("x", "y", 1), ("y", "x", 1), ("x", "y", 0.3)]
    result = rate(tournament(table(rows * 10)))
    assert np.allclose(result.spread.covariance.sum(axis=0), 0, atol=1e-6)
    assert (result.standard_error > 1).all()


def test_an_anchor_has_to_compete():
    with pytest.raises(UsageError, match="there is no competitor X"):
        rate(contest(), anchor="X")


def test_the_names_and_the_scale():
    assert pytest.approx(400 / math.log(10)) == POINTS
    result = rate(tournament(table([("y", "x", 10 / 11)] * 30)))
    assert result.competitors == ("x", "y")
    assert result.rating.tolist() == pytest.approx([800, 1200])  # odds of 10 to 1
