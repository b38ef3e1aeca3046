"""Chat formats: folding, dates, lost texts, thinking blocks."""

from __future__ import annotations

import pytest

from steelyard.errors import JudgeUnavailable
from steelyard.judge.model.chat import ChatFormat, close_thinking
from steelyard.protocols.protocol import Message
from support import tiny

MESSAGES = [Message("system", "Be just."), Message("user", "A or B?")]
TURNS = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"


def chat(folder, template, **config):
    return ChatFormat(tiny.write_tokenizer(folder, tiny.byte_level(), template=template, **config))


def test_chatml(tmp_path):
    text = chat(tmp_path, tiny.CHATML).render(MESSAGES)
    assert text.endswith("<|im_start|>user\nA or B?<|im_end|>\n<|im_start|>assistant\n")
    assert "<|im_start|>system\nBe just." in text


REFUSING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TURNS
)
DROPPING = "{% for m in messages if m.role == 'user' %}[user] {{ m.content }}\n{% endfor %}"


@pytest.mark.parametrize("template", [REFUSING, DROPPING])
def test_system_is_folded_into_the_user_message(template, tmp_path):
    assert chat(tmp_path, template).render(MESSAGES) == "[user] Be just.\n\nA or B?\n"


def test_template_that_loses_the_user_is_refused(tmp_path):
    with pytest.raises(JudgeUnavailable, match="leaves out the"):
        chat(tmp_path, "{{ messages|length }}").render(MESSAGES)


def test_dates_never_change(tmp_path):
    template = TURNS + "{{ strftime_now('%Y-%m-%d') }} {{ date_string }}"
    assert chat(tmp_path, template).render(MESSAGES).endswith("2024-07-26 26 Jul 2024")


def test_thinking_is_switched_off(tmp_path):
    template = TURNS + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    assert chat(tmp_path, template).render(MESSAGES).endswith("<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    ("rendered", "closed"),
    [
        ("x<think>\n", "x<think>\n\n</think>\n\n"),
        ("x<think>", "x<think>\n\n</think>\n\n"),
        ("x<think>\n\n</think>\n\n", "x<think>\n\n</think>\n\n"),
        ("<seed:think>", "<seed:think>\n\n</seed:think>\n\n"),
        ("say <think> first\n", "say <think> first\n"),
        ("<|start|>assistant", "<|start|>assistant<|channel|>final<|message|>"),
    ],
)
def test_close_thinking(rendered, closed):
    assert close_thinking(rendered) == closed


def test_without_a_template_contents_are_joined(tmp_path):
    assert chat(tmp_path, None).render(MESSAGES) == "Be just.\n\nA or B?"


def test_without_a_template_a_text_opens_as_the_tokenizer_opens_it(tmp_path):
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny.byte_level()
    tokenizer.post_processor = TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", tokenizer.token_to_id("<|end|>"))]
    )
    folder = tiny.write_tokenizer(tmp_path, tokenizer, template=None, bos_token="<|end|>")
    assert ChatFormat(folder).render(MESSAGES) == "<|end|>Be just.\n\nA or B?"
