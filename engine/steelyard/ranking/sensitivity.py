"""How few verdicts, or instructions, the first place hangs on.

What a verdict adds to the lead of the first over a challenger is known to first order (Broderick,
Giordano and Meager, arXiv 2011.14999; Huang et al., arXiv 2508.11847, for leaderboards). Those that
add most are left out, and the ratings are fitted again: the smallest set found is proof that this
many are enough. How few can never be enough follows from the likelihood's curvature.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from steelyard.core.schemas import Float64, Int64
from steelyard.ranking.bradley_terry import Estimate, inverse_information
from steelyard.ranking.tournament import NOTHING, Tournament
from steelyard_kernels import links
from steelyard_kernels.bradley_terry import Fit, solve_near
from steelyard_kernels.comparisons import Pairs, pairs_of
from steelyard_kernels.connected import is_connected
from steelyard_kernels.groups import group
from steelyard_kernels.influence import row_influences
from steelyard_kernels.sandwich import pair_curves

CHALLENGERS = 5  # competitors that are tried: their deficits are small for what is known of them
ROUNDS = 3  # of ordering verdicts anew by their influence where the last set left the ratings
REFITS = 10  # per round
NAMED = 1000  # units of a set that are kept: those of greatest influence
CUTS = 200  # units that are tried one by one where leaving out all of them is too much
LEAD = 1e-9  # in log-strength: less is a tie for the first place
_SAMPLE = 1 << 17  # units that are sorted to see from which influence on they are enough
_SPARE_SAMPLES = 8  # more of them: a sample is off by chance
_SPARE = 2.0  # influence that is sorted, relative to what is needed to first order


@dataclass(frozen=True, slots=True)
class Removal:
    """A set of verdicts or instructions without which another competitor is first."""

    removed: int
    of: int
    first: int  # competitor who is first without them
    at_least: int | None  # no smaller set can do it; None: not known
    units: tuple[int, ...] = field(default=(), compare=False, repr=False)  # the first NAMED of them


class _Problem(NamedTuple):
    contest: Tournament
    estimate: Estimate
    inverse: Float64  # [K + 1, K + 1] of its information
    pairs: Pairs
    present: Int64  # [pairs] i * K + j, rising
    rows: Int64  # [pairs] how many rows each has
    top: int  # who is first
    groups: tuple[Int64, Int64] | None  # rows by instruction; None: units are single verdicts


class _Set(NamedTuple):
    """Units that change the first place, and the fit to all others."""

    size: int
    units: Int64  # [size]
    fit: Fit


class _Influences(NamedTuple):
    rows: Float64  # [n] how much of the lead each row accounts for
    lead: float  # to first order: what has to be removed


class _Ordered(NamedTuple):
    """Units by falling influence on the lead."""

    total: Float64  # [u] influence of the first unit, of the first two, ...
    units: Int64  # [u]
    lead: float  # as in _Influences

    @property
    def needed(self) -> int:
        """How many units are enough, to first order; one more than there are if none are."""
        return int(np.searchsorted(self.total, self.lead)) + 1


def sensitivity(contest: Tournament, estimate: Estimate) -> dict[str, Removal | None]:
    """Find small sets of `verdicts` and of `instructions` that decide who is first.

    Sets that leave a strength infinite do not count. A value is None where no set was found, as
    where the first would be first without any verdict in its favour, and for instructions if each
    verdict has another one.
    """
    if estimate.kind == links.BRADLEY_TERRY:  # its gradients take ties as halves
        contest = replace(contest, rows=contest.rows._replace(tie=NOTHING))
    size, fit = contest.size, estimate.fit
    pairs = pairs_of(contest.sums(), size)
    present = pairs.first.astype(np.int64) * size + pairs.second
    rows = np.bincount(contest.rows.pair, minlength=size * size)[present]
    top = int(fit.estimate[:size].argmax())
    inverse = inverse_information(estimate.kind, fit)
    single = _Problem(contest, estimate, inverse, pairs, present, rows, top, None)
    problems = {"verdicts": single}
    if contest.clusters < len(contest):
        groups = group(contest.cluster, contest.clusters)
        problems["instructions"] = single._replace(groups=groups)
    lead = fit.estimate[top] - fit.estimate[:size]
    apart = np.diag(inverse)[:size] + inverse[top, top] - 2 * inverse[top, :size]
    order = np.argsort(lead / np.maximum(apart, 1e-300), kind="stable")
    best: dict[str, _Set | None] = dict.fromkeys(problems)
    for other in order[order != top][:CHALLENGERS].tolist():
        influence = _influences(single, fit, inverse[top] - inverse[other], other)
        for name, problem in problems.items():
            best[name] = _improve(problem, influence, best[name])
    removals: dict[str, Removal | None] = {}
    for name, problem in problems.items():
        smallest = _refine(problem, best[name])
        removals[name] = smallest and Removal(
            removed=smallest.size,
            of=len(contest) if problem.groups is None else contest.clusters,
            first=int(smallest.fit.estimate[:size].argmax()),
            at_least=_at_least(problem, lead / np.sqrt(np.maximum(apart, 1e-300))),
            units=tuple(smallest.units[:NAMED].tolist()),
        )
    return {"verdicts": removals["verdicts"], "instructions": removals.get("instructions")}


def _refine(problem: _Problem, best: _Set | None) -> _Set | None:
    """Order units anew by their influence where the last set left the ratings, while it helps."""
    for _ in range(ROUNDS):
        if best is None or best.size == 1:
            break
        other = int(best.fit.estimate[: problem.contest.size].argmax())
        inverse = inverse_information(problem.estimate.kind, best.fit)
        direction = inverse[problem.top] - inverse[other]
        better = _improve(problem, _influences(problem, best.fit, direction, other), best)
        if better is best:
            break
        best = better
    return best


def _influences(problem: _Problem, near: Fit, direction: Float64, other: int) -> _Influences:
    """Return what rows add to the lead over another competitor, to first order at a fit."""
    contest, prior = problem.contest, problem.estimate.prior
    strength = near.estimate[: contest.size]
    nothing = np.zeros((contest.size**2, 3))
    curves = pair_curves(problem.estimate.kind, near.estimate, nothing)
    rows = row_influences(contest.rows, curves.slopes, direction)
    # The gradient of all rows and of the prior there: 0 at the estimate from all rows.
    pull = rows.sum() + direction[:-1] @ (prior * (0.5 - 1 / (1 + np.exp(-strength))))
    return _Influences(rows, float(strength[problem.top] - strength[other] + pull))


def _improve(problem: _Problem, influence: _Influences, best: _Set | None) -> _Set | None:
    """Order units by their influence; return the shortest beginning that decides, or `best`."""
    ordered = _order(problem, influence)
    if ordered is None or (best is not None and ordered.needed >= best.size):
        return best
    better, blocked = _shortest(problem, ordered, best)
    if blocked and (ordered := _without_cuts(problem, ordered)) is not None:
        better, _ = _shortest(problem, ordered, better)
    return better


def _order(problem: _Problem, influence: _Influences) -> _Ordered | None:
    """Order the units that matter; None if there are none."""
    if influence.lead < -LEAD:
        return None
    lead = max(influence.lead, LEAD)  # of two who share the first place, any verdict decides
    by_unit = _by_unit(problem, influence.rows)
    units = _largest(by_unit, lead * _SPARE)
    if not len(units):
        return None
    return _Ordered(np.cumsum(by_unit[units]), units, lead)


def _shortest(problem: _Problem, ordered: _Ordered, best: _Set | None) -> tuple[_Set | None, bool]:
    """Return the shortest beginning that decides, and whether some left a strength infinite.

    Lengths are tried as the influences suggest, then between one that does not decide and one that
    does; each costs a refit.
    """
    rows, ends = _rows_of(problem, ordered.units)
    total, blocked = np.append(0.0, ordered.total), False
    most = len(ordered.total) if best is None else min(len(ordered.total), best.size - 1)
    low, high = (0, ordered.lead), (most + 1, 0.0)
    trial, start = min(ordered.needed, high[0] - 1), problem.estimate.fit
    for attempt in range(REFITS):
        if not low[0] < trial < high[0]:
            break
        fit = _refit(problem, rows[: ends[trial - 1]], start)
        start = start if fit is None else fit
        lead = -ordered.lead if fit is None else _lead(problem, fit)
        blocked |= fit is None
        if lead < -LEAD:
            high = (trial, lead)
            best = best if fit is None else _Set(trial, ordered.units[:trial], fit)
        else:
            low = (trial, lead)
        if high[1] == 0:  # none decided yet: go as far as the influences so far came short
            gained = max(ordered.lead - low[1], 1e-3 * ordered.lead)
            wanted = total[low[0]] * ordered.lead / gained
        else:
            share = low[1] / (low[1] - high[1])
            wanted = total[low[0]] + share * (total[high[0]] - total[low[0]])
        trial = int(np.searchsorted(ordered.total, wanted)) + 1
        if attempt % 3 == 2 and high[1] < 0:
            trial = (low[0] + high[0]) // 2
        trial = min(max(trial, low[0] + 1), high[0] - 1)
    return best, blocked


def _without_cuts(problem: _Problem, ordered: _Ordered) -> _Ordered | None:
    """Leave out units, of the first CUTS, without which some strength has no bound."""
    kept: list[int] = []
    for position in range(min(CUTS, len(ordered.units))):
        rows, _ = _rows_of(problem, ordered.units[[*kept, position]])
        if is_connected(_remaining(problem, rows), problem.contest.size):
            kept.append(position)
    if not kept:
        return None
    gains = np.diff(np.append(0.0, ordered.total))[kept]
    return _Ordered(np.cumsum(gains), ordered.units[kept], ordered.lead)


def _rows_of(problem: _Problem, units: Int64) -> tuple[Int64, Int64]:
    """Return the rows of units, and where each one's end."""
    if problem.groups is None:
        return units, np.arange(1, len(units) + 1)
    order, ends = problem.groups
    rows = np.concatenate([order[ends[unit] : ends[unit + 1]] for unit in units.tolist()])
    return rows, np.cumsum(np.diff(ends)[units])


def _by_unit(problem: _Problem, values: Float64) -> Float64:
    if problem.groups is None:
        return values
    return np.bincount(problem.contest.cluster, values, problem.contest.clusters).astype(np.float64)


def _largest(values: Float64, target: float) -> Int64:
    """Return where the largest values are that together reach a target, or all that are positive.

    They come in falling order, equal ones in that of their positions. A sample says from which
    value on they reach it, so that few have to be sorted.
    """
    step = max(len(values) // _SAMPLE, 1)
    sample = np.sort(values[::step])[::-1]
    sample = sample[sample > 0]
    last = int(np.searchsorted(np.cumsum(sample) * step, target))
    while True:
        last = 2 * last + _SPARE_SAMPLES
        least = sample[last] if last < len(sample) else 0.0
        chosen = np.flatnonzero((values >= least) & (values > 0))
        if least == 0 or values[chosen].sum() >= target:
            break
    chosen = chosen[np.argsort(-values[chosen], kind="stable")]
    return chosen[: int(np.searchsorted(np.cumsum(values[chosen]), target)) + 1]


def _refit(problem: _Problem, removed: Int64, start: Fit) -> Fit | None:
    """Fit to the other rows, from a fit nearby; None if some strength has no bound there."""
    pairs, prior = _remaining(problem, removed), problem.estimate.prior
    if not prior.any() and not is_connected(pairs, problem.contest.size):
        return None
    fit = solve_near(problem.estimate.kind, pairs, prior, start.estimate, problem.inverse)
    return fit if fit.converged and np.isfinite(fit.estimate).all() else None


def _remaining(problem: _Problem, removed: Int64) -> Pairs:
    """Return the sums of the other rows."""
    rows, (first, second, sums) = problem.contest.rows, problem.pairs
    position, count = np.searchsorted(problem.present, rows.pair[removed]), len(first)
    weight = rows.weight[removed] if len(rows.weight) else np.ones(len(removed))
    tie = rows.tie[removed] if len(rows.tie) else np.zeros(len(removed))
    columns = (weight, weight * rows.preference[removed], weight * tie)
    gone = np.stack([np.bincount(position, column, count) for column in columns], axis=1)
    left = np.bincount(position, minlength=count) < problem.rows
    return Pairs(first[left], second[left], np.maximum(sums - gone, 0)[left])


def _lead(problem: _Problem, fit: Fit) -> float:
    """Return by how much the first is ahead of the best of the others; negative if it is not."""
    strength = fit.estimate[: problem.contest.size]
    return float(strength[problem.top] - np.delete(strength, problem.top).max())


def _at_least(problem: _Problem, deficit: Float64) -> int | None:
    """Return how many units at least have to go, whichever they are, for another to be first.

    Let D be any set, x the shift of strengths without it, H the information, R_r = a_r' H^-1 a_r
    the variance of row r's difference of strengths, and rho the largest shift of a row's
    difference. Both gradients are 0 where they belong, so x'Gx = -sum over D of x'g_r, with G the
    mean information on the way. The logistic curve has G >= (1 - exp(-rho)) / rho H, and |y - p| is
    at most c_r = w max(y, 1 - y). With |a_r'x| <= sqrt(R_r x'Hx) that makes

        sum over D of c_r sqrt(R_r) >= (1 - exp(-rho)) / rho * sqrt(x'Hx).

    If a challenger with the deficit d, and variance R of the difference, has made it up, then
    sqrt(x'Hx) is at least d / sqrt(R), and at least rho / sqrt(max R_r). The right side is smallest
    where both are equal.

    Args:
        problem: of the model bradley-terry and without a prior; otherwise nothing is known.
        deficit: float64 [K], d / sqrt(R) of each challenger.
    """
    estimate, contest = problem.estimate, problem.contest
    if estimate.kind != links.BRADLEY_TERRY or estimate.prior.any():
        return None
    (first, second, _), inverse = problem.pairs, problem.inverse
    known = np.sqrt(np.diag(inverse)[first] + np.diag(inverse)[second] - 2 * inverse[first, second])
    closest = np.delete(deficit, problem.top).min()
    needed = -np.expm1(-closest * known.max()) / known.max()
    root, rows = np.zeros(contest.size**2), contest.rows
    root[problem.present] = known
    reach = np.maximum(rows.preference, 1 - rows.preference) * root[rows.pair]
    reach = reach * rows.weight if len(rows.weight) else reach
    return len(_largest(_by_unit(problem, reach), float(needed)))
