"""Bradley-Terry ratings, also with Davidson's or Rao and Kupper's ties, with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from steelyard.core.schemas import Float64
from steelyard.errors import InputRefused, SteelyardError, UsageError
from steelyard.ranking.connectivity import connectivity_warnings
from steelyard.ranking.tournament import NOTHING, Tournament, position_of
from steelyard.statistics.clusters import MIN_FOR_INTERVAL, MIN_FOR_NORMAL, cluster_warning
from steelyard.statistics.intervals import t_quantile
from steelyard.statistics.small_clusters import degrees_of_freedom
from steelyard_kernels import links
from steelyard_kernels.bradley_terry import Fit, solve
from steelyard_kernels.comparisons import pairs_of
from steelyard_kernels.groups import group
from steelyard_kernels.resampling import resampled_strengths
from steelyard_kernels.sandwich import cluster_products, pair_curves

POINTS = 400 / math.log(10)  # of the Elo scale per unit of log-strength: 400 are odds of 10 to 1
CENTRE = 1000.0
MODELS = {
    "bradley-terry": links.BRADLEY_TERRY,
    "davidson": links.DAVIDSON,
    "rao-kupper": links.RAO_KUPPER,
}
INTERVALS = ("cluster", "rows", "bootstrap")


class RatingFailed(SteelyardError):
    """The likelihood has no maximum that could be reached."""

    code = "rating"


@dataclass(frozen=True, slots=True)
class Estimate:
    """The maximum of a likelihood over the comparisons."""

    kind: int  # of model: one of MODELS' values
    fit: Fit
    prior: Float64  # [K] weight of each competitor's tie with an average one; mostly 0


@dataclass(frozen=True, slots=True)
class Ratings:
    """Ratings of K competitors on the Elo scale."""

    competitors: tuple[str, ...]
    rating: Float64  # [K]
    lower: Float64  # [K] bounds of the interval
    upper: Float64  # [K]
    standard_error: Float64  # [K]
    spread: Spread
    ties: float | None  # Davidson's nu or Rao and Kupper's theta
    warnings: tuple[str, ...]
    estimate: Estimate | None = None  # of the likelihood, where a single one was fitted


@dataclass(frozen=True, slots=True)
class Spread:
    """How far ratings are from the truth, of which only differences are known."""

    covariance: Float64  # [K, K] of ratings about their mean, or about the anchor
    degrees: Float64  # [K, K] of freedom of each difference's variance; each rating's: diagonal
    joint: Float64  # [K, K] covariance that the model itself has, if comparisons are independent


def rate(
    contest: Tournament,
    *,
    model: str = "bradley-terry",
    intervals: str = "cluster",
    replicates: int = 1000,
    level: float = 0.95,
    anchor: str | None = None,
    seed: int = 0,
) -> Ratings:
    """Fit a model, and compute the intervals of its ratings.

    Args:
        contest: the comparisons.
        model: one of MODELS. The plain model counts a tie as half a win to both.
        intervals: one of INTERVALS: Student's t with the corrected sandwich over clusters or over
            rows, or the percentiles of refits to resampled clusters. The spread of differences is
            the sandwich in any case.
        replicates: of the bootstrap.
        level: of the intervals, inside (0, 1).
        anchor: the competitor whose rating is 1000, without an interval; None: the mean is 1000.
        seed: of the bootstrap.

    Returns:
        Ratings. If some competitor never lost or never won a point to the others, all get a tie
        with an imaginary average competitor, and a warning names them; `rank` gives no interval
        that only this tie bounds.

    Raises:
        UsageError: there is no such anchor, or a model for ties and no ties.
        RatingFailed: Newton's method reached no maximum.
    """
    position = None if anchor is None else position_of(contest, anchor, "--anchor")
    estimate, more = _estimate(contest, model)
    fitted = estimate.fit
    few = contest.clusters < (MIN_FOR_NORMAL if intervals == "bootstrap" else MIN_FOR_INTERVAL)
    if intervals != "rows" and few:
        more = (*more, cluster_warning(contest.clusters) or "")
    if model == "bradley-terry":  # its gradients take ties as halves
        contest = replace(contest, rows=contest.rows._replace(tie=NOTHING))
    rating = _anchored(fitted.estimate[None, :-1], position)[0]
    spread = _spread(contest, MODELS[model], fitted, clustered=intervals != "rows")
    spread = replace(spread, covariance=_anchored_covariance(spread.covariance, position))
    if intervals == "bootstrap":
        draws, some = _bootstrap(contest, MODELS[model], fitted, replicates, seed)
        draws, more = _anchored(draws, position), (*more, *some)
        lower, upper = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        error = np.asarray(draws.std(axis=0, ddof=1), dtype=np.float64)
    else:
        error = np.sqrt(np.maximum(np.diag(spread.covariance), 0))
        degrees = np.diag(spread.degrees) if position is None else spread.degrees[position]
        with np.errstate(invalid="ignore"):  # no degree of freedom, and no spread at all
            wide = t_quantile(level, degrees) * error
        lower, upper = rating - wide, rating + wide
    ties = None if model == "bradley-terry" else math.exp(fitted.estimate[-1])
    return Ratings(contest.competitors, rating, lower, upper, error, spread, ties, more, estimate)


def _estimate(contest: Tournament, model: str) -> tuple[Estimate, tuple[str, ...]]:
    """Return the estimate, and warnings if it needed a prior."""
    pairs = pairs_of(contest.sums(), contest.size)
    _check_ties(contest, model, pairs.sums)
    warnings = tuple(connectivity_warnings(contest))
    if warnings:
        warnings += ("all competitors got a tie with an average one, to keep ratings finite",)
    prior = np.full(contest.size, float(bool(warnings)))
    fitted = solve(MODELS[model], pairs, prior, np.append(np.zeros(contest.size), 0.5))
    if not fitted.converged or not np.isfinite(fitted.estimate).all():
        plain = MODELS[model] == links.BRADLEY_TERRY
        raise RatingFailed(
            f"the {model} model has no finite maximum on these comparisons",
            remedy="weights may be too far apart to compute with: scale them, or --map weight="
            if plain
            else "use the model bradley-terry, which counts a tie as half a win",
        )
    return Estimate(MODELS[model], fitted, prior), warnings


def _check_ties(contest: Tournament, model: str, sums: Float64) -> None:
    if model == "bradley-terry":
        return
    if len(contest.rows.tie) and sums[:, 2].sum() >= sums[:, 0].sum():
        raise UsageError(
            f"every comparison is a tie, from which the {model} model learns nothing",
            remedy="use bradley-terry, which rates them all equal, or add comparisons with wins",
        )
    if not len(contest.rows.tie) or not 0 < sums[:, 2].sum() < sums[:, 0].sum():
        raise UsageError(
            f"the {model} model needs both wins and ties, and the source has only one kind",
            remedy="use bradley-terry, a source whose winner can be tie, or --map tie=COLUMN",
        )
    n, score, ties = sums.T
    inside = ties / 2 <= np.minimum(score, n - score) + 1e-9 * n
    if not inside.all():
        raise InputRefused(
            "P(tie) is larger than preferences allow (half of it counts for each side)",
            remedy="a preference is P(a is better) + half of P(tie); check --map tie=",
        )


def _spread(contest: Tournament, kind: int, fitted: Fit, *, clustered: bool) -> Spread:
    """Return the spread of log-strengths; `covariance` is in points of the Elo scale."""
    clustered = clustered and contest.clusters < len(contest)
    groups = group(contest.cluster, contest.clusters) if clustered else None
    size, sums = contest.size, contest.sums()
    curves = pair_curves(kind, fitted.estimate, sums)
    inverse = inverse_information(kind, fitted)
    products = cluster_products(contest.rows, curves, inverse, groups)
    covariance = (inverse @ products.gradient @ inverse)[:size, :size] * POINTS**2
    met = (curves.information[:, 0] * sums[:, 0]).reshape(size, size)
    information = met.sum(axis=0) + met.sum(axis=1)
    overlap = products.information / np.outer(information, information)
    degrees = degrees_of_freedom(1 / information, overlap)
    return Spread(covariance, degrees, inverse[:size, :size])


def inverse_information(kind: int, fitted: Fit) -> Float64:
    """Invert the information [K + 1, K + 1]; a parameter that the model lacks has zeros."""
    inverse, size = np.zeros_like(fitted.information), len(fitted.information) - 1
    free = size if kind == links.BRADLEY_TERRY else size + 1
    known = fitted.information[:free, :free].copy()
    level, strengths = np.diag(known).mean(), known[:size, :size]
    if abs(strengths.sum()) < 1e-9 * level:  # without a prior they are known up to a constant
        strengths += level
    inverse[:free, :free] = np.linalg.inv(known)
    return inverse


def _bootstrap(
    contest: Tournament, kind: int, fitted: Fit, replicates: int, seed: int
) -> tuple[Float64, tuple[str, ...]]:
    drawn = resampled_strengths(
        kind,
        contest.rows,
        contest.cluster,
        clusters=contest.clusters,
        start=fitted.estimate,
        replicates=replicates,
        seed=seed,
    )
    if failed := int(np.count_nonzero(~drawn.converged)):
        raise RatingFailed(
            f"{failed} of {replicates} replicates have no finite maximum",
            remedy="use --intervals cluster",
        )
    loose = int(np.count_nonzero(drawn.regularised))
    words = f"{loose} of {replicates} replicates had a competitor that won or lost all, and got the"
    return drawn.strengths[:, :-1], (f"{words} tie with an average one",) if loose else ()


def _anchored(strengths: Float64, anchor: int | None) -> Float64:
    """Return log-strengths [..., K] as ratings."""
    zero = strengths.mean(axis=1) if anchor is None else strengths[:, anchor]
    return np.asarray(CENTRE + POINTS * (strengths - zero[:, None]))


def _anchored_covariance(covariance: Float64, anchor: int | None) -> Float64:
    change = np.eye(len(covariance))
    if anchor is None:
        change -= 1 / len(covariance)
    else:
        change[:, anchor] -= 1
    return np.asarray(change @ covariance @ change.T)
