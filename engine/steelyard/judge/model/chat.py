"""A judge's chat format: rendering without dates, lost texts or open thinking blocks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steelyard.errors import JudgeUnavailable, SteelyardError, escape
from steelyard.judge.model.json_files import EndIds, check_tokenizer_files, read_object
from steelyard.judge.model.template_process import TemplateError, TemplateProcess
from steelyard.protocols.protocol import IMAGES, Message, slot

# The date for templates that show one; Llama 3's own default.
_DAY = datetime(2024, 7, 26, tzinfo=UTC)
# A thinking block that the template has opened at the end (DeepSeek-R1 does so always).
_OPENED = re.compile(r"<((?:[a-z]+:)?(?:think|thinking|thought|reasoning))>\s*\Z")
# gpt-oss: the assistant's turn begins with the choice of a channel.
_HARMONY_OPEN, _HARMONY_FINAL = "<|start|>assistant", "<|channel|>final<|message|>"


class ChatFormat:
    """The chat template of a model folder, read by transformers; the model's code is never run.

    Raises:
        JudgeUnavailable: transformers cannot read the tokenizer's files.
    """

    def __init__(self, folder: Path) -> None:
        self._place = str(folder)
        check_tokenizer_files(folder)
        ends: set[int] = set()
        for path in (folder / "generation_config.json", folder / "config.json"):
            if os.path.lexists(path):
                ends.update(read_object(path, EndIds)[1].ids)
        with library_errors(folder):
            self._tokenizer = _load(folder)
            self.added: dict[str, int] = dict(self._tokenizer.get_added_vocab())
            self._template: str | None = None
            if self._tokenizer.chat_template:
                self._template = str(self._tokenizer.get_chat_template())
                self._process = TemplateProcess(self._template, self._place, _DAY)
            self._opening = self._opening_text()
            self._special = {k: str(v) for k, v in self._tokenizer.special_tokens_map.items()}
            ends |= {self._tokenizer.eos_token_id} - {None}
        self.ends = tuple(sorted(ends))  # ids that end an answer
        self.identity: dict[str, Any] = {
            "template": self._template,
            "special": self._special,
            "opening": self._opening,
            "day": _DAY.isoformat(),
        }

    def render(self, messages: Sequence[Message]) -> str:
        """Render messages up to where the answer begins.

        Raises:
            JudgeUnavailable: the template fails, leaves out a message's text, or takes too long.
        """
        if self._template is None:
            return self._opening + "\n\n".join(message.content for message in messages)
        reasons = []
        # Some templates take contents only as lists of parts, such as those of SmolVLM.
        chats = (list(messages), fold_system(messages))
        for variant, parts in [(chat, parts) for parts in (False, True) for chat in chats]:
            try:
                text = self._apply(variant, parts=parts)
            except TemplateError as error:
                reasons.append(escape(error, 200))
                continue
            lost = [m.role for m in variant if m.content.strip() not in text]
            if not lost:
                return close_thinking(text)
            reasons.append(f"it leaves out the {lost[0]} message")
        raise JudgeUnavailable(
            f"the chat template cannot hold the prompt: {reasons[1]}",
            place=self._place,
            remedy="choose an instruction-tuned judge that takes single user messages",
        )

    def _apply(self, messages: Sequence[Message], *, parts: bool) -> str:
        conversation = [
            {
                "role": message.role,
                "content": _parts(message) if parts or message.images else message.content,
            }
            for message in messages
        ]
        return self._process.render(
            {
                **self._special,
                "messages": conversation,
                "tools": None,
                "documents": None,
                "add_generation_prompt": True,
                "enable_thinking": False,
                "date_string": _DAY.strftime("%d %b %Y"),
            }
        )

    def _opening_text(self) -> str:
        """Return the BOS text, if this tokenizer opens every text with it."""
        bos = self._tokenizer.bos_token_id
        opens = bos is not None and self._tokenizer("x")["input_ids"][:1] == [bos]
        return str(self._tokenizer.bos_token) if opens else ""


def _parts(message: Message) -> list[dict[str, str]]:
    images = [{"type": "image"}] * message.images
    return [*images, {"type": "text", "text": message.content}]


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """Put system messages before the first user message, as part of it."""
    system = [m.content for m in messages if m.role == "system"]
    rest = [m for m in messages if m.role != "system"]
    if not system or not rest:
        return [Message("user", "\n\n".join(system))] if system else rest
    first, lead = rest[0], slot(IMAGES) if rest[0].images else ""
    content = "\n\n".join([*system, first.content.removeprefix(lead)])
    return [replace(first, content=lead + content), *rest[1:]]


def close_thinking(rendered: str) -> str:
    """Close an opened thinking block, empty, so that the next token is the answer."""
    opened = _OPENED.search(rendered)
    if opened:
        return f"{rendered.rstrip()}\n\n</{opened[1]}>\n\n"
    if rendered.endswith(_HARMONY_OPEN):
        return rendered + _HARMONY_FINAL
    return rendered


def _load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_fast=True
    )


@contextmanager
def library_errors(place: Path) -> Iterator[None]:
    """Turn whatever the libraries of tokenizers raise into an error with a remedy.

    Raises:
        JudgeUnavailable: the tokenizer in this file or folder cannot be used.
    """
    try:
        yield
    except (SteelyardError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers raises bare Exception; a panic in Rust is not even
        raise JudgeUnavailable(
            f"the tokenizer cannot be used: {escape(error, 200) or type(error).__name__}",
            place=str(place),
            remedy="fetch the model's files again, or choose another judge; a tokenizer that needs"
            " its own Python code is refused",
        ) from error
