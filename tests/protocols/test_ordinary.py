"""Prompts in the words of FastChat and AlpacaEval become protocols that ask the same."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from steelyard.cli.doctor import any_bad
from steelyard.cli.inspection import check_protocol
from steelyard.errors import UsageError
from steelyard.protocols.files import load_protocol
from steelyard.protocols.ordinary import convert, read_prompt
from support.helpers import command, pairs_table, rows

# The shapes of FastChat's judge_prompts.jsonl (Apache 2.0), in short.
PAIR = {
    "name": "pair-v2", "type": "pairwise", "description": "Prompt for general questions",
    "system_prompt": "Please act as an impartial judge. Begin your evaluation by comparing the two"
    " responses and provide a short explanation. After providing your explanation, output your"
    ' final verdict by strictly following this format: "[[A]]" if assistant A is better, "[[B]]" if'
    ' assistant B is better, and "[[C]]" for a tie.',
    "prompt_template": "[User Question]\n{question}\n\n[The Start of Assistant A's Answer]\n"
    "{answer_a}\n[The End of Assistant A's Answer]\n\n[The Start of Assistant B's Answer]\n"
    "{answer_b}\n[The End of Assistant B's Answer]",
}  # fmt: skip
SINGLE = {
    "name": "single-v1", "type": "single", "description": "Prompt for one answer",
    "system_prompt": "You are a helpful assistant.",
    "prompt_template": "[Instruction]\nPlease act as an impartial judge. Begin your evaluation by"
    " providing a short explanation. After that, you must rate the response on a scale of 1 to 10"
    ' by strictly following this format: "[[rating]]", for example: "Rating: [[5]]".\n\n'
    "[Question]\n{question}\n\n[The Start of Assistant's Answer]\n{answer}",
}  # fmt: skip
SCORES = {
    "name": "math-v1", "description": "Two scores",
    "system_prompt": "You are a helpful and precise assistant.",
    "prompt_template": "[Question]\n{question}\n\n[Assistant 1]\n{answer_a}\n\n[Assistant 2]\n"
    "{answer_b}\n\nEach assistant gets an overall score from 1 to 10. Please first output a single"
    " line containing only two values. Then explain your evaluation.",
}  # fmt: skip
MULTI = PAIR | {
    "name": "multi",
    "prompt_template": "{question_1} {answer_a_1} {question_2} {answer_a_2}",
}
# The shape of AlpacaEval's classifier: chat markers, identifiers m and M, doubled braces.
CLASSIFIER = '''<|im_start|>system
You are a highly efficient assistant, who selects the best model's output.
<|im_end|>
<|im_start|>user
I require a leaderboard. Here is the prompt, and the outputs.

## Instruction

{{
    "instruction": """{instruction}""",
}}

## Model Outputs

{{
    {{
        "model_identifier": "m",
        "output": """{output_1}"""
    }},
    {{
        "model_identifier": "M",
        "output": """{output_2}"""
    }}
}}

Output only the identifier. Don't provide any explanation.

## Best Model Identifier
<|im_end|>
'''
RANKS = """<|im_start|>user
Please rank the models by the quality of their answers: [{{'model': <name>, 'rank': <rank>}}, ...].
{instruction}
model_1: {output_1}
model_2: {output_2}
<|im_end|>
"""
PLAIN = (
    "Task: {instruction}\n\nA: {response_a}\n\nB: {response_b}\n\nWhich is better? Answer A or B.\n"
)


SHOWN = "{instruction}\n\n### m\n{output_1}\n\n### M\n{output_2}\n\n"


@pytest.fixture
def make(tmp_path):
    def made(text, name="mine"):
        text = text if isinstance(text, str) else json.dumps(text)
        file = tmp_path / f"{name}.toml"
        converted = convert(read_prompt(text, name, "prompt.txt"), "prompt.txt")
        file.write_text(converted.to_toml())
        return load_protocol(file), converted.changes

    return made


def shown(protocol, present=()):
    """The user's text with marks in place of data."""
    return protocol.messages(frozenset(present))[-1].content


@pytest.mark.parametrize(
    ("text", "answer", "combine", "labels"),
    [
        (PAIR, "reasons", "tie", ("A", "B", "C")),
        (SINGLE, "reasons", "scale", tuple("0123456789")),
        (SCORES, "scores", "scores", ()),
        (CLASSIFIER, "label", "preference", ("m", "M")),
        (RANKS, "label", "preference", ("1", "2")),
        (PLAIN, "label", "preference", ("A", "B")),
    ],
    ids=["pair", "single", "scores", "classifier", "ranks", "plain"],
)
def test_a_prompt_becomes_a_protocol_that_passes_the_check(
    text, answer, combine, labels, make, tmp_path
):
    protocol, changes = make(text)
    assert (protocol.answer, protocol.combine, protocol.labels) == (answer, combine, labels)
    assert protocol.shows == ("response" if text is SINGLE else "pair")
    findings = check_protocol(str(tmp_path / "mine.toml"), "scripted")
    assert not any_bad(findings)
    assert all(": " in change or " " in change for change in changes)


def test_texts_are_in_their_places_and_nothing_else_is_changed(make):
    protocol, changes = make(PAIR)
    expected = PAIR["prompt_template"]
    for old, new in {"question": "instruction", "answer_a": "first", "answer_b": "second"}.items():
        expected = expected.replace(f"{{{old}}}", f"[[slot:{new}]]")
    assert shown(protocol) == expected
    assert protocol.system.strip() == PAIR["system_prompt"]
    assert protocol.about == "Prompt for general questions"
    assert "{question} -> {{ instruction }}: the row's instruction" in changes
    assert any("[[A]], [[B]], [[C]] are kept" in change for change in changes)


def test_doubled_braces_become_single_ones(make):
    protocol, changes = make(CLASSIFIER)
    text = shown(protocol)
    assert '{\n    "instruction": """[[slot:instruction]]""",\n}' in text
    assert '{\n    {\n        "model_identifier": "m",' in text
    assert text.endswith("## Best Model Identifier")
    assert any("single braces" in change for change in changes)
    assert any("<|im_start|>" in change for change in changes)


@pytest.mark.parametrize(
    "literal",
    ["{{{{", "{{{{ x }}}}", "{{%", "{{# no comment #}}", "a {{", "{{{{{{", "  {{{{\nb", "%}}"],
)
def test_braces_of_the_text_stay_text(literal, make):
    protocol, _ = make(f"{literal}{{instruction}}\n{literal}\n{PLAIN.split(chr(10), 2)[2]}")
    single = literal.replace("{{", "{").replace("}}", "}")
    assert shown(protocol).startswith(f"{single}[[slot:instruction]]\n{single}\n".lstrip(" "))


def test_names_in_doubled_braces_are_names_if_no_others_are(make):
    protocol, _ = make("{{ prompt }}\nA: {{response_a}}\nB: {{response_b}}\n{a: 1}\nSay A or B.")
    assert shown(protocol).startswith("[[slot:instruction]]\nA: [[slot:first]]\n")
    assert "{a: 1}" in shown(protocol)


def test_a_reference_is_shown_where_there_is_one(make):
    text = "{question}\n  Reference: {ref_answer_1}\nend\n{answer_a}\n{answer_b}"
    protocol, _ = make(text)
    assert "  Reference: [[slot:reference]]\nend\n" in shown(protocol, ["reference"])
    assert "  Reference: \nend\n" in shown(protocol)


def test_ten_steps_are_counted_from_zero(make):
    protocol, changes = make(SINGLE)
    assert "on a scale of 0 to 9" in shown(protocol)
    assert protocol.scale == tuple(range(1, 11))
    assert any("1 to 10 became 0 to 9" in change for change in changes)
    short, _ = make("{instruction} {response} Give a score from 1 to 5.")
    assert (short.answer, short.labels, short.scale) == ("label", tuple("12345"), (1, 2, 3, 4, 5))


def test_labels_at_once_where_no_reasons_are_wanted(make):
    text = "{question} {answer_a} {answer_b} Output only [[A]] or [[B]], without any explanation."
    protocol, _ = make(text)
    assert (protocol.answer, protocol.prefix) == ("label", "[[")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{question} {answer_a}", "does not show the second response"),
        ("{answer_a} {answer_b}", "does not show the instruction"),
        ("{question} Is it good?", "does not show the responses"),
        ("{question} {answer} {answer_a} {answer_b}", "a response alone, or two"),
        ("{question} {question} {answer_a} {answer_b}", "the instruction is shown twice"),
        ("{question} {answer_a} {answer_b} {style}", "{style} is not a text of a row"),
        (json.dumps(MULTI), "the prompt shows several turns"),
        ("{question} {answer}", "names no scale"),
        ("{question} {answer} from 1 to 100", "the scale is 1 to 100"),
        ("{question} {answer_a} {answer_b} [[A]] [[B]] [[C]] [[D]]", "the verdict has 4 forms"),
        ('{"name": "x", "prompt_template": 1', "are not JSON"),
        ("<|im_start|>tool\nx<|im_end|>", "a message is by tool"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_a_remedy(text, cause, make):
    with pytest.raises(UsageError) as refused:
        make(text)
    assert cause in refused.value.cause
    assert refused.value.remedy


def test_a_file_of_several_prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = "".join(json.dumps(entry) + "\n" for entry in (PAIR, SINGLE, SCORES))
    (tmp_path / "judge_prompts.jsonl").write_text(lines)
    line = ("protocol", "new", "mine", "--template", "judge_prompts.jsonl")
    wrong = command(*line)
    assert wrong.returncode == 2
    assert "--prompt pair-v2, single-v1, math-v1" in wrong.stderr
    done = command(*line, "--prompt", "pair-v2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wrote mine.toml\n- ")
    assert command("protocol", "check", "mine.toml", "--judge", "scripted").returncode == 0
    again = command(*line, "--prompt", "pair-v2")
    assert again.returncode == 2  # the file is there
    built_in = command("protocol", "new", "pairwise", "--template", "judge_prompts.jsonl")
    assert "built-in" in built_in.stderr


def test_a_run_by_a_converted_prompt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text(PLAIN)
    assert command("protocol", "new", "mine", "--template", "mine.txt").returncode == 0
    pq.write_table(pairs_table(8), tmp_path / "pairs.parquet")
    line = ("score", "pairs.parquet", "--run", "run", "--judge", "scripted", "--protocol")
    assert command(*line, "mine.toml").returncode == 0
    assert rows("run", "SELECT DISTINCT protocol, status FROM verdicts") == [
        {"protocol": "mine", "status": "ok"}
    ]


@pytest.mark.parametrize(
    ("asked", "labels"),
    [
        ("Which one is best, m or M?", ("m", "M")),
        ('Answer with "m" or "M".', ("m", "M")),
        ("Reply with 1 or 2, nothing else.", ("1", "2")),
        ("Say X if the first one is better, or Y if the second one is.", ("X", "Y")),
        ('Print "Y" if the second one is better, "X" if not.', ("X", "Y")),
    ],
)
def test_the_labels_of_a_prompt_stay_and_nothing_is_appended(asked, labels, make):
    protocol, _ = make(SHOWN + asked)
    assert protocol.labels == labels
    assert shown(protocol).endswith(asked)


def test_a_prompt_that_asks_for_no_label_is_completed(make):
    protocol, changes = make(SHOWN + "Which response is better, in a word or two?")
    assert protocol.labels == ("A", "B")
    assert "Answer A if the response that is shown first is better" in shown(protocol)
    assert any("no form of a verdict was found" in change for change in changes)
