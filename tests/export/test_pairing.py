"""Best and worst responses of instructions, against a naive choice by dense least squares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.export.pairing import SURE, VerdictColumns, choose, log_odds


def judged(rows, raw=None):
    """Verdicts from (instruction, first, second, preference)."""
    instruction, first, second, preference = zip(*rows, strict=True)
    names = {name: at + 1 for at, name in enumerate(dict.fromkeys((*first, *second)))}
    codes = [np.array([names[one] for one in side], np.uint64) for side in (first, second)]
    p = np.array(preference, dtype=np.float64)
    return VerdictColumns(
        np.array(instruction, np.uint64),
        *codes,
        p,
        p if raw is None else raw,
        np.full(len(p), np.nan),
    ), names


def naive(rows, against):
    """(best, other) of each instruction by NumPy's least squares; connected instructions only."""
    out = {}
    for instruction in dict.fromkeys(row[0] for row in rows):
        own = [row[1:] for row in rows if row[0] == instruction]
        names = list(dict.fromkeys(name for a, b, _ in own for name in (a, b)))
        design = np.zeros((len(own), len(names)))
        for at, (a, b, _) in enumerate(own):
            design[at, names.index(a)], design[at, names.index(b)] = 1, -1
        odds = [float(log_odds(np.array([p]))[0]) for _, _, p in own]
        strength = np.linalg.lstsq(design, np.array(odds), rcond=None)[0]
        ranked = [names[at] for at in np.argsort(-strength, kind="stable")]
        gaps = np.abs(np.diff(np.sort(strength)))
        out[instruction] = (ranked, strength[np.argsort(-strength)], gaps.min(initial=1))
    return out


def chosen_names(found, rows):
    """(better, other) by name."""
    return [
        (rows[b][1 + bs], rows[w][1 + ws])
        for b, bs, w, ws in zip(
            found.better, found.better_side, found.worse, found.worse_side, strict=True
        )
    ]


@st.composite
def tournaments(draw):
    """Instructions of 2 to 5 responses, each judged against the one before it, and more."""
    rows = []
    for instruction in range(draw(st.integers(1, 4))):
        size = draw(st.integers(2, 5))
        met = [(at, at - 1) for at in range(1, size)]
        some = [(a, b) for a in range(size) for b in range(a) if b < a - 1]
        met += [pair for pair in some if draw(st.booleans())]
        for a, b in met:
            if draw(st.booleans()):
                a, b = b, a  # noqa: PLW2901
            p = draw(st.floats(0.01, 0.99))
            rows.append((instruction, f"{instruction}/{a}", f"{instruction}/{b}", p))
    return rows


@pytest.mark.parametrize("against", ["best-worst", "best-second"])
@settings(deadline=None)
@given(rows=tournaments())
def test_equals_the_naive_choice(against, rows):
    found = choose(judged(rows)[0], against)
    expected = naive(rows, against)
    for at, (instruction, pair) in enumerate(zip(expected, chosen_names(found, rows), strict=True)):
        ranked, strength, gap = expected[instruction]
        if gap < 1e-6:
            continue  # which of equals is taken is not asked here
        assert pair == (ranked[0], ranked[-1 if against == "best-worst" else 1])
        if not found.direct[at]:
            odds = strength[0] - strength[-1 if against == "best-worst" else 1]
            assert found.probability[at] == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-9)
    assert found.unconnected == 0


@settings(deadline=None)
@given(rows=tournaments())
def test_swapping_the_sides_of_verdicts_changes_no_choice(rows):
    turned = [(i, b, a, 1 - p) for i, a, b, p in rows]
    one, other = (choose(judged(some)[0], "best-worst") for some in (rows, turned))
    if min(gap for *_, gap in naive(rows, "best-worst").values()) < 1e-6:
        return
    assert chosen_names(one, rows) == chosen_names(other, turned)
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-9)


def test_a_verdict_of_the_two_keeps_its_probability():
    """A tournament of three: the two ends met, and their own verdict counts."""
    rows = [(1, "x", "y", 0.9), (1, "y", "z", 0.9), (1, "z", "x", 0.3)]
    found = choose(judged(rows)[0], "best-worst")
    assert chosen_names(found, rows) == [("x", "z")]
    assert found.direct.tolist() == [True]
    assert found.probability == pytest.approx([0.7])
    assert (found.better.tolist(), found.worse.tolist()) == ([2], [2])


def test_models_against_one_baseline_are_compared_through_it():
    rows = [(7, name, "base", p) for name, p in (("x", 0.6), ("y", 0.2), ("z", 0.3))]
    found = choose(judged(rows)[0], "best-worst")
    assert chosen_names(found, rows) == [("x", "y")]
    odds = np.log(0.6 / 0.4) - np.log(0.2 / 0.8)
    assert found.probability == pytest.approx([1 / (1 + np.exp(-odds))], abs=1e-12)
    assert not found.direct[0]


def test_the_baseline_can_be_the_best():
    rows = [(7, name, "base", p) for name, p in (("x", 0.4), ("y", 0.2))]
    assert chosen_names(choose(judged(rows)[0], "best-worst"), rows) == [("base", "y")]


def test_a_verdict_against_the_ranking_is_told():
    """x is far ahead of z through y, and yet lost to it."""
    rows = [(1, "x", "y", 0.999), (1, "y", "z", 0.999), (1, "x", "z", 0.4)]
    found = choose(judged(rows)[0], "best-worst")
    assert chosen_names(found, rows) == [("x", "z")]
    assert found.contradicted.tolist() == [True]


def test_only_the_largest_part_is_compared():
    rows = [(1, "p", "q", 0.99), (1, "x", "y", 0.6), (1, "y", "z", 0.6)]
    found = choose(judged(rows)[0], "best-worst")
    assert chosen_names(found, rows) == [("x", "z")]
    assert found.unconnected == 1


def test_equal_strengths_are_a_tie():
    found = choose(judged([(1, "x", "y", 0.5)])[0], "best-worst")
    assert found.probability.tolist() == [0.5]


def test_certain_preferences_have_finite_log_odds():
    assert np.isfinite(log_odds(np.array([0.0, 1.0]))).all()
    assert log_odds(np.array([1.0]))[0] == pytest.approx(np.log((1 - SURE) / SURE))


def test_raw_probabilities_are_composed_of_raw_verdicts():
    rows = [(7, "x", "base", 0.6), (7, "y", "base", 0.2)]
    found = choose(judged(rows, raw=np.array([0.9, 0.1]))[0], "best-worst")
    assert found.raw == pytest.approx([81 / 82])


def test_nothing_to_choose_from():
    empty = np.zeros(0, np.uint64)
    found = choose(VerdictColumns(empty, empty, empty, *np.zeros((3, 0))), "best-worst")
    assert len(found.better) == found.unconnected == 0
