"""Runs and estimates as text for a terminal."""

from __future__ import annotations

from typing import Any

from steelyard.cli.tables import format_fields
from steelyard.core.progress import amount, duration

JUDGED = {"prompts", "tokens", "work", "time"}  # fields that an imported run does not have


def format_status(status: dict[str, Any]) -> str:
    """Format what `run_status` returns."""
    pairs, prompts = status["pairs"], status["prompts"]
    tokens = (
        "{computed:,} computed, {cached:,} from the prefix cache; saved: {saved_by_dedupe:,} by"
        " deduplication, {saved_by_reuse:,} by reuse"
    )
    reading = status["work"]["reading_seconds"]
    rate = status["work"]["unique_tokens"] / reading if reading else 0
    fields = [
        ("run", f"{status['run']} ({status['state']})"),
        ("judge", f"{status['judge']}, protocol {status['protocol']}"),
        ("pairs", f"{pairs['done']:,} done of {_number(pairs['planned'])}"),
        (
            "prompts",
            f"{prompts['read']:,} read of {_number(prompts['unique'])} unique prompts"
            f" ({_number(prompts['asked'])} with duplicates); {prompts['reused']:,} reused,"
            f" {prompts['error']:,} errors, {prompts['overlong']:,} overlong"
            + (f", {prompts['unparsable']:,} unparsable" if prompts["unparsable"] else ""),
        ),
        ("tokens", tokens.format_map(status["tokens"])),
        ("work", _work(status["work"])),
        ("rejects", _rejects(status["rejects"], prompts["overlong"])),
        (
            "time",
            f"{duration(status['seconds'])} with the judge loaded, of which {duration(reading)}"
            f" reading at {rate:,.0f} prompt tokens/s; {status['cpu_seconds']:,.0f} CPU seconds",
        ),
        ("disk", ", ".join(f"{name} {amount(size)}" for name, size in status["bytes"].items())),
    ]
    if status["gpu_watt_hours"] is not None:
        fields.append(("energy", _energy(status)))
    if status["damage"]:
        remedy = f"`steelyard resume {status['run']}` mends it"
        fields.insert(1, ("damage", f"{status['damage']}: {remedy}"))
    if count := status["damaged_samples"]:
        fields.append(("left out", f"{count:,} damaged or torn lines of telemetry.jsonl"))
    if "imported" in status:
        fields = [field for field in fields if field[0] not in JUDGED]
        fields.insert(1, ("from", ", ".join(status["imported"])))
    return format_fields(fields)


def _rejects(rejects: dict[str, int], overlong: int) -> str:
    count = sum(rejects.values())
    text = f"{count:,} {'row' if count == 1 else 'rows'}" + _reasons(rejects)
    return text + (f", and the pairs of {overlong:,} overlong prompts" if overlong else "")


def _reasons(rejects: dict[str, int]) -> str:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in rejects.items())
    return f" ({reasons})" if reasons else ""


def _work(work: dict[str, Any]) -> str:
    if not work["prompts"]:
        return "no prompt was read by an engine"
    oracle, busy = work["oracle_tokens"], work["busy_share"]
    return (
        f"{work['logical_tokens']:,} tokens in all prompts, {work['unique_tokens']:,} in unique"
        f" ones, {work['computed_tokens']:,} computed (floor {work['floor_tokens']:,}"
        + (f", oracle {oracle:,}" if oracle is not None else "")
        + (f"), {work['written_tokens']:,} generated" if work["written_tokens"] else ")")
        + f"; prefix cache hit rate {work['hit_rate']:.1%}"
        + (f"; engine busy {busy:.1%}" if busy is not None else "")
    )


def _energy(status: dict[str, Any]) -> str:
    each = status["gpu_watt_hours_per_1000_verdicts"]
    text = f"{status['gpu_watt_hours']:,.1f} Wh by the GPUs"
    return text if each is None else f"{text}, {each:,.2f} Wh per 1,000 verdicts"


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def format_plan(content: dict[str, Any]) -> str:
    """Format what `dry_run` returns."""
    prompts, share = content["prompts"], content["counted_share"]
    about = "" if share == 1 else f" (estimated from {share:.1%} of the prompts)"
    time = (
        f"{duration(content['seconds'])} at {content['computed_tokens_per_second']:,.0f} tokens/s,"
        " the rate of this judge's last run on this machine"
        if content["seconds"] is not None
        else "unknown: this judge has not run on this machine yet"
    )
    return format_fields(
        [
            (
                "rows",
                f"{content['rows']:,}: {content['pairs']:,} pairs,"
                f" {sum(content['rejects'].values()):,} rejects" + _reasons(content["rejects"]),
            ),
            ("prompts", f"{prompts['unique']:,} unique of {prompts['asked']:,}"),
            (
                "tokens",
                f"{content['tokens']:,} in unique prompts, of which {content['computed_tokens']:,}"
                f" have to be computed (floor {content['floor_tokens']:,}){about}",
            ),
            (
                "longest",
                f"{content['longest_prompt']:,} tokens; the judge takes"
                f" {content['context_length'] - 1:,}; {content['overlong']:,} overlong{about}",
            ),
            (
                "disk",
                f"{amount(content['plan_bytes'])} for the plan, buckets: {content['buckets']}"
                + ("; texts stay in the shards" if content["texts"] == "in shards" else ""),
            ),
            ("time", time),
        ]
    )
