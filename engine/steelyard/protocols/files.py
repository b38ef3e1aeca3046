"""Protocols from TOML files, and the files of criteria and examples that go with them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec

from steelyard.core.config import LARGEST, describe_unreadable
from steelyard.core.files import read_file
from steelyard.errors import UsageError, check_keys, escape
from steelyard.protocols.axes import HEAVIEST, Criterion
from steelyard.protocols.protocol import IMAGES, SLOT, SLOT_COLUMNS, Example, Protocol
from steelyard.protocols.rules import RULES

BUILTIN = Path(__file__).parent / "builtin"
MOST_EXAMPLES = 64
# Keys of a protocol file.
_KEYS = tuple(entry.name for entry in fields(Protocol) if entry.name not in {"name", "place"})


def load_protocol(path: Path) -> Protocol:
    """Read a protocol from its file.

    Raises:
        UsageError: the file cannot be read, a key is unknown or missing, or a value is wrong.
    """
    values = _read_table(path, *_KEYS)
    if values.get("answer", "label") == "label":
        values = {"max_tokens": 1} | values
    try:
        given = msgspec.convert({**values, "name": path.stem, "place": str(path)}, Protocol)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: half a character
        cause = f"a value is wrong: {escape(error, 200)}"
        raise _wrong(path, cause, "see docs/protocols.md for all keys") from None
    protocol = replace(given)  # msgspec sets given fields only, and run.json holds all
    _check(protocol, path)
    return protocol


def _check(protocol: Protocol, path: Path) -> None:
    rule = RULES.get(protocol.combine)
    if rule is None:
        raise _wrong(path, f"`combine` is {escape(protocol.combine)!r}", f"use {', '.join(RULES)}")
    if protocol.shows not in rule.shows or protocol.answer not in rule.answers:
        raise _wrong(
            path,
            f"the rule {protocol.combine} cannot combine {protocol.answer} of {protocol.shows}s",
            f"it takes {' or '.join(rule.answers)} of {' or '.join(f'{x}s' for x in rule.shows)}",
        )
    if rule.labels is not None and len(protocol.labels) != rule.labels:
        raise _wrong(
            path,
            f"the rule {protocol.combine} takes {rule.labels} labels, not {len(protocol.labels)}",
            "list them as `labels`, in the order of docs/protocols.md",
        )
    # As `parsing.find_label` compares them: case counts in a single letter only.
    labels = [
        text if len(text) == 1 else text.casefold() for text in map(str.strip, protocol.labels)
    ]
    if len(set(labels)) != len(labels):
        raise _wrong(
            path, "a label comes twice", "give labels that differ by more than upper and lower case"
        )
    if protocol.combine == "scale" and (
        len(protocol.scale) != len(protocol.labels) or len(protocol.labels) < 2
    ):
        raise _wrong(path, "`scale` and `labels` do not match", "give each label its score")
    if protocol.answer == "reasons" and not protocol.verdict:
        raise _wrong(path, "`verdict` is missing", "give the text that opens a forced verdict")
    if protocol.samples > 1 and (protocol.answer == "label" or protocol.temperature == 0):
        raise _wrong(path, "the samples cannot differ", "samples need a text and a temperature")
    if protocol.range[0] >= protocol.range[1]:
        raise _wrong(path, "`range` is not a range", "give the lowest and the highest score")
    if protocol.tie_band and protocol.has_tie_label:
        raise _wrong(path, "`tie_band` has no effect next to a label for a tie", "leave it out")
    if protocol.tie_band and protocol.tie_band >= protocol.widest_tie:
        raise _wrong(
            path,
            f"`tie_band` is {protocol.tie_band:g}, which makes a tie of every pair",
            f"give a number from 0, below {protocol.widest_tie:g}",
        )
    if not all(label.strip() for label in protocol.labels):
        raise _wrong(path, "a label is empty", "give each answer a label")
    if any(SLOT.search(text) for text in (protocol.system, protocol.user, protocol.prefix)):
        raise _wrong(path, "the text contains the mark of a slot", "write {{ name }} instead")
    _check_slots(protocol, path)


def _check_slots(protocol: Protocol, path: Path) -> None:
    known = [name for name in SLOT_COLUMNS if name != IMAGES]
    unknown = protocol.names - {*known, "examples"}
    if unknown:
        raise _wrong(
            path,
            f"the template asks for {', '.join(sorted(unknown))}",
            f"it may use context, examples, {', '.join(known)}",
        )
    missing = [name for name in protocol.required if name not in protocol.names]
    if missing:
        raise _wrong(
            path,
            f"the template does not show {', '.join(missing)}",
            "write {{ " + missing[0] + " }} where it belongs",
        )
    if protocol.combine == "rubric" and "criterion" not in protocol.names:
        raise _wrong(path, "a rubric without {{ criterion }}", "show it, after the response")


def load_criteria(path: Path) -> tuple[Criterion, ...]:
    """Read weighted criteria: a list `criteria` of texts, or of tables with text and weight.

    Raises:
        UsageError: the file cannot be read, or does not hold criteria.
    """
    listed = _read_table(path, "criteria").get("criteria")
    if not isinstance(listed, list) or not listed:
        raise _wrong(path, "there is no list `criteria`", "see docs/protocols.md for an example")
    return tuple(_criterion(path, number, entry) for number, entry in enumerate(listed, 1))


def _criterion(path: Path, number: int, entry: object) -> Criterion:
    table: dict[str, Any] = entry if isinstance(entry, dict) else {"text": entry}
    text, weight = table.get("text"), table.get("weight", 1)
    is_number = type(weight) in {int, float}  # a bool is an int as well
    if not (isinstance(text, str) and text.strip() and is_number and 0 < weight < HEAVIEST):
        raise _wrong(
            path,
            f"criterion {number} is not a text with a weight above 0",
            "give a text, and a weight if it is not 1",
        )
    check_keys(table, ("text", "weight"), f"{path}, criterion {number}")
    return Criterion(text.strip(), float(weight))


def load_examples(path: Path, labels: tuple[str, ...]) -> tuple[Example, ...]:
    """Read worked examples: a list `examples` of tables of texts.

    Raises:
        UsageError: the file cannot be read or has no examples, or a verdict is not a label.
    """
    listed = _read_table(path, "examples").get("examples")
    if not isinstance(listed, list) or not 0 < len(listed) <= MOST_EXAMPLES:
        raise _wrong(path, "there is no list `examples`", f"give 1 to {MOST_EXAMPLES} of them")
    examples = []
    for number, entry in enumerate(listed, 1):
        if not isinstance(entry, dict) or not all(isinstance(v, str) for v in entry.values()):
            raise _wrong(path, f"example {number} is not a table of texts", "see docs/protocols.md")
        if labels and entry.get("verdict") not in labels:
            raise _wrong(
                path, f"the verdict of example {number} is not a label", f"use {', '.join(labels)}"
            )
        texts = {key: value.strip() for key, value in entry.items() if key != "category"}
        category = entry.get("category", "").strip()
        examples.append(Example(texts, category or None))
    if all(example.category is not None for example in examples):
        raise _wrong(
            path,
            "every example has a category: rows of other categories would see no example",
            "give at least one example without a category, for all other rows",
        )
    return tuple(examples)


def _read_table(path: Path, *known: str) -> dict[str, Any]:
    try:
        values = _parse(path, read_file(path, LARGEST).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        remedy = "check the path" if isinstance(error, OSError) else "correct it"
        raise _wrong(path, f"it cannot be read: {describe_unreadable(error)}", remedy) from None
    if not isinstance(values, Mapping):
        raise _wrong(path, "it does not hold a table", "see docs/protocols.md for an example")
    check_keys(values, known, str(path))
    return dict(values)


def _parse(path: Path, text: str) -> Any:  # noqa: ANN401 - whatever the file holds
    if path.suffix in {".yaml", ".yml"}:
        try:
            import yaml
        except ImportError:
            raise _wrong(path, "the package PyYAML is missing", "pip install PyYAML") from None
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None
    return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)


def _wrong(path: Path, cause: str, remedy: str) -> UsageError:
    return UsageError(cause, place=str(path), remedy=remedy)
