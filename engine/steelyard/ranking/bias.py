"""What a judge prefers besides quality: a position, length, its own family."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Bool, Float64, Int64
from steelyard.ranking.contextual import fit_contextual, within_competitors
from steelyard.ranking.length_control import separates
from steelyard.ranking.report import LEVEL
from steelyard.ranking.tournament import Tournament
from steelyard.statistics.clusters import MIN_FOR_INTERVAL, Codes
from steelyard.statistics.intervals import t_quantile
from steelyard.statistics.logistic import FitFailed, sigmoid
from steelyard.statistics.means import SHARE, Mean, decided, matched_difference, mean

DIFFERENCE = (-1.0, 1.0)  # bounds of what a difference of two rates is the mean of
OWN_LENGTH = 0.01  # share of the variation of lengths that competitors do not explain: the least
LONGER_BY = 30  # characters: lengths that differ by less count as equal
LOW_MASS = 0.5
_FAMILY = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Position:
    """What changes with the order of presentation."""

    first: Mean  # share of decisions for the response shown first; 0.5 without bias
    lean: Mean  # mean of preference_ab - preference_ba; 0 without bias
    deviation: Mean  # mean of its absolute value
    flips: Mean  # share of pairs whose winner changes with the order


@dataclass(frozen=True, slots=True)
class Verbosity:
    """What length is worth to the judge, where lengths differ by more than 30 characters.

    Where length separates wins from losses, what it is worth has no bound, and is None.
    """

    longer: Mean  # mean preference for the longer response; 0.5 without bias
    gold_longer: Mean | None  # gold's mean preference for it, on the rows that have gold
    excess: Mean | None  # the judge's less the gold's, on these rows
    coefficient: float | None  # log-odds per unit of tanh(difference / its root mean square)
    # This and intervals: None for fewer than MIN_FOR_INTERVAL clusters, too.
    standard_error: float | None
    coefficient_interval: tuple[float, float] | None
    longer_at_equal_strength: float | None  # P(the longer wins) between equally strong competitors
    longer_at_equal_strength_interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Family:
    """Preference for a family's responses against others'; rows within the family are left out."""

    family: str
    preference: Mean
    own_judges: Mean | None  # by judges of the same family
    other_judges: Mean | None
    gold: Mean | None  # of the rows that have gold
    self_preference: float | None  # own judges less others on the same opponents, or less gold
    self_preference_estimate: Mean | None  # the same, with its interval


@dataclass(frozen=True, slots=True)
class LabelMass:
    """Probability that the judge put on no label."""

    shortfall: Mean  # 1 - label mass, mean over both orders
    low: Mean  # share of pairs with a mass below 0.5 in an order


def position(ab: Float64, ba: Float64, cluster: Codes, weight: Float64 | None = None) -> Position:
    """Measure position bias from P(response_a is better) [n], with a shown first and with b."""
    flips = (np.sign(ab - 0.5) != np.sign(ba - 0.5)).astype(np.float64)
    return Position(
        first=mean((decided(ab) + 1 - decided(ba)) / 2, cluster, weight, bounds=SHARE),
        lean=mean(ab - ba, cluster, weight, bounds=DIFFERENCE),
        deviation=mean(np.abs(ab - ba), cluster, weight, bounds=SHARE),
        flips=mean(flips, cluster, weight, bounds=SHARE),
    )


def verbosity(contest: Tournament, difference: Float64, gold: Float64) -> Verbosity | None:
    """Measure length bias, raw and with the competitors' strengths held fixed.

    Args:
        contest: n comparisons.
        difference: float64 [n], characters of the pair's lower competitor less the other's.
        gold: float64 [n], gold's preference for the lower competitor; or NaN.

    Returns:
        None if no lengths differ by more than LONGER_BY characters.

    Raises:
        FitFailed: lengths follow from the competitors, or there is no finite maximum.
    """
    apart = np.abs(difference) > LONGER_BY
    if not apart.any():
        return None
    weight = contest.weights()
    up, cluster, w = difference[apart] > 0, contest.cluster[apart], weight[apart]
    judged, wanted = contest.rows.preference[apart], gold[apart]
    longer, gold_longer = np.where(up, judged, 1 - judged), np.where(up, wanted, 1 - wanted)
    known = np.isfinite(wanted)

    def of_gold(values: Float64, bounds: tuple[float, float]) -> Mean | None:
        if not known.any():
            return None
        return mean(values[known], cluster[known], w[known], bounds=bounds)

    # The root mean square does not depend on which of two competitors comes first.
    feature = np.tanh(difference / np.sqrt(np.average(difference**2, weights=weight)))
    if within_competitors(contest, feature) < OWN_LENGTH:
        raise FitFailed(
            "lengths follow from the competitors, and cannot be separated from their quality",
            remedy="take competitors whose lengths vary",
        )
    means = (
        mean(longer, cluster, w, bounds=SHARE),
        of_gold(gold_longer, SHARE),
        of_gold(longer - gold_longer, DIFFERENCE),
    )
    if separates(contest.rows.preference, difference):
        return Verbosity(*means, None, None, None, None, None)
    fitted = fit_contextual(contest, feature[:, None])
    value, error = float(fitted.coefficients[0]), float(fitted.standard_errors[0])
    enough = contest.clusters >= MIN_FOR_INTERVAL
    margin = t_quantile(LEVEL, contest.clusters - 1) * error

    def at_equal_strength(coefficient: float) -> float:
        return float(np.average(sigmoid(coefficient * np.abs(feature[apart])), weights=w))

    low, high = value - margin, value + margin
    return Verbosity(
        *means,
        coefficient=value,
        standard_error=error if enough else None,
        coefficient_interval=(low, high) if enough else None,
        longer_at_equal_strength=at_equal_strength(value),
        longer_at_equal_strength_interval=(
            (at_equal_strength(low), at_equal_strength(high)) if enough else None
        ),
    )


def family_of(name: str) -> str:
    """Return a model's family, the first letters of its name: qwen for Qwen/Qwen3-8B."""
    match = _FAMILY.search(name.rsplit("/", maxsplit=1)[-1])
    return (match.group() if match else name).lower()


def families(
    contest: Tournament, judges: Sequence[str], judge: Codes, gold: Float64
) -> list[Family]:
    """Measure the preference for each family of competitors, by its own judges and by others.

    `judge` [n] is each comparison's index into `judges`; `gold` [n] is as for `verbosity`.
    """
    names = sorted({family_of(name) for name in contest.competitors})
    of = np.array([family_of(name) for name in contest.competitors])
    own = np.array([family_of(name) for name in judges])
    i, j = contest.rows.pair // contest.size, contest.rows.pair % contest.size
    measured, sides = [], (contest.rows.preference, gold)
    for family in names:
        upper = (of == family)[i]
        rows = upper != (of == family)[j]
        if rows.any():
            judged, wanted = (np.where(upper, x, 1 - x)[rows] for x in sides)
            by_own = (own == family)[judge[rows]]
            item = _family(
                family, judged, wanted, by_own, pair=contest.rows.pair[rows],
                cluster=contest.cluster[rows], weight=contest.weights()[rows],
            )  # fmt: skip
            measured.append(item)
    return sorted(measured, key=lambda item: -item.preference.value)


def _family(
    family: str,
    judged: Float64,
    gold: Float64,
    own: Bool,
    *,
    pair: Int64,
    cluster: Codes,
    weight: Float64,
) -> Family:
    def part(values: Float64, mask: Bool, bounds: tuple[float, float] = SHARE) -> Mean | None:
        if not mask.any():
            return None
        return mean(values[mask], cluster[mask], weight[mask], bounds=bounds)

    known = np.isfinite(gold)
    if own.any() and not own.all():
        difference = matched_difference(judged, own, pair, cluster, weight, bounds=DIFFERENCE)
    else:
        difference = part(judged - gold, known & own, DIFFERENCE)
    return Family(
        family=family,
        preference=mean(judged, cluster, weight, bounds=SHARE),
        own_judges=part(judged, own),
        other_judges=part(judged, ~own),
        gold=part(gold, known),
        self_preference=None if difference is None else difference.value,
        self_preference_estimate=difference,
    )


def label_mass(
    ab: Float64, ba: Float64, cluster: Codes, weight: Float64 | None = None
) -> LabelMass:
    """Measure the probability outside the labels, from label masses [n] in [0, 1]."""
    low = (np.minimum(ab, ba) < LOW_MASS).astype(np.float64)
    return LabelMass(
        mean(1 - (ab + ba) / 2, cluster, weight, bounds=SHARE),
        mean(low, cluster, weight, bounds=SHARE),
    )
