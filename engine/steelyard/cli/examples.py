"""Examples that the help of each command ends with; the tests run them."""

from __future__ import annotations

import click

MODEL = "Qwen/Qwen3-8B"
# By the words of the command, without the program's name.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("", "--run runs/demo --json"),
    "doctor": ("", "--json"),
    "plan": (f"pairs.parquet --judge {MODEL}",),
    "score": (
        f"pairs.parquet --run runs/new --judge {MODEL}",
        f"pairs.parquet --run runs/ties --judge {MODEL} --protocol pairwise-tie",
        f"responses.parquet --run runs/all --judge {MODEL} --pairs all",
        f"pairs.parquet --run runs/strict --judge {MODEL} --tolerate-rejects 1%",
    ),
    "resume": ("runs/mine",),
    "status": ("runs/mine", "runs/mine --watch"),
    "import": (
        "judged.parquet --run runs/imported --judge gpt-4-turbo",
        "judged.parquet --run runs/again --map model_b==baseline",
    ),
    "sql": (
        "runs/mine 'SELECT winner, count(*) FROM verdicts GROUP BY winner'",
        "runs/mine 'FROM verdicts' --csv verdicts.csv",
        "runs/mine 'FROM verdicts JOIN texts USING (shard, \"row\")' --parquet texts.parquet",
    ),
    "show": ("runs/mine pair-7", "runs/mine --least-certain 5 --flipped 5"),
    "compact": ("runs/mine --out copy.duckdb",),
    "rank": ("runs/mine", "verdicts.parquet --method elo --json", "runs/mine --gold"),
    "winrate": ("runs/mine --baseline m0", "runs/mine --baseline m0 --style"),
    "bias": ("runs/mine", "runs/mine --by model_a"),
    "compare": ("runs/mine runs/other --gold people.parquet", "runs/mine --competitors m0 m3"),
    "power": ("", "runs/mine --difference 0.03"),
    "calibrate fit": (
        "runs/mine --gold people.parquet",
        "runs/mine --gold people.parquet --agreement 0.7 --out trusted.json",
    ),
    "calibrate apply": ("runs/mine calibrator.json",),
    "calibrate show": ("calibrator.json",),
    "evaluate": (
        "runs/mine --gold people.parquet",
        "runs/mine --by model_a --inspect-log log.json",
    ),
    "report": ("runs/mine --gold people.parquet",),
    "serve": ("runs/mine --open", "runs/mine --port 8000"),
    "export": (
        "runs/mine --format preference --out dataset --consistent --test 0.1",
        "runs/mine --format preference --dry-run --chosen-model m0 --rejected-model m3",
        "runs/mine --format preference --dry-run --push-to-hub my-group/preferences",
    ),
    "protocol list": ("",),
    "protocol show": (f"rubric --judge {MODEL}",),
    "protocol check": (f"mine.toml --judge {MODEL}",),
    "protocol new": (
        "mine --template prompt.txt",
        "mine --template judge_prompts.jsonl --prompt pair-v2",
    ),
    "judge inspect": (MODEL, f"{MODEL} --protocol verbalized"),
    "version": ("",),
}


def add_examples(command: click.Command, words: str = "") -> None:
    """End the help of a command, and of those in it, with its examples."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            add_examples(inner, f"{words} {name}".strip())
        return
    lines = [f"  steelyard {words} {line}".rstrip() for line in EXAMPLES[words]]
    command.epilog = "\n".join(["\b", "Examples:", *lines])
