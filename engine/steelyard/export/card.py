"""The card of a dataset: README.md for the Hub, and its counts for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steelyard.calibrators.calibrator import PREFERENCE
from steelyard.errors import printable
from steelyard.export.filters import REASONS

_MEASURED = {
    "verdicts": "by how verdicts on the same responses contradict each other",
    "orders": "by how the two orders of a pair differ",
}
_FOR = {
    "preference": "preference pairs (TRL: DPOTrainer and similar trainers)",
    "reward": "preference pairs with a margin in log-odds (TRL: RewardTrainer)",
    "kto": "single completions, desirable or undesirable (TRL: KTOTrainer)",
    "sft": "the best completions (TRL: SFTTrainer)",
    "autorater": "judge prompts with the probability that a judge should state (TRL: SFTTrainer)",
    "grpo": "judge prompts with the probability to be rewarded for (TRL: GRPOTrainer with"
    " `steelyard.rewards`)",
    "trace": "judge prompts with what the judge wrote (TRL: SFTTrainer)",
}


def format_card(content: Mapping[str, Any]) -> str:
    """Return README.md of a dataset from the content of its export.json."""
    options = content["options"]
    files = "\n".join(
        f"      - split: {split}\n        path: data/{split}-*.parquet" for split in content["rows"]
    )
    parts = [
        f"---\ntags:\n  - preference\n  - steelyard\nconfigs:\n  - config_name: default\n"
        f"    data_files:\n{files}\n---",
        f"# {_FOR[options['format']].partition(' (')[0].capitalize()}, judged by"
        f" {_code(content['judge']['name'])}",
        f"Written by Steelyard {content['steelyard']}: {_FOR[options['format']]}.",
        _table(("", ""), _about(content)),
        "## Rows",
        _table(
            ("split", "rows", "instructions"),
            [
                (split, f"{rows:,}", f"{content['instructions'][split]:,}")
                for split, rows in content["rows"].items()
            ],
        ),
        "## Verdicts",
        _table(("what became of them", "verdicts"), count_verdicts(content)),
        "## Options",
        _table(
            ("option", "value"),
            [
                (name, _code(value))
                for name, value in options.items()
                if value is not None and value is not False and value != []
            ],
        ),
        "## Files",
        _table(
            ("file", "xxh3_128"),
            [(name, f"`{digest}`") for name, digest in content["files"].items()],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def count_verdicts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what became of the verdicts, and how many: the content of export.json as text."""
    return [
        ("verdicts", f"{content['verdicts']:,}"),
        *(
            (f"removed, {name}: {REASONS[name]}", f"{count:,}")
            for name, count in content["removed"].items()
        ),
        ("exported", f"{content['exported']:,}"),
    ]


def describe_accuracy(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return how often the chosen response is better, and what is promised of it."""
    lines = []
    if (accuracy := content["accuracy"]) is not None and accuracy["claimed"] is not None:
        text = f"{accuracy['claimed']:.1%} claimed; the noise of verdicts is not known"
        if accuracy["expected"] is not None:
            text = (
                f"{accuracy['expected']:.1%} expected, {accuracy['claimed']:.1%} claimed by"
                f" verdicts taken alone; noise is {accuracy['noise_share']:.0%} of their variance,"
                f" {_MEASURED[accuracy['noise_from']]}"
            )
        raw = content["preference"] == PREFERENCE
        lines.append(("accuracy", text + ("; preferences are raw" if raw else "")))
    if (promise := content["promise"]) is not None:
        text = (
            f"{promise['agreement']:.0%} of trusted verdicts name gold's side, with confidence"
            f" {promise['confidence']:.0%}"
        )
        more = "" if promise["of_rows"] else "; not of the pairs that were selected from them"
        lines.append(("promise", text + more))
    return lines


def _about(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    judge, calibrator = content["judge"], content["calibrator"]
    return [
        ("judge", _code(judge["name"])),
        ("protocol", _code(judge["protocol"])),
        ("judge fingerprint", _code(judge["fingerprint"])),
        ("input fingerprint", _code(content["input"]["fingerprint"])),
        (
            "probabilities",
            "raw: no calibrator was applied"
            if calibrator is None
            else f"calibrated by {_code(calibrator['method'])}, file {_code(calibrator['digest'])}",
        ),
        *describe_accuracy(content),
        *(
            (name, f"{_code(', '.join(made['files']))} (fingerprint {_code(made['fingerprint'])})")
            for name, made in (
                ("texts", content["responses"]),
                ("decontaminated against", content["evaluations"]),
            )
            if made is not None
        ),
    ]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _code(value: object) -> str:
    """Return a value as code, in which neither Markdown nor HTML has a meaning."""
    text = printable(" ".join(str(value).split()) or "-", keep="")
    return "`" + text.replace("|", "\\|").replace("`", "'") + "`"
