"""Prompts in ordinary words, as FastChat and AlpacaEval write them -> keys of a protocol file.

prompt = read_prompt(text, "pair-v2", place)
converted = convert(prompt, place)      # `converted.changes` says what was done, and why
path.write_text(converted.to_toml())
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field

from steelyard.errors import UsageError, escape
from steelyard.protocols.verdict_forms import Answer, asked_of_pair, asked_of_response

# What a slot is called elsewhere.
NAMES = {
    "instruction": ("instruction", "question", "prompt", "query", "input", "user_input", "task"),
    "first": ("response_a", "answer_a", "output_1", "output_a", "response_1", "answer_1",
              "completion_a", "completion_1", "assistant_a", "first", "chosen"),
    "second": ("response_b", "answer_b", "output_2", "output_b", "response_2", "answer_2",
               "completion_b", "completion_2", "assistant_b", "second", "rejected"),
    "response": ("response", "answer", "output", "completion", "prediction"),
    "reference": ("reference", "ref_answer_1", "ref_answer", "reference_answer", "gold_answer"),
    "criterion": ("criterion", "criteria", "rubric"),
}  # fmt: skip
_SLOTS = {name: slot for slot, names in NAMES.items() for name in names}
_WHY = {
    "instruction": "the row's instruction",
    "first": "the response that is shown first: each pair is shown in both orders",
    "second": "the response that is shown second",
    "response": "the response, which is judged by itself",
    "reference": "the row's reference, left out where it has none",
    "criterion": "one criterion per prompt",
}
_TURN = re.compile(r"(?:question|answer_[ab]|ref_answer)_\d")
_FORMAT = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*)\}")
_JINJA = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
_SINGLE = re.compile(r"(?<!\{)\{([A-Za-z_]\w*)\}(?!\})")
_CHAT = re.compile(r"<\|im_start\|>\s*(\w+)\n(.*?)(?:<\|im_end\|>|\Z)", re.DOTALL)
_BRACES = re.compile(r"\{+[%#]|\{{2,}|\{\Z")


@dataclass(frozen=True, slots=True)
class OrdinaryPrompt:
    """A prompt with names in braces: `{instruction}`."""

    system: str
    user: str
    prefix: str = ""  # with which the judge's answer begins
    about: str = ""
    changes: tuple[str, ...] = ()  # that were made while it was read


@dataclass(slots=True)
class Converted:
    """The keys of a protocol file, and what was changed for what reason."""

    keys: dict[str, object] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)

    def to_toml(self) -> str:
        """Return the protocol's file."""
        texts = ("system", "user")
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.keys.items()
                 if key not in texts]  # fmt: skip
        lines += [f"\n{key} = {_toml_text(str(self.keys[key]))}" for key in texts if self.keys[key]]
        return "\n".join(lines) + "\n"


def read_prompt(text: str, name: str, place: str) -> OrdinaryPrompt:
    """Read a prompt: plain text, a text with chat markers, or lines of JSON as FastChat has them.

    Args:
        text: the file's content.
        name: of the prompt, where there are several.
        place: the file, for errors.

    Raises:
        UsageError: there are several prompts, and none of this name, or the JSON holds none.
    """
    if text.lstrip().startswith("{") and '"prompt_template"' in text:
        return _from_json(text, name, place)
    messages = [(role, content.strip("\n")) for role, content in _CHAT.findall(text)]
    if not messages:
        return OrdinaryPrompt("", text.strip("\n"))
    parts: dict[str, list[str]] = {"system": [], "user": [], "assistant": []}
    for role, content in messages:
        if role not in parts or (role == "assistant" and content and role != messages[-1][0]):
            raise UsageError(
                f"a message is by {escape(role)}", place=place,
                remedy="keep a system message, one of the user, and the beginning of the answer",
            )  # fmt: skip
        parts[role].append(content)
    return OrdinaryPrompt(
        "\n\n".join(parts["system"]),
        "\n\n".join(parts["user"]),
        "".join(parts["assistant"]),
        changes=("<|im_start|> and <|im_end|> are gone: each judge's own chat format is used",),
    )


def _from_json(text: str, name: str, place: str) -> OrdinaryPrompt:
    try:
        entries = [json.loads(line) for line in text.splitlines() if line.strip()]
        by_name = {str(entry["name"]): entry for entry in entries}
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            "the lines are not JSON with `name` and `prompt_template`", place=place,
            remedy="give lines as FastChat's judge_prompts.jsonl has them, or a plain text",
        ) from None  # fmt: skip
    if len(entries) == 1:
        name = next(iter(by_name))
    if name not in by_name:
        raise UsageError(
            f"the prompt {escape(name)!r} is not among them", place=place,
            remedy=f"name one of: --prompt {', '.join(map(escape, by_name))}",
        )  # fmt: skip
    entry = by_name[name]
    return OrdinaryPrompt(
        str(entry.get("system_prompt") or ""),
        str(entry["prompt_template"]),
        about=str(entry.get("description") or ""),
        changes=(f"the prompt {name} was taken from the file",),
    )


def convert(prompt: OrdinaryPrompt, place: str) -> Converted:
    """Return a protocol that asks what an ordinary prompt asks.

    Raises:
        UsageError: it names something that is not a text of a row, shows a text twice, lacks the
            instruction or the responses, or asks for an answer that no kind of protocol reads.
    """
    made = Converted(changes=list(prompt.changes))
    texts = [prompt.system, prompt.user]
    both = "\n".join(texts)
    jinja = bool(_known(_JINJA, both)) and not _known(_SINGLE, both)
    used = Counter(_slot(name, place) for name in _names(both, jinja=jinja))
    twice = [slot for slot, count in used.items() if count > 1]
    if twice:
        raise UsageError(
            f"the {twice[0]} is shown twice", place=place,
            remedy="show it once: a prompt is cut at its texts, and a text is computed once",
        )  # fmt: skip
    answer = _answer_of(both, used, place)
    for old, new in answer.replaced.items():
        texts = [text.replace(old, new) for text in texts]
    texts[1] = texts[1].rstrip() + answer.appended
    converted = [_to_template(text, made, jinja=jinja) for text in texts]
    made.changes += answer.changes
    if not used["reference"]:
        made.changes.append(
            "system messages, earlier turns and references of rows are not shown: put"
            " {{ context }} in place of {{ instruction }} if your rows have any"
        )
    made.keys = {
        "about": prompt.about or f"Converted from {place.rpartition('/')[2]}",
        **({} if used["first"] else {"shows": "response"}),
        **answer.keys,
        "system": converted[0],
        "user": converted[1],
    }
    if prompt.prefix.strip() and answer.keys["answer"] == "label":
        made.keys["prefix"] = prompt.prefix
    return made


def _known(pattern: re.Pattern[str], text: str) -> set[str]:
    return set(pattern.findall(text)) & _SLOTS.keys()


def _names(text: str, *, jinja: bool) -> list[str]:
    return [name for name in (_JINJA if jinja else _FORMAT).findall(text) if name]


def _slot(name: str, place: str) -> str:
    if name in _SLOTS:
        return _SLOTS[name]
    remedy = f"name one of {', '.join(f'{{{names[0]}}}' for names in NAMES.values())}, or put the"
    remedy += " text in its place; braces that are meant as such are doubled: {{ and }}"
    cause = f"{{{name}}} is not a text of a row"
    if _TURN.fullmatch(name):
        cause += ": the prompt shows several turns"
        remedy = "take the prompt for one turn, or the protocol multi-turn (docs/protocols.md)"
    raise UsageError(cause, place=place, remedy=remedy)


def _answer_of(text: str, used: Counter[str], place: str) -> Answer:
    if not used["instruction"]:
        missing = "instruction"
    elif used["first"] != used["second"]:
        missing = "second response" if used["first"] else "first response"
    elif bool(used["first"]) == bool(used["response"]):
        missing = "responses" if not used["first"] else "kind: a response alone, or two of them"
    else:
        return (asked_of_pair if used["first"] else asked_of_response)(text, place)
    raise UsageError(
        f"the prompt does not show the {missing}", place=place,
        remedy="write {instruction}, and {response_a} and {response_b}, or {response}",
    )  # fmt: skip


def _to_template(text: str, made: Converted, *, jinja: bool) -> str:
    """Return a template of this project, and note what was changed."""
    pieces: list[str] = []
    end = 0
    for match in (_JINJA if jinja else _FORMAT).finditer(text):
        pieces.append(_literal(text[end : match.start()]))
        end = match.end()
        name = match[1]
        if name is None:  # a doubled brace
            pieces.append(match[0][0])
            _note(made, "{{ and }} are single braces now: they were doubled for Python's format")
            continue
        slot = _SLOTS[name]
        shown = f"{{{{ {slot} }}}}"
        if slot == "reference":
            shown = f"{{%+ if reference %}}{shown}{{% endif +%}}"
        pieces.append(f"\0{shown}\0")
        _note(made, f"{{{name}}} -> {{{{ {slot} }}}}: {_WHY[slot]}")
    pieces.append(_literal(text[end:]))
    literal = "".join(pieces).split("\0")
    return "".join(
        part if number % 2 else _protect(part, made) for number, part in enumerate(literal)
    )


def _literal(text: str) -> str:
    return text.replace("\0", "")


def _protect(text: str, made: Converted) -> str:
    """Return text in which no brace can be taken for the beginning of a slot or a block."""

    def raw(match: re.Match[str]) -> str:
        _note(made, "braces of the text are inside {% raw %}: alone they would begin a slot")
        return f"{{%+ raw %}}{match[0]}{{% endraw +%}}"

    return _BRACES.sub(raw, text)


def _note(made: Converted, change: str) -> None:
    if change not in made.changes:
        made.changes.append(change)


def _toml_text(text: str) -> str:
    if "'''" not in text and not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text):
        return f"'''\n{text}\n'''"
    return json.dumps(text + "\n", ensure_ascii=False).replace("\x7f", "\\u007f")
