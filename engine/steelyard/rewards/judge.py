"""A judge as a reward function, with the verdicts that `steelyard score` would give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import xxhash

from steelyard.core.config import RunConfig, Scalar
from steelyard.core.schemas import INTAKE, STATUS_OK, Float64
from steelyard.errors import RewardRefused, UsageError
from steelyard.input.rows import RawBatch, check
from steelyard.prompts.judging import resolve_spec
from steelyard.rewards.live_judge import LiveJudge
from steelyard.rewards.messages import Text, completion_text
from steelyard.rewards.rows import JudgedCompletions, build_pairs, build_rows
from steelyard.store.run_input import row_limits

# What users call the roles of a row.
_NAMES = {
    "instruction": "prompt",
    "system": "prompt",
    "turns": "prompt",
    "response_a": "completion",
    "reference": "reference",
    "criteria": "criteria",
    "category": "category",
}


PREFERENCE = "raw_preference"
TIE = 1e-9  # preferences nearer to 0.5 are ties, but for rounding


class Judge:
    """Reward function for GRPO that asks a judge, in the same way as `steelyard score`.

    With a protocol that shows one response, the reward is its score. With a protocol that shows a
    pair, it is the mean raw preference for the completion, over both orders, against the other
    completions of its prompt in the batch, or against the response in the column `baseline`.

    Creating it opens the judge and loads its engine; `close`, or the end of a `with` block, frees
    them. It is not thread-safe. A trainer logs the reward under `__name__`, which may be changed.

    Args:
        judge: a Hugging Face model name, a model folder, `demo`, or `scripted[:...]`.
        protocol: a built-in protocol or a TOML file.
        baseline: the column of the dataset with a response to compare with; None: completions of
            a prompt are compared with each other.
        failed: the reward of a completion that gets no verdict, because it is too long for the
            judge or the judge's answer cannot be parsed; None: a missing verdict is an error.
        revision: commit, tag or branch of the judge on the Hugging Face Hub.
        engine: engine settings under vLLM's names.
        replicas: copies of the engine to run in parallel, one per GPU.
        criteria: file with the criteria of a rubric; None: the dataset's column `criteria`.
        examples: file with worked examples.
        samples: answers per prompt from a judge that writes; 0: the protocol's number.
        overlong: what to do with prompts that exceed the judge's context: reject or truncate.

    Raises:
        UsageError: an argument is wrong, or the protocol has no use for it.
        JudgeUnavailable: the judge cannot be opened, or its engine cannot be loaded.
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
        self._spec, shots = resolve_spec(config)
        self._alone = self._spec.axes.shows == "response"
        self._baseline, self._failed = baseline, failed
        if baseline is not None and self._alone:
            raise UsageError(
                f"baseline has no effect: the protocol {self._spec.name} shows one response",
                remedy="leave baseline out, or choose a protocol that shows a pair",
            )
        if failed is not None and not math.isfinite(failed):
            raise UsageError(f"failed is {failed}", remedy="give a finite number, or leave it out")
        self.__name__ = f"judge_{self._spec.name}"
        self._limits = row_limits(config)
        self._live = LiveJudge(config, self._spec, shots)

    def close(self) -> None:
        """Free the engine's memory and processes; may be called twice."""
        self._live.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(
        self, prompts: Sequence[Text], completions: Sequence[Text], **columns: object
    ) -> list[float]:
        """Return the reward of each completion.

        Args:
            prompts: n texts or conversations; each is the prompt of the completion at its index.
            completions: n texts or conversations.
            **columns: all columns of the dataset, n values each. Of these are used the baseline
                and, if the protocol shows them, `reference`, `criteria` and `category`.

        Raises:
            RewardRefused: the protocol cannot show a prompt, a completion has nothing to be
                compared with, or a verdict is missing and `failed` is None.
            UsageError: the judge was closed.
            EngineFailed: the engine dies on whatever it reads.
        """
        texts = [
            completion_text(completion, f"completion {number}")
            for number, completion in enumerate(completions)
        ]
        judged = build_rows(prompts, texts, columns, self._spec, self._baseline)
        values, reasons = self._judge_rows(judged, "score_a" if self._alone else PREFERENCE)
        if reasons and self._failed is None:
            raise self._missing(judged, values, reasons)
        rewards = judged.rewards(values, len(texts))
        if self._failed is not None:
            rewards[np.isnan(rewards)] = self._failed
        return [float(reward) for reward in rewards]

    def judge(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Sequence[Text]],
        shuffle_order: bool = True,  # noqa: ARG002 - TRL's interface
        return_scores: bool = False,
    ) -> list[int] | list[float]:
        """Compare two completions of each prompt, as TRL's `BasePairwiseJudge` does.

        Args:
            prompts: n texts or conversations.
            completions: n pairs of texts or conversations.
            shuffle_order: has no effect: a pair is read in both orders of presentation where the
                protocol shows pairs, and in none where it shows one response.
            return_scores: whether to return probabilities.

        Returns:
            The index of the better completion of each pair, 0 or 1, or the probability that the
            first is better, in [0, 1]. An exact tie, as of two equal completions, goes to either
            with equal probability, which a digest of the texts decides. With `failed` the index is
            -1 where there is no verdict.

        Raises:
            RewardRefused: as for a call; also with `failed` where a probability is missing.
            UsageError: the judge was closed.
            EngineFailed: the engine dies on whatever it reads.
        """
        first, second = (
            [
                completion_text(_of_pair(pair, side, number), f"pair {number}, completion {side}")
                for number, pair in enumerate(completions)
            ]
            for side in (0, 1)
        )
        judged = build_pairs(prompts, first, second, self._spec)
        values, reasons = self._judge_rows(judged, PREFERENCE)
        if reasons and (self._failed is None or return_scores):
            raise self._missing(judged, values, reasons)
        if return_scores:
            return [float(value) for value in values]
        return [
            -1 if np.isnan(value) else _coin(*pair) if abs(value - 0.5) < TIE else int(value < 0.5)
            for value, pair in zip(values, zip(first, second, strict=True), strict=True)
        ]

    def _missing(
        self, judged: JudgedCompletions, values: Float64, reasons: Mapping[int, str]
    ) -> RewardRefused:
        row, reason = min(reasons.items())
        return RewardRefused(
            f"{len(reasons)} of {len(values)} verdicts are missing; the first: {reason}",
            place=f"completion {judged.first[row]}, judge {self._live.name}",
            remedy="correct what the reason names, or set the reward of completions without a"
            " verdict: Judge(..., failed=0.0)",
        )

    def _judge_rows(self, judged: JudgedCompletions, column: str) -> tuple[Float64, dict[int, str]]:
        """Return each row's value for its first completion, or NaN and the reason by row."""
        batch = RawBatch("completions", np.arange(len(judged.first)), judged.columns, {})
        names = _NAMES | {"response_b": self._baseline or "completion"}
        required = self._spec.required_roles
        accepted, rejects = check(batch, names, INTAKE, self._limits, required)
        values = np.full(len(batch), np.nan)
        reasons = dict(zip(*(rejects[name].to_pylist() for name in ("row", "detail")), strict=True))
        if not len(accepted):
            return values, reasons
        verdicts = self._live.verdicts(accepted).select(["row", "status", "error", column])
        for row, status, error, value in zip(*verdicts.to_pydict().values(), strict=True):
            if status == STATUS_OK:
                values[row] = value
            else:
                reasons[row] = error or status
        return values, reasons


def _of_pair(pair: Sequence[Text], side: int, number: int) -> Text:
    if isinstance(pair, str) or len(pair) != 2:
        raise RewardRefused(
            "it is not a pair of completions",
            place=f"pair {number}",
            remedy="pass two completions of each prompt",
        )
    return pair[side]


def _coin(first: str, second: str) -> int:
    return xxhash.xxh3_64_intdigest(f"{first}\0{second}".encode()) % 2
