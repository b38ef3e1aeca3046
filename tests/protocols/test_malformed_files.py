"""Files of options, protocols, criteria, examples: whatever they hold, an error with a remedy.

Kind of fault: malformed JSON and TOML.
"""

from __future__ import annotations

import json
import random
import tomllib
from dataclasses import asdict

import pytest

from steelyard.core.config import RunConfig, load_toml
from steelyard.errors import UsageError
from steelyard.protocols.files import BUILTIN, load_criteria, load_examples, load_protocol
from support import malformed


def load_config(path):
    return RunConfig.from_mapping(load_toml(path), str(path)).anchored()


LOADERS = {
    "protocol": load_protocol,
    "criteria": load_criteria,
    "examples": lambda path: load_examples(path, ("A", "B")),
    "config": load_config,
}
CONTENT = {
    "protocol": tomllib.loads((BUILTIN / "verbalized.toml").read_text()),
    "criteria": {"criteria": ["a", {"text": "b", "weight": 2}]},
    "examples": {"examples": [{"instruction": "i", "verdict": "A"}, {"verdict": "B"}]},
}
TOML = {
    "nested lists": "a = " + "[" * 100_000,
    "nested tables": "a = " + "{a=" * 3000 + "1" + "}" * 3000,
    "dotted": "a" + ".a" * 20_000 + " = 1",
    "a date": "judge = 2020-01-01",
    "a number of 5000 digits": "part_rows = " + "9" * 5000,
    "a key twice": "a = 1\na = 2",
    "an escape as a key": '"\\u001b[2J" = 1',
    "an empty key": "'' = 1",
}
YAML = {
    "a number as a key": "1: 2",
    "a list as a key": "? [a]\n: 1",
    "no key": "~: 1",
    "a Python object": "a: !!python/object/apply:os.system ['true']",
    "itself": "&a [*a]",
    "itself in a table": "&a {criteria: *a, examples: *a, labels: *a}",
    "doubling": "b0: &b0 [x, x]\n"
    + "".join(f"b{i}: &b{i} [*b{i - 1}, *b{i - 1}]\n" for i in range(1, 60)),
    "nested": "[" * 5000,
    "a set": "criteria: !!set {a, b}",
    "not a number": "criteria: [{text: a, weight: .nan}]",
    "two documents": "a: 1\n---\nb: 2",
}


def refusal(kind, path) -> str | None:
    """Why a file is refused; None if it is not. Any other exception fails the test."""
    try:
        LOADERS[kind](path)
    except UsageError as error:
        return str(error)
    return None


@pytest.mark.parametrize("suffix", [".toml", ".json", ".yaml"])
@pytest.mark.parametrize("kind", ["protocol", "criteria", "examples"])
def test_malformed_bytes_are_refused(kind, suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    for name, raw in malformed.BYTES.items():
        path.write_bytes(raw)
        assert str(path) in (refusal(kind, path) or ""), name


@pytest.mark.parametrize("kind", LOADERS)
def test_what_is_not_a_file_is_refused_and_does_not_hang(kind, tmp_path):
    path = tmp_path / "x.toml"
    for name, make in malformed.THINGS.items():
        malformed.remove(path)
        make(path)
        assert str(path) in (refusal(kind, path) or ""), name


@pytest.mark.parametrize("kind", LOADERS)
def test_malformed_toml_is_refused(kind, tmp_path):
    path = tmp_path / "x.toml"
    for name, text in TOML.items():
        path.write_text(text)
        reason = refusal(kind, path) or ""
        assert str(path) in reason, name
        assert "\x1b" not in reason, name


@pytest.mark.parametrize("kind", ["protocol", "criteria", "examples"])
def test_malformed_yaml_is_refused(kind, tmp_path):
    path = tmp_path / "x.yaml"
    for name, text in YAML.items():
        path.write_text(text)
        assert str(path) in (refusal(kind, path) or ""), name


@pytest.mark.parametrize("kind", CONTENT)
def test_values_of_other_types_are_no_internal_error(kind, tmp_path):
    path = tmp_path / "x.json"
    changed = list(malformed.mutations(CONTENT[kind]))
    for _, content in random.Random(kind).sample(changed, min(150, len(changed))):
        path.write_text(json.dumps(content))
        refusal(kind, path)


def test_options_of_other_types_are_no_internal_error():
    plain = asdict(RunConfig(inputs=("x",), judge=("demo",), engine={"seed": 1}, map={"a": "b"}))
    for _, content in malformed.mutations(json.loads(json.dumps(plain))):
        try:
            RunConfig.from_mapping(content, "here").anchored()
        except UsageError as error:
            assert error.remedy  # noqa: PT017 - most are refused, some are fine


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("part_seconds", text) for text in ("nan", "inf", "-1", "0", "1e300")),
        ("replicas", "1025"),
    ],
)
def test_a_number_without_a_meaning_is_refused(name, text, tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(f"{name} = {text}")
    assert f"`{name}` must be positive and at most" in (refusal("config", path) or "")


def test_a_file_of_options_has_an_end(tmp_path):
    with (tmp_path / "x.toml").open("wb") as file:
        file.truncate(1 << 40)
    assert "more than 1,048,576 bytes" in (refusal("config", tmp_path / "x.toml") or "")
