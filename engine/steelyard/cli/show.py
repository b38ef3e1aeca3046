"""The command `show`: pairs of a run with their texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from steelyard.cli.common import PATH, emit, grouped, json_option, print_notes, remote_option
from steelyard.cli.tables import format_fields, format_quote
from steelyard.errors import escape

BEFORE = ("system", "turns", "instruction", "reference", "criteria")

kind_options = grouped(
    *(
        click.option(f"--{option}", type=click.IntRange(1, 10_000), metavar="N", help=text)
        for option, text in (
            ("most-certain", "Show the N pairs with the most certain verdicts."),
            ("least-certain", "Show the N pairs with the least certain verdicts."),
            ("flipped", "Show N pairs whose winner changes with the order, the most so first."),
            ("against-gold", "Show the N most certain verdicts that gold contradicts."),
            ("not-judged", "Show N pairs without a verdict."),
            ("any", "Show N pairs as they come."),
        )
    )
)


@click.command()
@click.argument("run", type=PATH)
@click.argument("pair_ids", nargs=-1, metavar="[PAIR_ID]...")
@kind_options
@remote_option
@json_option
def show(run: Path, pair_ids: tuple[str, ...], remote: bool, **numbers: int | None) -> None:
    """Show pairs of a run with their texts.

    Prints the texts, both orders' probabilities, and what the judge wrote. Name pairs, or kinds of
    pairs; the default is the 3 least certain ones, or any 3 where all verdicts are certain.
    """
    from steelyard.report.samples import NAMES, read_pairs

    kinds = {kind: number for kind, name in NAMES.items() if (number := numbers[name])}
    pairs, notes = read_pairs(run, pair_ids, kinds, remote=remote)
    print_notes(notes)
    emit(pairs, format_pairs)


def format_pairs(pairs: dict[str, list[dict[str, Any]]]) -> str:
    """Return pairs by kind as text."""
    from steelyard.core.schemas import PAIRED

    parts = []
    for kind, each in pairs.items():
        for number, pair in enumerate(each, 1):
            place = f"{escape(pair['shard'])}, row {pair['row']}"
            if pair["shard"] == PAIRED:
                place = f"pair {pair['row']}"
            heading = f"{escape(pair['pair_id'])} ({place})"
            if kind != "named":
                heading = f"{kind} {number}: {heading}"
            parts.append("\n".join([heading, *_lines(pair)]))
    return "\n\n".join(parts) if parts else "no such pairs"


def _lines(pair: dict[str, Any]) -> list[str]:
    texts = pair.get("texts", {})
    lines = [f"{role}:\n{format_quote(_text(texts[role]))}" for role in BEFORE if role in texts]
    for side in "ab":
        name = pair[f"model_{side}"]
        label = f"response_{side}" + (f" ({escape(name)})" if name else "")
        if pair["winner"] == side:
            label += ", preferred"
        shown = [_text(texts[r]) for r in (f"turns_{side}", f"response_{side}") if r in texts]
        if texts and not shown and not name:  # a response by itself
            continue
        lines += [f"{label}:", *map(format_quote, shown)]
    lines += [
        f"{answer['judge']} wrote ({answer['shown']}):\n{format_quote(answer['output'])}"
        for answer in pair.get("written", ())
    ]
    return [*lines, format_fields(_numbers(pair))]


def _numbers(pair: dict[str, Any]) -> list[tuple[str, str]]:
    if pair["status"] != "ok":
        return [(pair["status"], escape(pair["error"] or ""))]
    values = {
        "P(a is better)": pair["preference"],
        "a shown first": pair["preference_ab"],
        "b shown first": pair["preference_ba"],
        "score of a": pair["score_a"],
        "score of b": pair["score_b"],
    }
    fields = [(name, f"{value:.3f}") for name, value in values.items() if value is not None]
    if pair["calibrated_preference"] is not None:
        fields.insert(1, ("as read", f"{pair['raw_preference']:.3f}"))
    if pair["gold_side"]:
        fields.append(("gold", pair["gold_side"]))
    if pair["flags"]:
        fields.append(("flags", ", ".join(pair["flags"])))
    return fields


def _text(value: Any) -> str:
    """Return a text, or turns and criteria as lines."""
    if isinstance(value, str):
        return value
    return "\n".join(
        f"[{entry['role']}] {entry['content']}"
        if "role" in entry
        else f"{entry['text']} (weight {entry['weight']:g})"
        for entry in value
    )
