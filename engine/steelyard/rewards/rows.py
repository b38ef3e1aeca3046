"""What a judge is asked about a batch of completions: the rows that a shard would hold."""

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
    """n rows by role (shards.roles), each about one completion or two of the same prompt.

    Attributes:
        columns: role -> values.
        first: the completion that is response_a.
        second: that which is response_b; NO_OPPONENT where there is none or it is a baseline.
    """

    columns: dict[str, pa.Array]
    first: Int64
    second: Int64

    def rewards(self, values: Float64, count: int) -> Float64:
        """The mean of what each completion got; NaN where it got nothing.

        Args:
            values: of the rows, for the first completion; the second gets 1 - value. NaN: none.
            count: how many completions there are.
        """
        had = ~np.isnan(values)
        both = had & (self.second != NO_OPPONENT)
        total = np.bincount(self.first[had], values[had], count)
        total += np.bincount(self.second[both], 1 - values[both], count)
        times = np.bincount(np.concatenate([self.first[had], self.second[both]]), minlength=count)
        means: Float64 = np.divide(total, times, out=np.full(count, np.nan), where=times > 0)
        return means


def build_rows(
    prompts: Sequence[Text],
    texts: Sequence[str],
    columns: Mapping[str, object],
    inquiry: JudgingSpec,
    baseline: str | None,
) -> JudgedCompletions:
    """The rows for n completions.

    Args:
        prompts: the prompt of each.
        texts: of the completions.
        columns: of the dataset, n values each.
        inquiry: what is asked.
        baseline: the column of the responses that they are compared with; None: with each other.

    Raises:
        RewardRefused: a prompt holds what the protocol does not show, a column is missing, or a
            completion has no other to be compared with.
    """
    count = len(texts)
    if len(prompts) != count:
        raise RewardRefused(
            f"{count} completions, and {len(prompts)} prompts",
            remedy="hand over the prompt of each completion",
        )
    shared = _shared(prompts, columns, inquiry)
    answers = pa.array(texts, pa.string())
    alone = np.full(count, NO_OPPONENT)
    if inquiry.axes.shows == "response":
        return JudgedCompletions(shared | {"response_a": answers}, np.arange(count), alone)
    if baseline is not None:
        others = pa.array(
            [
                completion_text(one, f"`{escape(baseline)}` of completion {number}")
                for number, one in enumerate(_column(columns, baseline, count))
            ],
            pa.string(),
        )
        return JudgedCompletions(
            shared | {"response_a": answers, "response_b": others}, np.arange(count), alone
        )
    first, second = _peers(shared)
    return JudgedCompletions(
        {role: values.take(pa.array(first)) for role, values in shared.items()}
        | {
            "response_a": answers.take(pa.array(first)),
            "response_b": answers.take(pa.array(second)),
        },
        first,
        second,
    )


def _peers(shared: Mapping[str, pa.Array]) -> tuple[Int64, Int64]:
    """All pairs of completions of the same prompt."""
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(pa.table(dict(shared)).to_pylist()):
        groups.setdefault(repr(row), []).append(number)
    lonely = [numbers[0] for numbers in groups.values() if len(numbers) == 1]
    if lonely:
        raise RewardRefused(
            "it is the only completion of its prompt in the batch: nothing to compare it with",
            place=f"completion {lonely[0]}",
            remedy="keep all generations of a prompt in one batch of one process, compare with a"
            " column of responses (baseline=...), or take a protocol that shows one response",
        )
    pairs = np.asarray(
        [pair for numbers in groups.values() for pair in combinations(numbers, 2)], dtype=np.int64
    ).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _shared(
    prompts: Sequence[Text], columns: Mapping[str, object], inquiry: JudgingSpec
) -> dict[str, pa.Array]:
    """What all rows about a completion show beside responses."""
    found = [dialogue(prompt, number) for number, prompt in enumerate(prompts)]
    for number, one in enumerate(found):
        _require_shown(one, number, inquiry)
    turns = [[{"role": role, "content": text} for role, text in one.turns] or None for one in found]
    shared = {
        "instruction": pa.array([one.instruction for one in found], pa.string()),
        "system": pa.array([one.system for one in found], pa.string()),
        "turns": pa.array(turns, TURNS),
    }
    count = len(found)
    if _shows(inquiry, "reference") and "reference" in columns:
        shared["reference"] = _array(columns, "reference", count)
    if inquiry.categories and "category" in columns:
        shared["category"] = _array(columns, "category", count)
    if inquiry.axes.row_criteria:
        shared["criteria"] = _array(columns, "criteria", count, pa.list_(pa.string()), CRITERIA)
    return shared


def _array(columns: Mapping[str, object], name: str, count: int, *kinds: pa.DataType) -> pa.Array:
    """A column in the first of these types that takes its values; without any, as texts."""
    values = _column(columns, name, count)
    for kind in kinds or (pa.string(),):
        with suppress(pa.ArrowInvalid, pa.ArrowTypeError):
            return pa.array(values, kind)
    wanted = " or ".join(map(str, kinds or (pa.string(),)))
    raise RewardRefused(
        f"the column {name} holds values that are not {wanted}",
        remedy=f"mend the column {name} of the dataset",
    )


def _column(columns: Mapping[str, object], name: str, count: int) -> list[Any]:
    values = columns.get(name)
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
        raise RewardRefused(
            f"the dataset has no column {escape(name)!r} with a value for each completion",
            remedy=f"it has: {escape(', '.join(columns), 200) or 'no further columns'}",
        )
    return list(values)


def _shows(inquiry: JudgingSpec, name: str) -> bool:
    return all(name in protocol.names for protocol in inquiry.protocols)


def _require_shown(one: Dialogue, number: int, inquiry: JudgingSpec) -> None:
    """A judge that does not see what the model saw would judge another answer."""
    for name, there in (("system", one.system), ("conversation", one.turns)):
        if there and not _shows(inquiry, name):
            what = "a system message" if name == "system" else "earlier turns"
            raise RewardRefused(
                f"the prompt has {what}, and the protocol {inquiry.name} does not show them",
                place=f"completion {number}",
                remedy=f"choose a protocol that shows {{{{ {name} }}}}, or prompts without",
            )
