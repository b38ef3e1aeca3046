"""Judges' texts: real-looking ones with what they say, and laws for any text at all."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from steelyard.protocols.parsing import find_label, probability, two_scores

CASES = tomllib.loads(Path(__file__).with_name("parsing_cases.toml").read_text("utf-8"))
AB = ["A", "B"]
LABEL_SETS = (AB, ["A", "B", "C"], ["A", "B", "tie"], ["yes", "no"], [str(n) for n in range(1, 11)])

# Texts made of what judges' texts are made of, so that patterns are met half and whole.
PIECES = (
    "[[", "]]", "A", "B", "C", "tie", "**", "Response ", "Assistant ", "is better", "Verdict: ",
    "Final answer: ", "The better response is ", "not ", " or ", "(", ")", "\n", ". ", ", ", " ",
    "<think>", "</think>", "8", "7.5", "/10", "score", ": ", "<p>", "</p>", "0.4", "%", "1e-3",
    "yes", "No", "I prefer ", "|", "-", "：", "A's", "\\boxed{", "10",
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
)


def named(kind):
    return pytest.mark.parametrize("case", CASES[kind], ids=lambda case: case["name"])


def test_there_are_enough_cases_and_no_two_of_one_name():
    assert sum(map(len, CASES.values())) >= 60
    for cases in CASES.values():
        assert len({case["name"] for case in cases}) == len(cases)


@named("label")
def test_find_label(case):
    labels = case.get("labels", AB)
    found = find_label(case["text"], labels)
    if "label" not in case:
        assert found is None
        return
    assert found is not None
    index, at = found
    assert labels[index] == case["label"]
    spelled = case["text"][at : at + len(case["label"])]
    assert spelled.casefold() == case["label"].casefold()
    assert case["text"][:at].endswith(case.get("before", ""))


@named("scores")
def test_two_scores(case):
    expected = tuple(case["scores"]) if "scores" in case else None
    assert two_scores(case["text"], case.get("low", 1), case.get("high", 10)) == expected


@named("probability")
def test_probability(case):
    assert probability(case["text"], "probability") == case.get("probability")


@settings(deadline=None)
@given(TEXTS, st.sampled_from(LABEL_SETS))
def test_a_label_stands_where_it_was_found(text, labels):
    found = find_label(text, labels)
    if found is not None:
        index, at = found
        label = labels[index]
        spelled = text[at : at + len(label)]
        assert spelled == label or (len(label) > 1 and spelled.casefold() == label.casefold())


@settings(deadline=None)
@given(TEXTS, st.sampled_from(AB))
def test_swapped_letters_swap_the_verdict(text, verdict):
    assume("assistant" not in text.lower())  # a word that means something
    text = f"{text}\n[[{verdict}]]"
    swapped = text.translate(str.maketrans("AB", "BA"))
    found, other = find_label(text, AB), find_label(swapped, AB)
    assert (found is None) == (other is None)
    if found is not None and other is not None:
        assert (found[0], found[1]) == (1 - other[0], other[1])


@settings(deadline=None)
@given(TEXTS, TEXTS, st.sampled_from(AB))
def test_closed_thinking_changes_nothing(thought, text, verdict):
    text = text.replace("think", "")
    answer = f"{text}[[{verdict}]]"
    thinking = f"<think>{thought}</think>"
    found, bare = find_label(thinking + answer, AB), find_label(answer, AB)
    assert (found is None) == (bare is None)
    if found is not None and bare is not None:
        assert found == (bare[0], bare[1] + len(thinking))


@settings(deadline=None)
@given(TEXTS, st.integers(0, 5), st.integers(6, 100))
def test_scores_are_in_range(text, low, high):
    scores = two_scores(text, low, high)
    assert scores is None or all(low <= score <= high for score in scores)


@settings(deadline=None)
@given(st.integers(10, 100), st.integers(10, 100))
def test_scores_come_back_in_their_order(a, b):
    a, b = a / 10, b / 10
    assert two_scores(f"{a} {b}\nReasons.", 1, 10) == (a, b)
    assert two_scores(f"Reasons.\nResponse A: {a}/10\nResponse B: {b}/10", 1, 10) == (a, b)


@settings(deadline=None)
@given(TEXTS)
def test_a_probability_is_in_range(text):
    for wrapped in (text, f"<p>{text}</p>"):
        value = probability(wrapped, "p")
        assert value is None or 0 <= value <= 1


@settings(deadline=None)
@given(st.floats(0, 1))
def test_a_probability_comes_back(value):
    assert probability(f"so: <p>{value:.6f}</p>", "p") == float(f"{value:.6f}")


@pytest.mark.parametrize(
    "unit",
    ["Response A is ", "Verdict: ", "[[", "****_ ", "\n****", "A, ", "A. x. B. ", "(((", ": ",
     " ", "The better response is Response A or ", "<think>", "</think>", "\nA: 8 ", "<p>", "8 "],
)  # fmt: skip
def test_a_megabyte_is_read_to_its_end(unit):
    """A pattern that backtracks over its text would not come back from here."""
    text = unit * (1_000_000 // len(unit))
    assert find_label(text, AB) is None
    assert two_scores(text, 1, 10) is None
    assert probability(text, "p") is None
