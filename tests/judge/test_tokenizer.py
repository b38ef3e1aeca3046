"""The injection boundary, label variants and the digest."""

from __future__ import annotations

import json

import pytest
from tokenizers import AddedToken

from steelyard.errors import JudgeUnavailable, UsageError
from steelyard.judge.model.tokenizer import HFEncoder
from support import tiny

MAKERS = {
    "byte_level": tiny.byte_level,
    "ignoring_merges": tiny.ignoring_merges,
    "unigram": tiny.unigram,
    "prepending": tiny.prepending,
}


@pytest.fixture(params=MAKERS)
def encoder(request, tmp_path):
    return HFEncoder(tiny.write_tokenizer(tmp_path, MAKERS[request.param]()))


def data_ids(encoder, text) -> list[int]:
    return encoder.encode_data([text]).tokens.tolist()


def control_names(folder) -> list[str]:
    spec = json.loads((folder / "tokenizer.json").read_text())
    return [token["content"] for token in spec["added_tokens"]]


@pytest.mark.parametrize("kind", MAKERS)
def test_data_never_becomes_a_control_token(kind, tmp_path):
    folder = tiny.write_tokenizer(tmp_path, MAKERS[kind]())
    encoder = HFEncoder(folder)
    names = control_names(folder)
    texts = tiny.hostile_texts(names, 3000) + [f"\uffff{i}\uffff" for i in range(30)]
    unknown = {0} if kind in {"unigram", "prepending"} else set()
    for text, ids in zip(texts, encoder.encode_data(texts).split(), strict=True):
        assert encoder.control_ids.isdisjoint(set(ids) - unknown), text
    for name in names:  # spelled out, its unknown characters at most are unknown
        assert data_ids(encoder, name) != encoder.encode_template(name, first=True)[:1]


def test_template_keeps_control_tokens(encoder):
    name = "<|im_start|>" if "<|im_start|>" in str(encoder._whole.get_vocab()) else "</s>"
    ids = encoder.encode_template(f"{name}a", first=True)
    assert ids[0] in encoder.control_ids
    assert len(encoder.control_ids.intersection(ids)) == 1


def test_ignore_merges_would_reach_a_control_word(tmp_path):
    """The trap is real: with the vocabulary as it is, data becomes the token `assistant`."""
    whole = tiny.ignoring_merges()
    assert whole.token_to_id("assistant") in whole.encode("assistant").ids
    encoder = HFEncoder(tiny.write_tokenizer(tmp_path, whole))
    assert encoder.control_ids.isdisjoint(data_ids(encoder, "assistant"))


def test_data_is_spelled_as_the_judge_spells_it(tmp_path):
    encoder = HFEncoder(tiny.write_tokenizer(tmp_path, tiny.byte_level()))
    text = "The answer is A. naïve café 🙂"
    assert data_ids(encoder, text) == encoder.encode_template(text, first=True)


def test_only_the_first_segment_marks_a_beginning(tmp_path):
    encoder = HFEncoder(tiny.write_tokenizer(tmp_path, tiny.prepending()))
    whole = encoder.encode_template("a", first=True)
    inner = encoder.encode_template("a", first=False)
    assert whole != inner
    assert data_ids(encoder, "a") == inner
    # After a control token inside the segment the judge's own rule holds again.
    assert encoder.encode_template("a</s>a", first=False)[-1:] == whole


def test_white_space_tokens_are_text(tmp_path):
    tokenizer = tiny.byte_level()
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False)])
    encoder = HFEncoder(tiny.write_tokenizer(tmp_path, tokenizer))
    id_ = tokenizer.token_to_id("\n\n")
    assert id_ not in encoder.control_ids
    assert data_ids(encoder, "a\n\nb")[1] == id_


def test_label_variants_with_and_without_space(tmp_path):
    encoder = HFEncoder(tiny.write_tokenizer(tmp_path, tiny.byte_level()))
    assert [variant.text for variant in encoder.label_variants("A")] == ["A", " A"]
    ids = {v.token_id for label in "AB" for v in encoder.label_variants(label)}
    assert len(ids) == 4


def test_label_variants_of_sentencepiece(tmp_path):
    encoder = HFEncoder(tiny.write_tokenizer(tmp_path, tiny.unigram()))
    assert {variant.text for variant in encoder.label_variants("A")} == {"A", " A"}


@pytest.mark.parametrize("label", ["Better", "<|im_start|>", "AB"])
def test_label_without_a_token_is_refused(label, tmp_path):
    encoder = HFEncoder(tiny.write_tokenizer(tmp_path, tiny.byte_level()))
    with pytest.raises(UsageError, match="no single token") as refused:
        encoder.label_variants(label)
    assert "`" in refused.value.cause


def test_digest_follows_what_decides(tmp_path):
    one = HFEncoder(tiny.write_tokenizer(tmp_path / "1", tiny.byte_level()))
    same = HFEncoder(tiny.write_tokenizer(tmp_path / "2", tiny.byte_level()))
    other = HFEncoder(tiny.write_tokenizer(tmp_path / "3", tiny.byte_level(350)))
    chat = HFEncoder(tiny.write_tokenizer(tmp_path / "4", tiny.byte_level(), template="x"))
    assert one.digest == same.digest
    assert len({one.digest, other.digest, chat.digest}) == 3


def test_folder_without_tokenizer(tmp_path):
    with pytest.raises(JudgeUnavailable, match=r"no tokenizer\.json"):
        HFEncoder(tmp_path)


def test_damaged_tokenizer(tmp_path):
    tiny.write_tokenizer(tmp_path, tiny.byte_level())
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(JudgeUnavailable, match="does not hold what it should"):
        HFEncoder(tmp_path)


def test_an_unknown_character_in_a_template_is_no_beginning(tmp_path):
    """A tokenizer without bytes spells a line feed as unknown; what follows is no new text."""
    encoder = HFEncoder(tiny.write_tokenizer(tmp_path, tiny.unigram()))
    whole = encoder.encode_template("The\u2603The", first=True)
    inner = encoder.encode_template("\u2603The", first=False)
    assert whole[-len(inner) :] == inner
    begun = encoder.encode_template("The", first=True)
    assert inner[1:] != begun
