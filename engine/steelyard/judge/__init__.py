"""Judges by the name that a user gives: `demo`, `scripted[:...]`, a hub name or a folder."""

from __future__ import annotations

from dataclasses import replace

from steelyard.errors import JudgeUnavailable, UsageError, escape
from steelyard.judge.base import INSTALL, Judge, JudgeSpec


def open_judge(spec: JudgeSpec) -> Judge:
    """Open a judge: its files are checked, its tokenizer is loaded, no engine is started.

    Raises:
        JudgeUnavailable: this machine cannot run it.
        UsageError: one of its options or engine settings is wrong.
    """
    if spec.replicas > 1:
        from steelyard.judge.replicas import ReplicatedJudge

        return ReplicatedJudge(spec, open_one)
    return open_one(spec)


def open_one(spec: JudgeSpec) -> Judge:
    """Open a judge that runs in one engine; `replicas` is ignored."""
    kind, _, options = spec.model.partition(":")
    if kind == "scripted":
        from steelyard.judge.scripted import ScriptedJudge

        if spec.engine:
            raise UsageError(
                f"the scripted judge has no engine setting {escape(next(iter(spec.engine)))}",
                remedy="leave --engine out, or choose a real judge",
            )
        return ScriptedJudge(options)
    try:
        from steelyard.judge.vllm.judge import VllmJudge

        return VllmJudge(_demo(spec) if spec.model == "demo" else spec)
    except ModuleNotFoundError as error:
        raise JudgeUnavailable(f"the package {error.name} is missing", remedy=INSTALL) from error


def _demo(spec: JudgeSpec) -> JudgeSpec:
    from steelyard.judge.model import embedded

    return replace(
        spec,
        name=embedded.EMBEDDED_NAME,
        model=str(embedded.embedded_model()),
        # bfloat16 is 1.7 times as fast here, but its logits come in steps of 1/16: one in 600
        # reads moved by such a step, 0.03 in probability, when a killed run was resumed.
        engine={"dtype": "float32", **spec.engine},
    )
