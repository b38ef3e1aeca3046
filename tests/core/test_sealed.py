"""JSON with a check of itself: every changed bit is found, and older texts are taken.

Kind of fault: everything in a run directory that decides a result is checked.
"""

import json

import pytest
import xxhash

from steelyard.core.sealed import seal, unseal

ANY = "."  # the words are of the JSON module
CONTENT = {"name": "Köln", "check me": [1, 2.5, None, {"a": True}], "text": 'say "check"'}


@pytest.mark.parametrize("indent", [None, 1, 2])
def test_what_was_sealed_comes_back(indent):
    raw = seal(CONTENT, indent)
    assert unseal(raw) == (CONTENT, True)
    assert raw.endswith(b"\n")
    assert (raw.count(b"\n") == 1) == (indent is None)
    assert list(json.loads(raw)) == [*CONTENT, "check"]
    assert "Köln".encode() in raw


def test_the_check_is_the_hash_of_the_text_with_zeros_in_its_place():
    raw = seal({"a": 1})
    zeros = b'{"a": 1, "check": "' + b"0" * 32 + b'"}\n'
    assert json.loads(raw)["check"] == xxhash.xxh3_128_hexdigest(zeros)
    assert len(raw) == len(zeros)


@pytest.mark.parametrize("indent", [None, 2])
def test_every_flipped_bit_is_found(indent):
    """Or makes the key `check` another one: then it is a text without a check."""
    raw = seal(CONTENT, indent)
    without_check = []
    for position in range(len(raw)):
        for bit in range(8):
            flipped = bytearray(raw)
            flipped[position] ^= 1 << bit
            try:
                content, sealed = unseal(bytes(flipped))
            except ValueError:
                continue
            assert not sealed
            assert len(content) == len(CONTENT) + 1  # the check is a key that nobody knows
            without_check.append(position)
    key = raw.rindex(b'"check"') + 1
    assert set(without_check) <= set(range(key, key + 5))


@pytest.mark.parametrize("cut", [0, 1, 10, -34, -2, -1])
def test_a_text_that_was_cut_is_found(cut):
    raw = seal(CONTENT)
    if cut == -1:  # the line feed is part of what is checked
        with pytest.raises(ValueError, match="not those that were written"):
            unseal(raw[:-1])
    with pytest.raises(ValueError, match=ANY):
        unseal(raw[:cut])


def test_what_is_added_is_found():
    with pytest.raises(ValueError, match="not those that were written"):
        unseal(seal(CONTENT) + b"\n")
    with pytest.raises(ValueError, match="Extra data"):
        unseal(seal(CONTENT) * 2)


@pytest.mark.parametrize("other", [b"{}", b'{"a": 1}', b' {"a": {"check": "x"}} '])
def test_texts_without_a_check_are_taken(other):
    assert unseal(other) == (json.loads(other), False)


@pytest.mark.parametrize(
    "other",
    [b"", b"[]", b"1", b"null", b'"x"', b"{", b"\xff{}", b'{"check": 1}', b'{"check": "0"}',
     b"[" * 100_000, b'{"a":' * 100_000],
)  # fmt: skip
def test_what_is_no_object_is_refused(other):
    with pytest.raises(ValueError, match=ANY):
        unseal(other)


@pytest.mark.parametrize("indent", [None, 1])
def test_names_that_are_not_utf8_come_back(indent):
    content = {"path": "caf\udce9/\udcff", "name": "Köln"}
    raw = seal(content, indent)
    raw.decode("ascii")
    assert unseal(raw) == (content, True)
    assert (raw.count(b"\n") == 1) == (indent is None)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["a", "\udce9"])
def test_numbers_that_json_does_not_have_are_not_written(value, name):
    with pytest.raises(ValueError, match="JSON"):
        seal({name: value})


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity"])
def test_numbers_that_json_does_not_have_are_not_read(word):
    with pytest.raises(ValueError, match="is not a number of JSON"):
        unseal(b'{"a": ' + word + b"}")
