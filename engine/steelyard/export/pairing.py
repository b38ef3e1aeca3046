"""The best response to each instruction, and the worst or the second best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from steelyard.core.schemas import Bool, Float64, Int64, UInt64
from steelyard.export.shrinkage import NoiseSums, Shrinkage
from steelyard.statistics.logistic import sigmoid
from steelyard_kernels.log_odds import contrast_variances, strengths

SURE = 1e-6  # margins: preferences are taken as at most 1 - SURE sure, so that they are finite
RANKED = 1e-12  # the same for ranking, where the surest have to stay distinct
_EQUAL = 1e-9  # strengths closer than this are a tie


@dataclass(frozen=True, slots=True)
class VerdictColumns:
    """m verdicts in the order of the input, those of an instruction next to each other."""

    instruction: UInt64  # m
    first: UInt64  # m, digest of response a
    second: UInt64  # m, digest of response b, which differs
    preference: Float64  # m, in [0, 1]: P(a is better)
    raw: Float64  # m, the same before calibration
    gap: Float64  # m, half of logit(preference_ab) - logit(preference_ba); NaN: not known


@dataclass(frozen=True, slots=True)
class Chosen:
    """A pair for each of k instructions."""

    better: Int64  # k, index of a verdict with the better response; that on both if direct
    better_side: Int64  # k: 0 a, 1 b
    worse: Int64  # k
    worse_side: Int64
    probability: Float64  # k, that the better one is better
    claimed: Float64  # k, the same as if the pair had not been selected
    raw: Float64  # k, that before calibration
    direct: Bool  # k, whether the two were judged against each other
    contradicted: Bool  # k, whether that verdict says the opposite
    unconnected: int  # verdicts of responses that no chain of verdicts connects to the chosen

    def to_table(self, numbers: Int64) -> pa.Table:
        """Return one row per pair, with the numbers of verdicts in place of their indices."""
        columns = {
            "better": numbers[self.better],
            "better_is_a": self.better_side == 0,
            "worse": numbers[self.worse],
            "worse_is_a": self.worse_side == 0,
            "probability": self.probability,
            "claimed": self.claimed,
            "raw": self.raw,
            "direct": self.direct,
            "contradicted": self.contradicted,
        }
        return pa.table(columns)


def log_odds(preference: Float64, sure: float = SURE) -> Float64:
    """Return log(p / (1 - p)), with p kept `sure` away from 0 and 1."""
    p = np.clip(preference, sure, 1 - sure)
    return np.asarray(np.log(p) - np.log1p(-p))


def measure_noise(judged: VerdictColumns, sums: NoiseSums) -> None:
    """Add verdicts, all of some instructions, to the sums from which noise is estimated."""
    if not len(judged.instruction):
        return
    group, ends = _groups(judged.instruction)
    owner, first, second = _responses(group, judged)
    exported, raw = (log_odds(values, RANKED) for values in (judged.preference, judged.raw))
    strength, component = strengths(first, second, exported, ends, len(owner))
    unknowns = len(owner) - len(np.unique(component))
    fitted = strength[first] - strength[second]
    sums.add(judged.preference, (exported, raw), judged.gap, fitted, unknowns)


def choose(judged: VerdictColumns, against: str, shrinkage: Shrinkage | None = None) -> Chosen:
    """Choose the best response to each instruction, and the worst or the second best.

    Strengths are least squares over the verdicts' log-odds (kernels, log_odds), and with known
    noise their posterior means; where verdicts do not connect all responses, those of the largest
    part are compared. Probabilities follow from strengths. Without known noise, two that were
    judged against each other keep that verdict's probability; it is what is `claimed` of them.

    Args:
        judged: the verdicts.
        against: "best-worst" or "best-second".
        shrinkage: how noise is taken away; None: it is not known.
    """
    if not len(judged.instruction):
        return NOTHING
    group, ends = _groups(judged.instruction)
    owner, first, second = _responses(group, judged)
    exported = log_odds(judged.preference, RANKED)
    plain, component = strengths(first, second, exported, ends, len(owner))
    strength = plain
    if shrinkage is not None:
        latent = exported / shrinkage.scale
        strength, _ = strengths(first, second, latent, ends, len(owner), ridge=shrinkage.ridge)
    raw, _ = strengths(first, second, log_odds(judged.raw, RANKED), ends, len(owner))
    # The first verdict on each response, and the side that it is on there.
    seen, side = np.divmod(np.unique(np.stack([first, second], axis=1), return_index=True)[1], 2)
    best, other, loose = _ends(owner, strength, component, seen, against)
    verdict = _direct(first, second, best, other, ends)
    direct = verdict >= 0
    i = np.maximum(verdict, 0)
    turned = first[i] != best
    own = np.where(turned, 1 - judged.preference[i], judged.preference[i])
    own_raw = np.where(turned, 1 - judged.raw[i], judged.raw[i])
    claimed = probability = np.where(direct, own, sigmoid(_gap(plain, best, other)))
    if shrinkage is not None:
        error = np.zeros(len(best))
        if shrinkage.ridge:
            error = contrast_variances(first, second, ends, (best, other), shrinkage.ridge)
        gap = _gap(strength, best, other)
        probability = shrinkage.probability(gap, shrinkage.noise * error)
    return Chosen(
        better=np.where(direct, i, seen[best]),
        better_side=np.where(direct, turned, side[best]).astype(np.int64),
        worse=np.where(direct, i, seen[other]),
        worse_side=np.where(direct, ~turned, side[other]).astype(np.int64),
        probability=probability,
        claimed=claimed,
        raw=np.where(direct, own_raw, sigmoid(_gap(raw, best, other))),
        direct=direct,
        contradicted=direct & (own < 0.5),
        unconnected=int(np.isin(first, loose).sum()),
    )


def _groups(instruction: UInt64) -> tuple[Int64, Int64]:
    """Return the number of each verdict's instruction, and where instructions begin and end."""
    ends = np.append(_starts(instruction), len(instruction))
    return np.repeat(np.arange(len(ends) - 1), np.diff(ends)), ends


def _starts(values: UInt64 | Int64) -> Int64:
    """Return where runs of equal values begin."""
    return np.flatnonzero(np.append(True, values[1:] != values[:-1]))


def _responses(group: Int64, judged: VerdictColumns) -> tuple[Int64, Int64, Int64]:
    """Return the instruction of each distinct response, and each verdict's two by number."""
    owners = np.concatenate([group, group])
    digests = np.concatenate([judged.first, judged.second])
    order = np.lexsort((digests, owners))
    owners, digests = owners[order], digests[order]
    new = np.r_[True, (owners[1:] != owners[:-1]) | (digests[1:] != digests[:-1])]
    codes = np.empty(len(order), dtype=np.int64)
    codes[order] = np.cumsum(new) - 1
    return owners[new], codes[: len(group)], codes[len(group) :]


def _ends(
    owner: Int64, strength: Float64, component: Int64, seen: Int64, against: str
) -> tuple[Int64, Int64, Int64]:
    """Return best and other response of each instruction, and responses outside its largest part.

    Of equal parts and of equal strengths, the first in the input is taken.
    """
    sizes = np.bincount(component, minlength=len(owner))[component]
    begun = np.full(len(owner), np.iinfo(np.int64).max)
    np.minimum.at(begun, component, seen)
    order = np.lexsort((begun[component], -sizes, owner))
    inside = component == component[order[_starts(owner[order])]][owner]
    ranked = np.lexsort((seen, -np.round(strength / _EQUAL), owner))
    ranked = ranked[inside[ranked]]
    starts = _starts(owner[ranked])
    stops = np.r_[starts[1:], len(ranked)]
    other = ranked[stops - 1] if against == "best-worst" else ranked[starts + 1]
    return ranked[starts], other, np.flatnonzero(~inside)


def _direct(first: Int64, second: Int64, best: Int64, other: Int64, ends: Int64) -> Int64:
    """Return the first verdict on best against other of each instruction, -1 without any."""
    group = np.repeat(np.arange(len(best)), np.diff(ends))
    hit = ((first == best[group]) & (second == other[group])) | (
        (first == other[group]) & (second == best[group])
    )
    verdict = np.full(len(best), -1, dtype=np.int64)
    rows = np.flatnonzero(hit)[::-1]
    verdict[group[rows]] = rows
    return verdict


def _gap(strength: Float64, best: Int64, other: Int64) -> Float64:
    gap = strength[best] - strength[other]
    return np.where(np.abs(gap) < _EQUAL, 0.0, gap)


_NONE, _NO = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
_EMPTY = np.zeros(0)
NOTHING = Chosen(_NONE, _NONE, _NONE, _NONE, _EMPTY, _EMPTY, _EMPTY, _NO, _NO, 0)
