"""Looks at growing gold: what is carried on, what counts once, and what a new rule costs."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from steelyard.calibrators.features import Gold
from steelyard.calibrators.gold_trace import contains, unpack
from steelyard.calibrators.looks import (
    Asked,
    Looks,
    PairsToTest,
    mixed,
    split_gold,
    take_look,
)

ASKED = Asked("platt", 0.6, 0.9)
THRESHOLDS = np.full(20, 0.5)  # everything is trusted


def ids(*ranges):
    return np.concatenate([np.arange(*ends) for ends in ranges]).astype(np.uint64)


def gold_of(instructions):
    n = len(instructions)
    groups = np.unique(instructions, return_inverse=True)[1].astype(np.int64)
    return Gold(np.stack([np.ones(n), np.zeros(n), np.zeros(n)], axis=1), groups)


def look(instructions, before=None, *, asked=ASKED, right=None, seed=0, largest=2):
    """Look at pairs that the judge is as sure of; all right where nothing else is said."""
    same = before is not None and before.asked == asked
    split = split_gold(gold_of(instructions), instructions, seed, before, same=same)
    right = np.ones(len(instructions), bool) if right is None else right
    pairs = PairsToTest(
        np.full(int(split.test.sum()), 0.9), right[split.test], instructions[split.test]
    )
    threshold, looks = take_look(
        pairs, THRESHOLDS, asked, split=split, fitted=instructions[split.fit], largest=largest,
        seed=seed, before=before,
    )  # fmt: skip
    return threshold, looks, split


def wealth(looks):
    return float(np.exp(looks.logs()[0]).sum())


def bets(right, wrong, risk=0.4, largest=2):
    """The mean over twenty bets of what single pairs make of them."""
    sizes = [k / 20 / (1 - risk) for k in range(1, 21)]
    return sum(
        (1 + bet * risk / largest) ** right * (1 - bet * (1 - risk) / largest) ** wrong
        for bet in sizes
    ) / 20  # fmt: skip


def test_a_first_look_halves_gold():
    _, looks, split = look(ids((0, 40)), seed=7)
    assert (split.fit.sum(), split.test.sum()) == (20, 20)
    assert (looks.seeds, looks.instructions, looks.rule) == ((7,), (20,), 0)
    assert wealth(looks) == pytest.approx(bets(20, 0), rel=1e-9)


def test_a_look_multiplies_by_new_instructions_alone():
    instructions = ids((0, 40))
    _, first, one = look(instructions)
    more = ids((0, 60))
    wrong = more >= 40
    _, second, split = look(more, first, right=~wrong)
    assert split.kept
    assert np.array_equal(split.fit[:40], one.fit)
    assert split.test[:40].tolist() == one.test.tolist()
    new = int(split.test[40:].sum())
    assert 0 < new < 20  # a half of twenty, about; the others wait for a next rule
    assert wealth(second) == pytest.approx(bets(20, new), rel=1e-9)
    assert second.instructions == (20, new)
    # The same without the first gold at hand: what it said is kept.
    _, alone, _ = look(ids((40, 60)), first, right=np.zeros(20, bool))
    assert wealth(alone) == pytest.approx(wealth(second), rel=1e-9)


def test_a_look_at_nothing_new_is_none():
    _, first, _ = look(ids((0, 40)))
    threshold, again, split = look(ids((0, 40)), first, seed=99)
    assert again is first
    assert split.kept
    assert threshold == look(ids((0, 40)))[0]


def test_corrected_labels_of_tested_instructions_do_not_count_twice():
    _, first, _ = look(ids((0, 40)))
    _, again, _ = look(ids((0, 40)), first, right=np.zeros(40, bool))
    assert again is first


def test_the_rule_stays_until_its_gold_has_doubled():
    _, looks, _ = look(ids((0, 40)))
    known = unpack(looks.fitted)
    for end in (50, 60, 200):
        instructions = ids((0, end))
        _, looks, split = look(instructions, looks)
        fitted = unpack(looks.fitted)
        if split.kept:
            assert np.array_equal(fitted, known)
        else:
            assert end == 200
            # 20, then 40 or 80: whole doublings, with the first twenty among them.
            assert looks.rule == int(math.log2(len(fitted) / 20)) > 0
            assert len(fitted) in {40, 80}
            assert contains(fitted, known).all()
            assert split.fit.sum() == len(fitted)
        assert not contains(unpack(looks.tested), fitted).any()


def test_a_new_rule_is_tested_on_all_at_hand_and_costs_most_of_the_level():
    first_asked = Asked("platt", 0.6, 0.9)
    threshold, first, one = look(ids((0, 48)), asked=first_asked)
    # 24 right ones of 24: the bets have won 185, and 1 / (0.1 x 0.75 / 4) = 53 is enough.
    assert bets(24, 0) > 54
    assert threshold.threshold == 0.5
    threshold, second, two = look(ids((0, 48)), first, asked=Asked("beta", 0.6, 0.9), seed=3)
    assert not two.kept
    assert (second.rule, second.seeds) == (1, (0, 3))
    assert wealth(second) == pytest.approx(bets(24, 0), rel=1e-9)  # afresh, and not the square
    assert np.array_equal(two.test, one.test)
    assert bets(24, 0) < 320  # 1 / (0.1 x 0.125 / 4)
    assert threshold.threshold is None
    assert second.instructions == (24, 0)


def test_an_exact_test_that_was_won_stays_won():
    instructions = ids((0, 40))  # 20 right ones: 0.6 ** 20 is far below 0.1 x 0.75 / 8
    threshold, first, _ = look(instructions, largest=1)
    assert threshold.threshold == 0.5
    more = ids((0, 70))
    threshold, second, split = look(more, first, right=more < 40, largest=1)
    assert split.kept
    assert second.instructions[1] > 0
    assert threshold.threshold == 0.5


def test_gold_of_other_instructions_is_not_known():
    _, looks, _ = look(ids((0, 40)))
    assert looks.overlap(ids((0, 10), (100, 110))) == 10
    assert looks.overlap(ids((100, 110))) == 0


def test_long_lists_are_cut_off_and_nothing_is_tested_twice(monkeypatch):
    monkeypatch.setattr("steelyard.calibrators.looks.MOST_DIGESTS", 15)
    _, looks, split = look(ids((0, 40)))
    assert len(unpack(looks.tested)) == 15
    tested = mixed(ids((0, 40))[split.test])
    _, second, split = look(ids((0, 90)), looks)
    new = ~contains(unpack(looks.tested), mixed(ids((0, 90)))) & split.test
    assert not contains(np.sort(tested), mixed(ids((0, 90))[new])).any()
    assert second.instructions[-1] == new.sum()


def test_looks_are_json_and_damaged_ones_are_refused():
    _, looks, _ = look(ids((0, 40)))
    content = msgspec.to_builtins(looks)
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(content)), Looks) == looks
    changes = [
        {"wealth": "AAAA"}, {"thresholds": [0.5]}, {"fitted": ""}, {"tested": "x"}, {"rule": -1},
        {"largest": 0}, {"seeds": []}, {"seeds": [-1]}, {"scores": {"x": 0.0}},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(ValueError):  # noqa: PT011 - msgspec's and our own
            msgspec.convert({**content, **change}, Looks)


def test_ids_are_evenly_spread():
    digests = mixed(ids((0, 10_000)))
    assert len(np.unique(digests)) == 10_000
    counts = np.bincount((digests >> np.uint64(60)).astype(int), minlength=16)
    assert counts.min() > 500
    assert 4700 < (digests % np.uint64(2)).sum() < 5300
