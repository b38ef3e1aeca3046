"""What a run asks, and how a judge words it."""

from dataclasses import replace

import msgspec
import pytest

from steelyard.core.judges import Answer, LabelSet
from steelyard.plan.spec import Form, JudgeForms, JudgingSpec, KeySpec
from steelyard.protocols.axes import Criterion, PromptAxes
from steelyard.protocols.protocol import Protocol

PAIR = Protocol("p", combine="preference", labels=("A", "B"), user="{{ instruction }} {{ first }}")
RESPONSE = Protocol(
    "r", shows="response", combine="scale", labels=("1", "2"), scale=(1.0, 2.0),
    user="{{ instruction }} {{ response }}", samples=3,
)  # fmt: skip
COMMON = ("instruction", "response_a", "response_b")


def spec(protocol, *more, categories=(), **axes):
    protocols = (protocol, *more)
    asked = PromptAxes(protocol.shows, variants=len(protocols), **axes)
    return JudgingSpec(protocols, asked, categories)


def test_a_plain_spec_asks_what_its_protocol_says():
    plain = JudgingSpec.plain(RESPONSE)
    assert plain.axes == PromptAxes("response", samples=3)
    assert (plain.protocols, plain.categories) == ((RESPONSE,), ())
    assert (plain.name, plain.protocol) == ("r", RESPONSE)


def test_variants_share_the_first_protocol_and_name_all():
    both = spec(PAIR, replace(PAIR, name="q"))
    assert both.name == "p + q"
    assert both.protocol is PAIR


def test_the_columns_that_are_needed():
    assert spec(PAIR).required_roles == COMMON
    assert spec(PAIR, row_criteria=True).required_roles == (*COMMON, "criteria")
    assert spec(RESPONSE).required_roles == COMMON[:2]
    assert spec(RESPONSE, row_criteria=True).required_roles == (*COMMON[:2], "criteria")


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("first_turns", ("turns_a", "turns_b")),
        ("second_turns", ("turns_a", "turns_b")),
        ("response_turns", ("turns_a", "turns_b")),
        ("conversation", ()),
    ],
)
def test_the_columns_that_are_used_besides(name, roles):
    shown = replace(PAIR, user=f"{PAIR.user} {{{{ {name} }}}}")
    assert spec(shown).special_roles == roles
    assert spec(PAIR, shown).special_roles == roles
    assert spec(shown, row_criteria=True).special_roles == (*roles, "criteria")
    assert spec(shown, categories=("code",)).special_roles == (*roles, "category")
    all_of_them = spec(shown, row_criteria=True, categories=("code",)).special_roles
    assert all_of_them == (*roles, "criteria", "category")


@pytest.mark.parametrize(
    ("protocols", "axes", "cause"),
    [
        ((), PromptAxes(), "there is no protocol"),
        ((PAIR,), PromptAxes(variants=2), "is not the number of protocols"),
        ((PAIR, PAIR), PromptAxes(), "is not the number of protocols"),
        ((replace(PAIR, combine="mean"),), PromptAxes(), "no rule is called 'mean'"),
        ((PAIR,), PromptAxes("response"), "cannot show a pair here"),
        ((RESPONSE,), PromptAxes(), "cannot show a response here"),
        ((replace(PAIR, combine="scale"),), PromptAxes(), "cannot show a pair here"),
        (
            (replace(RESPONSE, combine="preference", labels=("A", "B")),), PromptAxes("response"),
            "cannot show a response here",
        ),
        ((replace(PAIR, labels=("A",)),), PromptAxes(), "takes 2 labels"),
        ((replace(PAIR, labels=("A", "B", "C")),), PromptAxes(), "takes 2 labels"),
        ((replace(RESPONSE, scale=(1.0,)),), PromptAxes("response"), "do not match"),
        ((RESPONSE, replace(RESPONSE, scale=())), PromptAxes("response", variants=2), "not match"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(protocols, axes, cause):
    with pytest.raises(ValueError, match=cause):
        JudgingSpec(protocols, axes, ())


def test_a_spec_is_read_again_as_it_was_written():
    asked = spec(PAIR, criteria=(Criterion("brief", 2.0),), judges=2, categories=("code",))
    record = msgspec.json.encode(asked)
    assert b'"questions"' in record
    assert msgspec.json.decode(record, type=JudgingSpec) == asked


FORM = Form(
    templates={"": "[[slot:first]] é", "system": "[[slot:system]] [[slot:first]] [[slot:shot]]"},
    constants={"shot": "ü", "other": "xyz"},
    pictured={"": "[[slot:images]] [[slot:first]] [[slot:images]]", "system": "s [[slot:images]]"},
    blocks=("<1>", "<2>"),
)


def test_a_form_by_its_optional_texts_and_images():
    assert FORM.template("", 0) == "[[slot:first]] é"
    assert FORM.template("system", 0) == "[[slot:system]] [[slot:first]] [[slot:shot]]"
    assert FORM.template("", 1) == "<1> [[slot:first]] <1>"
    assert FORM.template("system", 2) == "s <2>"


def test_the_bytes_of_a_form_are_those_of_its_longest_text_and_its_constants():
    # 44 of the second text, and of the constants 2 for ü and 3 for xyz.
    assert len(FORM.templates["system"]) == 44
    assert FORM.fixed_bytes == 44 + 2 + 3
    assert Form({"": "é"}, {}).fixed_bytes == 2


def test_a_form_has_no_images_by_default():
    assert (Form({"": "x"}, {}).pictured, Form({"": "x"}, {}).blocks) == ({}, ())


def judge(fingerprints, forms=(FORM,), pictured=()):
    return JudgeForms(Answer(LabelSet((), ())), forms, fingerprints, pictured)


ONE, TWO, THREE = "01" * 16, "a2" * 16, "ff" * 16


@pytest.mark.parametrize("wrong", [ONE[:-1], ONE + "0", "X" * 32, ONE.replace("0", "A"), ""])
def test_a_fingerprint_is_32_hex_digits(wrong):
    record = msgspec.to_builtins(judge((ONE,), ()))
    assert msgspec.convert(record, JudgeForms).fingerprints == (ONE,)
    with pytest.raises(msgspec.ValidationError, match="fingerprints"):
        msgspec.convert(record | {"fingerprints": [wrong]}, JudgeForms)


def test_what_decides_keys():
    other = Form({"": "[[slot:second]] [[slot:criterion]]" + "x" * 99}, {})
    asked = spec(PAIR, categories=("code",), judges=2)
    judges = [judge((ONE, TWO), (FORM, other), pictured=(TWO, THREE)), judge((TWO, ONE))]
    assert KeySpec.of(asked, judges) == KeySpec(
        axes=asked.axes,
        forms=((bytes([1]) * 16, bytes([0xA2]) * 16), (bytes([0xA2]) * 16, bytes([1]) * 16)),
        categories=("code",),
        shown=frozenset({"first", "second", "system", "criterion"}),  # a constant is not shown
        pictured=((bytes([0xA2]) * 16, bytes([0xFF]) * 16),),
        template_bytes=34 + 99,
    )


def test_keys_of_judges_without_images():
    assert KeySpec.of(spec(PAIR), [judge((ONE,))]).pictured == ()
    plain = KeySpec(PromptAxes(), (), (), frozenset())
    assert (plain.pictured, plain.template_bytes) == ((), 0)
