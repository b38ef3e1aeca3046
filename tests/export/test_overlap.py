"""Contaminated and nearly equal instructions, against sets made by hand."""

import random

import pytest

from steelyard.export.overlap import SHINGLE, HeldOutText, NearDuplicates, ngrams, normalize, words

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def test_words_are_of_any_script():
    assert words("Wie groß, 3.5 _x? 你好") == ["wie", "groß", "3", "5", "_x", "你好"]


def test_an_instruction_without_words_is_itself():
    assert normalize(" ?! ") == "?!"
    assert HeldOutText(["?!"], 13).holds("?!")
    assert not HeldOutText(["?!"], 13).holds("!?")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (LONG, True),
        (LONG.upper().replace(" ", ",  "), True),  # case, punctuation, white space
        ("please tell me: " + LONG + " and so on", True),  # a run of 13 words
        (" ".join(LONG.split()[:13]), True),
        (" ".join(LONG.split()[:12]), False),  # shorter than the run, and not the whole
        (" ".join(LONG.split()[:12]) + " other words here", False),
        ("short one", True),  # a short instruction counts as a whole
        ("a short one", False),
    ],
)
def test_contamination(text, found):
    assert HeldOutText([LONG, "Short one!"], 13).holds(text) is found


def test_shorter_runs_find_more():
    assert HeldOutText([LONG], 5).holds("well three four five six seven well")
    assert not HeldOutText([LONG], 6).holds("well three four five six seven well")


def jaccard(one, other):
    a, b = (
        {tuple(parts[at : at + SHINGLE]) for at in range(max(1, len(parts) - SHINGLE + 1))}
        for parts in (words(one), words(other))
    )
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("least", [0.35, 0.5, 0.7, 0.9])
def test_near_duplicates_have_the_similarity_that_was_asked_for(least):
    """What is found is right by the definition, and little is missed."""
    draw = random.Random(5)
    vocabulary = [f"w{at}" for at in range(400)]
    texts = []
    for _ in range(60):
        own = [draw.choice(vocabulary) for _ in range(40)]
        texts.append(" ".join(own))
        for changes in (0, 1, 2, 4, 8, 12):
            other = list(own)
            for _ in range(changes):
                other[draw.randrange(40)] = draw.choice(vocabulary)
            texts.append(" ".join(other))
    near, leaders = NearDuplicates(least), []
    found, missed = 0, 0
    for text in texts:
        similar = [at for at, leader in enumerate(leaders) if jaccard(text, leader) >= least]
        number = near.leader(text)
        if number == len(leaders):
            missed += bool(similar)
            leaders.append(text)
        else:
            assert number in similar
            found += 1
    assert found > 60
    assert missed <= 0.02 * found


def test_the_same_instruction_is_its_own_leader():
    near = NearDuplicates(1.0)
    assert [near.leader(text) for text in ("one two", "three four", "One, two", "one two x")] == [
        0, 1, 0, 2,
    ]  # fmt: skip


def test_runs_are_counted_once():
    assert len(ngrams(["a", "b", "a", "b"], 2)) == 2
    assert len(ngrams(["a"], 3)) == 1
