"""Prompts and completions as trainers pass them: plain texts, or lists of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from steelyard.errors import RewardRefused, escape

Message: TypeAlias = Mapping[str, Any]
Text: TypeAlias = str | Sequence[Message]  # TRL's two formats, "standard" and "conversational"

_SHAPE = "give a text, or a list of messages with `role` and `content`"


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A prompt: the user's last message, and what comes before it."""

    instruction: str
    system: str | None = None
    turns: tuple[tuple[str, str], ...] = ()  # role and content, oldest first


def completion_text(completion: Text, place: str) -> str:
    """Return a model's answer: the last of several messages, empty if it only calls tools.

    Raises:
        RewardRefused: it is neither a text nor a list of messages that ends with the assistant's;
            the error calls it `place`.
    """
    if isinstance(completion, str):
        return completion
    messages = _messages(completion, place)
    role, content = messages[-1]
    if role != "assistant":
        raise RewardRefused(
            f"it ends with a message of the role {escape(role)!r}",
            place=place,
            remedy="make its last message one of the assistant",
        )
    return content


def dialogue(prompt: Text, number: int) -> Dialogue:
    """Split the prompt of the completion with this index into what a judge is shown.

    Raises:
        RewardRefused: it is neither a text nor a conversation of system, user and assistant, who
            alternate, that ends with the user's message; or it calls a tool.
    """
    if isinstance(prompt, str):
        return Dialogue(prompt)
    place = f"the prompt of completion {number}"
    messages = _messages(prompt, place)
    system = messages.pop(0)[1] if messages[0][0] == "system" else None
    roles = [role for role, _ in messages]
    if unknown := set(roles) - {"user", "assistant"}:
        raise RewardRefused(
            f"it has a message of the role {escape(min(unknown))!r}"
            + (" that is not the first" if "system" in unknown else ""),
            place=place,
            remedy="give a system message first, if any, then messages of user and assistant",
        )
    if not roles or roles[-1] != "user":
        raise RewardRefused(
            "it does not end with a message of the user",
            place=place,
            remedy="end it with the instruction that the completion answers",
        )
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise RewardRefused(
            f"its messages do not alternate: {escape(' '.join(roles))}",
            place=place,
            remedy="let user and assistant alternate, and the user begin",
        )
    if any(message.get("tool_calls") for message in prompt):
        raise RewardRefused(
            "it calls a tool, which no judge is shown",
            place=place,
            remedy="leave out such prompts",
        )
    return Dialogue(messages[-1][1], system, tuple(messages[:-1]))


def _messages(messages: Sequence[Message], place: str) -> list[tuple[str, str]]:
    """Return roles and contents; a message that calls tools may have no content."""
    if not isinstance(messages, Sequence) or not messages:
        raise RewardRefused(f"it is {escape(repr(messages))}", place=place, remedy=_SHAPE)
    parsed = []
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RewardRefused(f"it holds {escape(repr(message))}", place=place, remedy=_SHAPE)
        content = message.get("content")
        if content is None and message.get("tool_calls"):
            content = ""
        if not isinstance(content, str):
            raise RewardRefused(
                f"the content of a message is not a text: {escape(repr(content))}",
                place=place,
                remedy="leave out images and other parts: rewards take only texts",
            )
        parsed.append((message["role"], content))
    return parsed
