"""Chat templates from strangers: bounded time and memory, and the same text as transformers'.

Kind of fault: chat templates without limits.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from steelyard.errors import JudgeUnavailable
from steelyard.judge.model import template_process
from steelyard.judge.model.chat import ChatFormat
from steelyard.judge.model.template_process import TemplateError, TemplateProcess
from steelyard.protocols.protocol import Message
from support import tiny

DAY = datetime(2024, 7, 26, tzinfo=UTC)
LOOP = "{% for i in range(99999) %}"
HOSTILE = {
    "nested loops": LOOP * 4 + "{% endfor %}" * 4,
    "a long text": "{{ 'a' * 10**10 }}",
    "a text of 100 MB": "{{ 'a' * 10**8 }}",
    "a wide format": "{{ '%1000000000d' % 1 }}",
    "a power": "{{ 10**(10**9) }}",
    "doubling": "{% set n = namespace(a='a') %}{% for i in range(60) %}{% set n.a = n.a + n.a %}"
    "{% endfor %}",
    "doubling lists": "{% set n = namespace(a=[0]) %}{% for i in range(60) %}"
    "{% set n.a = n.a + n.a %}{% endfor %}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}"
    "{% endif %}{% endmacro %}{{ f(60) }}",
    "recursive loops": "{% for m in [[[[1]]]] recursive %}{{ loop([m, m]) }}{% endfor %}",
    "a centred text": "{{ 'a' | center(10**10) }}",
    "many parentheses": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    "many blocks": "{% if 1 %}" * 30_000 + "{% endif %}" * 30_000,
    "many names": "{{ a }}" * 120_000,
    "too long": "a" * ((1 << 20) + 1),
}


def ended(kind: str) -> str:
    process = TemplateProcess(HOSTILE[kind], "the judge", DAY)
    with pytest.raises((JudgeUnavailable, TemplateError)) as error:
        process.render({})
    return str(error.value)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_template_without_limits_of_time_and_memory_ends(kind):
    limits = {
        "nested loops": "takes more than",
        "a long text": "512 MiB of memory",
        "a text of 100 MB": "256 KiB of text",
        "too long": "1 MiB of source",
    }
    assert limits.get(kind, "") in ended(kind)


def test_a_judge_with_such_a_template_is_refused_at_the_first_try(tmp_path, monkeypatch):
    """Other ways of writing the messages are not tried: each would take as long."""
    folder = tiny.write_tokenizer(tmp_path, tiny.byte_level(), template=HOSTILE["nested loops"])
    chat = ChatFormat(folder)
    asked = []
    real = template_process._Worker.ask
    monkeypatch.setattr(
        template_process._Worker, "ask", lambda *given: asked.append(1) or real(*given)
    )
    with pytest.raises(JudgeUnavailable, match="takes more than"):
        chat.render([Message("user", "A or B?")])
    assert len(asked) == 1


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ strftime_now.__self__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{% include '/etc/hostname' %}",
        "{% import 'os' as os %}",
    ],
)
def test_a_template_of_a_stranger_reaches_no_object_and_no_file(source):
    text = ""
    with suppress(TemplateError):
        text = TemplateProcess(source, "the judge", DAY).render({"messages": []})
    assert not text  # what is out of reach is undefined, or an error


def test_a_process_ends_with_its_judge_and_survives_an_error():
    process = TemplateProcess("{{ raise_exception(x) if x else 'fine' }}", "the judge", DAY)
    with pytest.raises(TemplateError, match=r"^no$"):
        process.render({"x": "no"})
    assert process.render({"x": ""}) == "fine"
    number = process._worker._process.pid
    del process
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_a_machine_that_starts_no_process_is_explained(monkeypatch):
    def none(*_args, **_options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(template_process.subprocess, "Popen", none)
    with pytest.raises(JudgeUnavailable, match="cannot be started: Resource temporarily"):
        TemplateProcess("x", "the judge", DAY).render({})


def test_a_lower_limit_of_the_machine_stays(monkeypatch):
    lowered = []
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (5, 10))
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, most: lowered.append(most))
    template_process.template_worker._limit(resource.RLIMIT_CPU, 30)
    template_process.template_worker._limit(resource.RLIMIT_CPU, 3)
    assert lowered == [(10, 10), (3, 10)]


SAME = {
    "ChatML": tiny.CHATML,
    "blocks": "  {% if messages %}\n  x\n  {% endif %}\n{%- for m in messages %}"
    " {{ m.role }}{% endfor %}\n",
    "tokens": "{{ bos_token }}{{ eos_token }}{{ pad_token }}|{{ tools is none }}{{ documents }}",
    "json": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ 'ä<&' | tojson }}"
    "{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}",
    "loop controls": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
    "{{ m.content }}{% continue %}{% endfor %}",
    "generation": "{% set x = 1 %}{% for m in messages %}{% generation %}{% set x = 2 %}"
    "{{ m.content | trim }}{{ x }}{% endgeneration %}{{ x }}{% endfor %}",
    "namespace": "{% set n = namespace(system=false) %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set n.system = m.content %}{% endif %}{% endfor %}"
    "{{ n.system }}{{ n.system.split('u')[-1].strip() | upper }}",
    "macros": "{% macro f(m, k='x') -%} <{{ m['content'] }}{{ k }}> {%- endmacro %}"
    "{% for m in messages %}{{ f(m) }}{% endfor %}{{ raise_exception is defined }}",
    "dates": "{{ strftime_now('%d %B %Y') }}{{ date_string }}{{ enable_thinking }}",
    "parts": "{% for m in messages %}{% if m.content is string %}s{% else %}"
    "{% for p in m.content %}{{ p.type }}{{ p.text }}{% endfor %}{% endif %}{% endfor %}",
    "characters": "{{ messages[0].content ~ '\\u2028\\ud7ff🙂' }}{{ 'a\\tb' }}",
}


@pytest.mark.parametrize("kind", SAME)
def test_texts_are_those_of_transformers(kind, tmp_path):
    messages = [{"role": "system", "content": "Be just. ä🙂"}, {"role": "user", "content": "A"}]
    folder = tiny.write_tokenizer(
        tmp_path, tiny.byte_level(), template=SAME[kind], bos_token="<|end|>", eos_token="<|end|>"
    )
    chat = ChatFormat(folder)
    expected = chat._tokenizer.apply_chat_template(
        messages,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
        date_string="26 Jul 2024",
        strftime_now=DAY.strftime,
    )
    given = [Message(m["role"], m["content"]) for m in messages]
    assert chat._apply(given, parts=False) == expected
