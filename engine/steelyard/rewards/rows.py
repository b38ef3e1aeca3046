"""A batch of completions as rows for a judge, like the rows of a shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from steelyard.core.schemas import CRITERIA, TURNS, Float64, Int64
from steelyard.errors import RewardRefused, escape
from steelyard.plan.spec import JudgingSpec
from steelyard.rewards.messages import Dialogue, Text, completion_text, dialogue

NO_OPPONENT = -1


@dataclass(frozen=True, slots=True)
class JudgedCompletions:
    """n rows by role (`input.roles`), each about one completion, or two of the same prompt.

    Attributes:
        columns: role -> n values.
        first: index of the completion that is response_a.
        second: index of the completion that is response_b; NO_OPPONENT if response_b is a baseline
            or missing.
    """

    columns: dict[str, pa.Array]
    first: Int64
    second: Int64

    def rewards(self, values: Float64, count: int) -> Float64:
        """Return the mean value of each of `count` completions over its rows; NaN if it has none.

        `values` are those of each row's first completion, NaN without a verdict; the second gets
        1 - value.
        """
        valid = ~np.isnan(values)
        both = valid & (self.second != NO_OPPONENT)
        total = np.bincount(self.first[valid], values[valid], count)
        total += np.bincount(self.second[both], 1 - values[both], count)
        times = np.bincount(np.concatenate([self.first[valid], self.second[both]]), minlength=count)
        means: Float64 = np.divide(total, times, out=np.full(count, np.nan), where=times > 0)
        return means


def build_rows(
    prompts: Sequence[Text],
    texts: Sequence[str],
    columns: Mapping[str, object],
    spec: JudgingSpec,
    baseline: str | None,
) -> JudgedCompletions:
    """Build the rows for n completions, from their texts, prompts, and columns of the dataset.

    They are compared with the responses in the column `baseline`; None: with each other.

    Raises:
        RewardRefused: a prompt holds what the protocol does not show, a column is missing, or a
            completion has nothing to be compared with.
    """
    count = len(texts)
    if len(prompts) != count:
        cause = f"there are {count} completions and {len(prompts)} prompts"
        raise RewardRefused(cause, remedy="pass the prompt of each completion")
    shared = _shared(prompts, columns, spec)
    answers = pa.array(texts, pa.string())
    alone = np.full(count, NO_OPPONENT)
    if spec.axes.shows == "response":
        return JudgedCompletions(shared | {"response_a": answers}, np.arange(count), alone)
    if baseline is not None:
        others = [
            completion_text(response, f"`{escape(baseline)}` of completion {number}")
            for number, response in enumerate(_column(columns, baseline, count))
        ]
        pairs = {"response_a": answers, "response_b": pa.array(others, pa.string())}
        return JudgedCompletions(shared | pairs, np.arange(count), alone)
    first, second = _peers(shared)
    rows = {
        role: values.take(pa.array(first))
        for role, values in (shared | {"response_a": answers}).items()
    }
    return JudgedCompletions(rows | {"response_b": answers.take(pa.array(second))}, first, second)


def build_pairs(
    prompts: Sequence[Text], first: Sequence[str], second: Sequence[str], spec: JudgingSpec
) -> JudgedCompletions:
    """Build a row for each of n pairs of completions, under protocols of both kinds.

    Raises:
        RewardRefused: a prompt holds what the protocol does not show, or lists differ in length.
    """
    if len(prompts) != len(first):
        cause = f"there are {len(first)} pairs and {len(prompts)} prompts"
        raise RewardRefused(cause, remedy="pass the prompt of each pair")
    pairs = {
        "response_a": pa.array(first, pa.string()),
        "response_b": pa.array(second, pa.string()),
    }
    rows = np.arange(len(first))
    return JudgedCompletions(
        _shared(prompts, {}, spec) | pairs, rows, np.full(len(rows), NO_OPPONENT)
    )


def _peers(shared: Mapping[str, pa.Array]) -> tuple[Int64, Int64]:
    """Return all pairs of completions of the same prompt."""
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(pa.table(dict(shared)).to_pylist()):
        groups.setdefault(repr(row), []).append(number)
    lonely = [numbers[0] for numbers in groups.values() if len(numbers) == 1]
    if lonely:
        raise RewardRefused(
            "it is the only completion of its prompt in the batch, so it cannot be compared",
            place=f"completion {lonely[0]}",
            remedy="keep all generations of a prompt in the same batch and process, compare with a"
            " column of responses (baseline=...), or choose a protocol that shows one response",
        )
    pairs = np.asarray(
        [pair for numbers in groups.values() for pair in combinations(numbers, 2)], dtype=np.int64
    ).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _shared(
    prompts: Sequence[Text], columns: Mapping[str, object], spec: JudgingSpec
) -> dict[str, pa.Array]:
    """Return what a judge is shown besides responses, for each completion."""
    dialogues = [dialogue(prompt, number) for number, prompt in enumerate(prompts)]
    for number, prompt in enumerate(dialogues):
        _require_shown(prompt, number, spec)
    turns = [
        [{"role": role, "content": text} for role, text in prompt.turns] or None
        for prompt in dialogues
    ]
    shared = {
        "instruction": pa.array([prompt.instruction for prompt in dialogues], pa.string()),
        "system": pa.array([prompt.system for prompt in dialogues], pa.string()),
        "turns": pa.array(turns, TURNS),
    }
    count = len(dialogues)
    if _shows(spec, "reference") and "reference" in columns:
        shared["reference"] = _array(columns, "reference", count)
    if spec.categories and "category" in columns:
        shared["category"] = _array(columns, "category", count)
    if spec.axes.row_criteria:
        shared["criteria"] = _array(columns, "criteria", count, pa.list_(pa.string()), CRITERIA)
    return shared


def _array(columns: Mapping[str, object], name: str, count: int, *kinds: pa.DataType) -> pa.Array:
    """Return a column in the first of these types that fits its values; by default as texts."""
    values = _column(columns, name, count)
    kinds = kinds or (pa.string(),)
    for kind in kinds:
        with suppress(pa.ArrowInvalid, pa.ArrowTypeError):
            return pa.array(values, kind)
    cause = f"the column {name} holds values that are not {' or '.join(map(str, kinds))}"
    raise RewardRefused(cause, remedy=f"correct the column {name} of the dataset")


def _column(columns: Mapping[str, object], name: str, count: int) -> list[Any]:
    values = columns.get(name)
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
        raise RewardRefused(
            f"the dataset has no column {escape(name)!r} with a value for each completion",
            remedy=f"add it; the dataset has {escape(', '.join(columns), 200) or 'no columns'}",
        )
    return list(values)


def _shows(spec: JudgingSpec, name: str) -> bool:
    return all(name in protocol.names for protocol in spec.protocols)


def _require_shown(prompt: Dialogue, number: int, spec: JudgingSpec) -> None:
    """Refuse a prompt of which the judge would see less than the model did."""
    for name, content in (("system", prompt.system), ("conversation", prompt.turns)):
        if content and not _shows(spec, name):
            what = "a system message" if name == "system" else "earlier turns"
            raise RewardRefused(
                f"the prompt has {what}, which the protocol {spec.name} does not show",
                place=f"completion {number}",
                remedy=f"choose a protocol that shows {{{{ {name} }}}}, or prompts without {what}",
            )
