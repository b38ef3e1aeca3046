"""A Steelyard judge as a reward function: what `steelyard score` would say of each completion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np

from steelyard.core.config import RunConfig, Scalar
from steelyard.core.schemas import INTAKE, STATUS_OK, Float64
from steelyard.errors import RewardRefused, UsageError
from steelyard.input.rows import RawBatch, check
from steelyard.prompts.judging import resolve_spec
from steelyard.rewards.live_judge import Reader
from steelyard.rewards.messages import Text, completion_text
from steelyard.rewards.rows import JudgedCompletions, build_rows
from steelyard.store.run_input import row_limits

# What users call what a row is made of.
_NAMES = {
    "instruction": "prompt",
    "system": "prompt",
    "turns": "prompt",
    "response_a": "completion",
    "reference": "reference",
    "criteria": "criteria",
    "category": "category",
}


class Judge:
    """Scores completions inside GRPO, on the way that `steelyard score` takes.

    Under a protocol that shows one response the reward is its score. Under one that shows a pair
    it is the mean raw preference for the completion, over both orders, against the other
    completions of its prompt in the batch, or against the response in the column `baseline`.

    Opens the judge and loads its engine; `close` frees it, and so does the end of a `with` block.
    Not thread-safe. `__name__`, under which a trainer logs the reward, may be changed.

    Args:
        judge: `demo`, `scripted[:...]`, a hub name or a model folder.
        protocol: a name or a file.
        baseline: a column of the dataset with a response to each prompt.
        failed: the reward of a completion without any verdict (too long for the judge, the judge's
            answer unparsable); None: a verdict that cannot be had is an error.
        revision: of the judge, on the hub.
        engine: vLLM's own settings.
        replicas: engines side by side.
        criteria: file of a rubric's criteria; without it the dataset's column `criteria`.
        examples: file of worked examples.
        samples: of what a judge writes; 0: the protocol's own number.
        overlong: "reject" or "truncate".

    Raises:
        UsageError: an argument is wrong, or of no use to the protocol.
        JudgeUnavailable: the judge cannot be opened, or its engine not be loaded.
    """

    def __init__(
        self,
        judge: str,
        *,
        protocol: str = "pairwise",
        baseline: str | None = None,
        failed: float | None = None,
        revision: str | None = None,
        engine: dict[str, Scalar] | None = None,
        replicas: int = 1,
        criteria: str | None = None,
        examples: str | None = None,
        samples: int = 0,
        overlong: str = "reject",
    ) -> None:
        config = RunConfig(
            judge=(judge,),
            protocol=(protocol,),
            revision=revision,
            engine=engine or {},
            replicas=replicas,
            criteria=criteria,
            examples=examples,
            samples=samples,
            overlong=overlong,
        ).validate()
        self._inquiry, shown = resolve_spec(config)
        self._alone = self._inquiry.axes.shows == "response"
        self._baseline, self._failed = baseline, failed
        if baseline is not None and self._alone:
            raise UsageError(
                f"baseline is of no use: the protocol {self._inquiry.name} shows one response",
                remedy="leave it out, or choose a protocol that shows a pair",
            )
        if failed is not None and not math.isfinite(failed):
            raise UsageError(f"failed is {failed}", remedy="give a number, or leave it out")
        self.__name__ = f"judge_{self._inquiry.name}"
        self._limits = row_limits(config)
        self._reader = Reader(config, self._inquiry, shown)

    def close(self) -> None:
        """Free engine, memory and processes. May be called twice."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(
        self, prompts: Sequence[Text], completions: Sequence[Text], **columns: object
    ) -> list[float]:
        """The reward of each completion.

        Args:
            prompts: n texts or conversations, the one that each completion answers.
            completions: n texts or conversations.
            **columns: all columns of the dataset, n values each. Looked at are `reference`,
                `criteria` and `category` where the protocol takes them, and the baseline.

        Raises:
            RewardRefused: a prompt holds what the protocol does not show, a completion has none
                to be compared with, or a verdict cannot be had and `failed` is None.
            UsageError: the judge was closed.
            EngineFailed: the engine dies whatever it reads.
        """
        texts = [
            completion_text(one, f"completion {number}") for number, one in enumerate(completions)
        ]
        asked = build_rows(prompts, texts, columns, self._inquiry, self._baseline)
        values, reasons = self._judged(asked)
        if reasons and self._failed is None:
            row, reason = min(reasons.items())
            raise RewardRefused(
                f"{len(reasons)} of {len(values)} verdicts could not be had; the first: {reason}",
                place=f"completion {asked.first[row]}, judge {self._reader.name}",
                remedy="mend what the reason names, or give completions without any verdict a"
                " reward of their own: Judge(..., failed=0.0)",
            )
        rewards = asked.rewards(values, len(texts))
        if self._failed is not None:
            rewards[np.isnan(rewards)] = self._failed
        return [float(reward) for reward in rewards]

    def _judged(self, asked: JudgedCompletions) -> tuple[Float64, dict[int, str]]:
        """The value of each row for its first completion; NaN where there is none, and why."""
        batch = RawBatch("completions", 0, len(asked.first), asked.columns, {})
        names = _NAMES | {"response_b": self._baseline or "completion"}
        required = self._inquiry.required_roles
        accepted, rejects = check(batch, names, INTAKE, self._limits, required)
        values = np.full(batch.rows, np.nan)
        reasons = dict(zip(*(rejects[name].to_pylist() for name in ("row", "detail")), strict=True))
        if not len(accepted):
            return values, reasons
        column = "score_a" if self._alone else "raw_preference"
        verdicts = self._reader.verdicts(accepted).select(["row", "status", "error", column])
        for row, status, error, value in zip(*verdicts.to_pydict().values(), strict=True):
            if status == STATUS_OK:
                values[row] = value
            else:
                reasons[row] = error or status
        return values, reasons
