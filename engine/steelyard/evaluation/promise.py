"""Thresholds of trust over all looks at gold: what an earlier calibrator knows, and what is new."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from steelyard.calibrators.abstention import (
    TrustThreshold,
    coverage_risk,
    instructions_needed,
    level_of,
    thresholds_of,
)
from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.features import Gold
from steelyard.calibrators.looks import Asked, Looks, PairsToTest, Split, take_look
from steelyard.calibrators.methods import Curve
from steelyard.errors import CalibratorRefused
from steelyard.evaluation.gold_join import GoldPairs
from steelyard.evaluation.judged_pairs import Source, binding
from steelyard.evaluation.metrics.pairs import named_by_gold
from steelyard.store.calibration import load_calibrator
from steelyard.store.run_record import ScoredRecord

KEPT_SCORES = 8  # by which a table's judge is known again
SAME_SCORE = 1e-6


def find_predecessor(source: Source, matched: GoldPairs, path: Path | None) -> Calibrator | None:
    """Return the calibrator whose looks at this gold go on; None at a first look.

    It is at `path`, where the new one goes, or applied to the run; was fitted to the same judge's
    reads; and its gold shares an instruction with this gold.
    """
    candidates = [source.run.calibrator if source.run else None]
    if path is not None and path.is_file():
        with suppress(CalibratorRefused):  # what is damaged is about to be replaced
            candidates.append(load_calibrator(path))
    bound = binding(source)
    known = [
        made
        for made in candidates
        if made is not None
        and made.looks is not None
        and made.bound == bound
        and made.looks.overlap(matched.instructions)
        and (_fingerprinted(source) or _same_scores(made.looks, matched))
    ]
    return max(known, key=lambda made: len(made.looks.seeds) if made.looks else 0, default=None)


def _fingerprinted(source: Source) -> bool:
    """Return whether what a source is bound to is of one judge alone, as of a run that it scored.

    A table has no judge, and imported verdicts have the name that the user gave it.
    """
    return source.run is not None and isinstance(source.run.record, ScoredRecord)


def _same_scores(looks: Looks, matched: GoldPairs) -> bool:
    """Return whether a source has the scores that the looks were at, and not another judge's."""
    if matched.pair_ids is None:
        return False
    at_hand = dict(zip(matched.pair_ids.tolist(), matched.features.score.tolist(), strict=True))
    pairs = [(at_hand[int(x)], y) for x, y in looks.scores.items() if int(x) in at_hand]
    return bool(pairs) and all(abs(x - y) <= SAME_SCORE * (1 + abs(y)) for x, y in pairs)


def keep_promise(
    matched: GoldPairs,
    curve: Curve,
    asked: Asked,
    split: Split,
    *,
    before: Looks | None,
    seed: int,
) -> tuple[TrustThreshold, Looks, list[dict[str, float]]]:
    """Test thresholds; return the lowest that passes, all looks, and coverage with its risk."""
    gold, test = matched.gold, split.test
    made = curve.preference(matched.features)
    agrees = named_by_gold(made, gold.votes)
    old = before.thresholds if before and split.kept else None
    thresholds = thresholds_of(made[split.fit]) if old is None else np.array(old)
    threshold, looks = take_look(
        PairsToTest(made[test], agrees[test], matched.instructions[test]),
        thresholds,
        asked,
        split=split,
        fitted=matched.instructions[split.fit],
        largest=int(gold.sizes.max()),
        seed=seed,
        before=before,
    )
    if before is None and matched.pair_ids is not None:
        rows = np.argsort(matched.pair_ids)[:KEPT_SCORES]
        scores = matched.features.score[rows].tolist()
        names = map(str, matched.pair_ids[rows].tolist())
        looks = replace(looks, scores=dict(zip(names, scores, strict=True)))
    elif before is not None:
        looks = replace(looks, scores=before.scores)
    return threshold, looks, coverage_risk(made[test], agrees[test])


def promise_notes(
    threshold: TrustThreshold, looks: Looks, split: Split, before: Looks | None, gold: Gold
) -> list[str]:
    """Return what a user should know of these looks."""
    notes = []
    if before is not None:
        new = looks.instructions[-1] if looks is not before else 0
        notes.append(
            f"gold that was looked at before: the test goes on with {new:,} instructions that are"
            f" new to it; this is look {len(looks.seeds)}"
        )
    if before is not None and split.kept:
        notes.append(
            "the curve and the thresholds are those of an earlier look: they stay until the gold"
            " to fit them to has doubled"
        )
    elif before is not None:
        confidence = looks.asked.confidence
        share = level_of(confidence, looks.rule) / level_of(confidence, 0)
        notes.append(
            "the curve and the thresholds are new, since gold has doubled or something else is"
            f" asked for: they are tested at {share:.2g} of the level of the first ones"
        )
    if threshold.threshold is None and before is None:
        notes.append(_no_threshold(threshold, gold))
    elif threshold.threshold is None:
        notes.append(
            f"no threshold promises an agreement of {threshold.agreement:.0%} with confidence"
            f" {threshold.confidence:.0%} so far, so no verdict is trusted"
        )
    return notes


def _no_threshold(asked: TrustThreshold, gold: Gold) -> str:
    sizes = gold.sizes
    needed = instructions_needed(sizes, asked.agreement, asked.confidence, int(sizes.max()))
    return (
        f"no threshold promises an agreement of {asked.agreement:.0%} with confidence"
        f" {asked.confidence:.0%} on gold of {len(sizes):,} instructions, so no verdict is trusted;"
        f" a judge that is always right would need gold of about {2 * needed:,} such instructions,"
        " half of them to fit the curve"
    )
