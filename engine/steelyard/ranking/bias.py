"""What a judge prefers besides quality: a position, length, its own family."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Bool, Float64
from steelyard.ranking.contextual import fit_contextual
from steelyard.ranking.tournament import Tournament
from steelyard.statistics.clusters import Codes
from steelyard.statistics.logistic import sigmoid
from steelyard.statistics.means import Mean, decided, mean

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
    """What length is worth to the judge, where lengths differ by more than 30 characters."""

    longer: Mean  # mean preference for the longer response; 0.5 without bias
    gold_longer: Mean | None  # gold's mean preference for it, on the rows that have gold
    excess: Mean | None  # the judge's less the gold's, on these rows
    coefficient: float  # log-odds per unit of tanh(difference / its deviation), strengths fixed
    standard_error: float
    longer_at_equal_strength: float  # P(the longer wins) between equally strong competitors


@dataclass(frozen=True, slots=True)
class Family:
    """Preference for a family's responses against others'; rows within the family are left out."""

    family: str
    preference: Mean
    own_judges: Mean | None  # by judges of the same family
    other_judges: Mean | None
    gold: Mean | None  # of the rows that have gold
    self_preference: float | None  # own judges less other judges, or less the gold on its rows


@dataclass(frozen=True, slots=True)
class LabelMass:
    """Probability that the judge put on no label."""

    shortfall: Mean  # 1 - label mass, mean over both orders
    low: Mean  # share of pairs with a mass below 0.5 in an order


def position(ab: Float64, ba: Float64, cluster: Codes) -> Position:
    """Measure position bias from P(response_a is better) [n], with a shown first and with b."""
    return Position(
        first=mean((decided(ab) + 1 - decided(ba)) / 2, cluster),
        lean=mean(ab - ba, cluster),
        deviation=mean(np.abs(ab - ba), cluster),
        flips=mean((np.sign(ab - 0.5) != np.sign(ba - 0.5)).astype(np.float64), cluster),
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
        FitFailed: strengths and length have no finite maximum together.
    """
    apart = np.abs(difference) > LONGER_BY
    if not apart.any():
        return None
    up, cluster = difference[apart] > 0, contest.cluster[apart]
    judged, wanted = contest.rows.preference[apart], gold[apart]
    longer, gold_longer = np.where(up, judged, 1 - judged), np.where(up, wanted, 1 - wanted)
    known = np.isfinite(wanted)
    feature = np.tanh(difference / difference.std())
    fitted = fit_contextual(contest, feature[:, None])
    effect = fitted.coefficients[0] * np.abs(feature[apart])
    return Verbosity(
        longer=mean(longer, cluster),
        gold_longer=mean(gold_longer[known], cluster[known]) if known.any() else None,
        excess=mean((longer - gold_longer)[known], cluster[known]) if known.any() else None,
        coefficient=float(fitted.coefficients[0]),
        standard_error=float(fitted.standard_errors[0]),
        longer_at_equal_strength=float(sigmoid(effect).mean()),
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
            measured.append(_family(family, judged, wanted, by_own, contest.cluster[rows]))
    return sorted(measured, key=lambda item: -item.preference.value)


def _family(family: str, judged: Float64, gold: Float64, own: Bool, cluster: Codes) -> Family:
    known = np.isfinite(gold)

    def part(values: Float64, mask: Bool) -> Mean | None:
        return mean(values[mask], cluster[mask]) if mask.any() else None

    mine, others, wanted = part(judged, own), part(judged, ~own), part(gold, known)
    difference = None
    if mine and others:
        difference = mine.value - others.value
    elif (both := part(judged - gold, known & own)) is not None:
        difference = both.value
    return Family(family, mean(judged, cluster), mine, others, wanted, difference)


def label_mass(ab: Float64, ba: Float64, cluster: Codes) -> LabelMass:
    """Measure the probability outside the labels, from label masses [n] in [0, 1]."""
    low = (np.minimum(ab, ba) < LOW_MASS).astype(np.float64)
    return LabelMass(mean(1 - (ab + ba) / 2, cluster), mean(low, cluster))
