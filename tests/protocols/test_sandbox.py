"""Templates: what they may say, and that nothing else runs, prints or lasts."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.errors import UsageError
from steelyard.protocols.sandbox import OUTPUT_BYTES, names, render

MARKS = {name: f"[[slot:{name}]]" for name in ("instruction", "first", "second", "system")}
EXAMPLES = ({"question": "2 + 2", "answer": "<b>4</b>"}, {"question": "3 + 3", "answer": "6"})
DEEP = 2_900


def test_a_template_reads_naturally():
    source = """\
{# Shown to nobody. #}
{% if system and not reference %}
### System
{{ system }}

{% elif reference %}
### Reference
{{ reference }}

{% else %}
### Nothing
{% endif %}
### Instruction
{{ instruction }}
"""
    assert (
        render(source, MARKS, place="t")
        == "### System\n[[slot:system]]\n\n### Instruction\n[[slot:instruction]]"
    )


def test_examples_are_looped_over():
    source = (
        "{% for example in examples %}{{ loop.index }}. {{ example.question }}"
        " = {{ example.answer }}{% if example.note %} ({{ example.note }}){% endif %}"
        "{% if not loop.last %}; {% endif %}{% endfor %}"
    )
    rendered = render(source, {"examples": EXAMPLES}, place="t")
    assert rendered == "1. 2 + 2 = <b>4</b>; 2. 3 + 3 = 6"
    assert render(source, {}, place="t") == ""


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("system", True),
        ("reference", False),
        ("not reference", True),
        ("system and reference", False),
        ("system or reference", True),
        ("not (reference or nothing)", True),
    ],
)
def test_conditions(condition, holds):
    source = f"{{% if {condition} %}}yes{{% else %}}no{{% endif %}}"
    assert render(source, MARKS, place="t") == ("yes" if holds else "no")


def test_text_with_braces_can_be_kept():
    source = '{% raw %}{"verdict": {{ "A" }}}{% endraw %} {{ first }}'
    assert render(source, MARKS, place="t") == '{"verdict": {{ "A" }}} [[slot:first]]'


def test_names_are_what_a_template_uses():
    source = (
        "{% if a and not b %}{{ c }}{% endif %}"
        "{% for example in examples %}{{ example.d }}{{ e }}{% endfor %}{# {{ f }} #}"
    )
    assert names(source, place="t") == {"a", "b", "c", "e", "examples"}
    assert names("text", place="t") == frozenset()


REFUSED = {
    "{{ 'a' * 10**9 }}": "arithmetic",
    "{{ -first }}": "arithmetic",
    "{{ ''.__class__ }}": "an attribute",
    "{{ first.upper }}": "an attribute",
    "{{ first|attr('__class__') }}": "a filter",
    "{{ first|upper }}": "a filter",
    "{{ first.format(1) }}": "a call",
    "{{ cycler(1) }}": "a call",
    "{{ first[0] }}": "a subscript",
    "{{ first ~ second }}": "joining with ~",
    "{{ first if second }}": "an `if` inside an expression",
    "{{ [first] }}": "a list",
    "{{ 'text' }}": "a constant",
    "{% if first is defined %}{% endif %}": "a test",
    "{% if first > 'a' %}{% endif %}": "a comparison",
    "{% if first == 'a' %}{% endif %}": "a comparison",
    "{% if first == second %}{% endif %}": "a comparison",
    "{% for i in range(10**12) %}x{% endfor %}": "a loop other than",
    "{% for letter in first %}{{ letter }}{% endfor %}": "a loop other than",
    "{% for example in examples if example.a %}{% endfor %}": "a loop other than",
    "{% for example in examples recursive %}{% endfor %}": "a loop other than",
    "{% for example in examples %}{% else %}x{% endfor %}": "a loop other than",
    "{% for example in examples %}{% for example in examples %}x{% endfor %}{% endfor %}": (
        "a loop inside a loop"
    ),
    "{% for example in examples %}{{ example.__class__ }}{% endfor %}": "an attribute",
    "{% for example in examples %}{{ loop.cycle }}{% endfor %}": "an attribute",
    "{% for example in examples %}{{ example }}{% endfor %}": "example is not a text",
    "{{ examples }}": "examples is not a text",
    "{{ example.a }}": "only inside the loop",
    "{{ loop.index }}": "only inside the loop",
    "{{ self }}": "cannot be a name",
    "{{ _private }}": "cannot be a name",
    "{% set first = 1 %}": "`set`",
    "{% set x %}{% endset %}": "`set`",
    "{% macro m() %}{% endmacro %}": "a macro",
    "{% call m() %}{% endcall %}": "a call block",
    "{% filter upper %}x{% endfilter %}": "a filter",
    "{% block b %}{% endblock %}": "a block",
    "{% include 'x' %}": "`include`",
    "{% import 'x' as x %}": "`import`",
    "{% from 'x' import y %}": "`import`",
    "{% extends 'x' %}": "`extends`",
    "{% with a = 1 %}{% endwith %}": "`with`",
    "{% autoescape true %}{% endautoescape %}": "`autoescape`",
    "{% do first %}": "unknown tag 'do'",
    "{{ first": "end of print statement",
    "{% if first %}": "Unexpected end of template",
    "{% endif %}": "unknown tag 'endif'",
    "{{ absent }}": "absent is printed but has no value",
    "{{ range }}": "range is printed but has no value",
    "{% for example in examples %}{{ example.absent }}{% endfor %}": "example.absent is printed",
}


@pytest.mark.parametrize("source", REFUSED)
def test_everything_else_is_refused_with_its_line(source):
    with pytest.raises(UsageError) as refused:
        render(f"one\n\n{source}", {**MARKS, "examples": EXAMPLES}, place="mine.jinja")
    assert REFUSED[source] in refused.value.cause
    if "autoescape" not in source:  # Jinja gives that one no line
        assert refused.value.cause.startswith("line 3: ")
    assert refused.value.place == "mine.jinja"


BOMBS = {
    "open ifs": "{% if a %}" * 6_500,
    "closed ifs": "{% if a %}" * DEEP + "{% endif %}" * DEEP,
    "open brackets": "{{ " + "(" * 60_000 + " }}",
    "closed brackets": "{{ " + "(" * 32_000 + "a" + ")" * 32_000 + " }}",
    "not not": "{% if " + "not " * 15_000 + "a %}{% endif %}",
    "and and": "{% if " + " and ".join("a" * 9_000) + " %}{% endif %}",
    "prints": "{{a}}" * 13_000,
    "names": "".join(f"{{{{n{i}}}}}" for i in range(6_500)),
    "ifs in a row": "{%if a%}{%endif%}" * 3_600,
    "elifs": "{%if a%}" + "{%elif b%}" * 6_400 + "{%endif%}",
    "digits": "{% if a == " + "9" * 60_000 + " %}{% endif %}",
    "digits with underscores": "{% if a == " + "1_" * 30_000 + " %}{% endif %}",
    "spaces in a tag": "{%" + " " * 65_000,
    "open tags": "{%-" * 21_000,
    "open comments": "{#" * 32_000,
    "open raws": "{% raw %}" * 7_000,
    "open prints": "{{" * 32_000,
    "quotes": "{{ '" + "\\'" * 30_000,
    "source": "a" * (64 * 1024 + 1),
    "source in bytes": "ü" * (32 * 1024 + 1),
    "output": "{% for example in examples %}" + "x" * 60_000 + "{% endfor %}",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused(bomb):
    examples = tuple({"a": "x"} for _ in range(100))
    with pytest.raises(UsageError, match=r"allowed|deeper|at most|cannot be read|limit|line 1: "):
        render(BOMBS[bomb], {"a": "[[slot:a]]", "examples": examples}, place="bomb")


def test_no_time_is_left():
    ticks = iter([0.0, 1.9, 2.1])
    source = "{% for example in examples %}{{ example.question }}{% endfor %}"
    with pytest.raises(UsageError, match="limit of 2 seconds"):
        render(source, {"examples": EXAMPLES}, place="t", clock=lambda: next(ticks))


def test_the_largest_output_passes():
    """Four examples of a quarter of the limit each."""
    examples = tuple({"a": "x" * (OUTPUT_BYTES // 4)} for _ in range(4))
    source = "{% for example in examples %}{{ example.a }}{% endfor %}"
    assert len(render(source, {"examples": examples}, place="t")) == OUTPUT_BYTES
    with pytest.raises(UsageError, match="limit of 262,144 bytes"):
        render(source + "!", {"examples": examples}, place="t")


PLAIN = st.text(st.characters(exclude_characters="{}%#\r\n", codec="utf-8"), max_size=30)


@settings(deadline=None)
@given(PLAIN, PLAIN, st.text(max_size=30))
def test_marks_come_out_as_they_went_in(before, after, mark):
    assert render(f"{before}{{{{ a }}}}{after}", {"a": mark}, place="t") == before + mark + after


@settings(deadline=None)
@given(st.text(st.sampled_from("{}%# ab'()._=|~\n") | st.characters(codec="utf-8"), max_size=60))
def test_any_source_is_rendered_or_refused(source):
    try:
        rendered = render(source, {"a": "A", "b": "B"}, place="t")
    except UsageError:  # and nothing else
        return
    assert len(rendered) <= len(source)  # each value is shorter than what prints it


def test_jinja_is_left_alone_until_a_template_is_read():
    code = (
        "import sys, steelyard.protocols.sandbox, steelyard.cli;"
        "sys.exit(any(name in sys.modules for name in ('jinja2', 'markupsafe')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
