"""Runs and estimates as text for a terminal."""

from __future__ import annotations

import shlex
from typing import Any

from steelyard.cli.tables import format_fields
from steelyard.core.progress import amount, duration, share_text
from steelyard.errors import escape

TOY = (
    "the judge `demo` is a toy of 135 million parameters: it shows how Steelyard works, and its"
    " verdicts mean little; choose another with --judge"
)
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
        ("run", _run(status)),
        *_progress(status),
        ("judge", f"{status['judge']}, protocol {status['protocol']}"),
        ("pairs", f"{pairs['done']:,} done of {_number(pairs['planned'])}" + _ahead(pairs)),
        (
            "prompts",
            f"{prompts['read']:,} read of {_number(prompts['unique'])} unique prompts"
            f" ({_number(prompts['asked'])} with duplicates){_ahead(prompts)};"
            f" {prompts['reused']:,} reused,"
            f" {prompts['error']:,} errors, {prompts['overlong']:,} overlong"
            + (f", {prompts['unparsable']:,} unparsable" if prompts["unparsable"] else ""),
        ),
        ("tokens", tokens.format_map(status["tokens"])),
        ("work", _work(status)),
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
        fields[1:1] = [("damage", status["damage"]), ("next", status["remedy"])]
    if count := status["damaged_samples"]:
        fields.append(("left out", f"{count:,} damaged or torn lines of telemetry.jsonl"))
    if "imported" in status:
        fields = [field for field in fields if field[0] not in JUDGED]
        fields.insert(1, ("from", ", ".join(status["imported"])))
    return format_fields(fields)


def _run(status: dict[str, Any]) -> str:
    part = f"; {status['part']}" if status["part"] else ""
    return f"{status['run']} ({status['state']}{part})"


def _progress(status: dict[str, Any]) -> list[tuple[str, str]]:
    """Return how much is done and the time left, while that is not all."""
    if status["fraction"] in {None, 1.0}:
        return []
    prompts = status["prompts"]
    done = share_text(prompts["read"] + prompts["uncommitted"], prompts["unique"])
    if status["state"] == "scoring":
        done += f", {duration(status['seconds_left'])} left"
    return [("done", done)]


def format_results(content: dict[str, Any], *more: tuple[str, str]) -> str:
    """Format what `summarise_run` returns, and more fields; of an incomplete run, its status."""
    results = content["results"]
    if results is None:
        return format_status(content)
    judged, of = results["ok"], results["pairs"]
    sides = (
        ""
        if not results["a"] + results["b"] + results["even"]  # single responses, or nothing
        else (f": a is better in {results['a'] / judged:.1%}, b in {results['b'] / judged:.1%}")
    )
    fields = [
        ("run", _run(content)),
        ("judge", f"{content['judge']}, protocol {content['protocol']}"),
        ("verdicts", f"{judged:,} of {of:,} pairs{sides}"),
    ]
    if results["consistency"] is not None:
        text = f"{results['consistency']:.1%} of pairs have the same winner in both orders"
        if results["first_position"] is not None:
            text += (
                f"; {results['first_position']:.1%} of decisions are for the response shown first"
            )
        fields.append(("orders", text))
    leaders = results["leaderboard"]
    if len(leaders) > 1:
        shown = [
            f"{row['rank']}. {escape(row['competitor'])}: {row['average_win_rate']:.1%} of"
            f" {row['comparisons']:,} comparison{'' if row['comparisons'] == 1 else 's'}"
            for row in leaders
        ]
        if results["competitors"] > len(leaders):
            shown.append(f"and {results['competitors'] - len(leaders):,} more: steelyard rank")
        fields += [("win rates" if not number else "", line) for number, line in enumerate(shown)]
    if content["rejects"] or content["prompts"]["overlong"]:
        fields.append(("rejects", _rejects(content["rejects"], content["prompts"]["overlong"])))
    if content["prompts"]["error"]:
        fields.append(("errors", f"{content['prompts']['error']:,} prompts could not be read"))
    if "imported" not in content:
        fields.append(("time", _time(content)))
    fields += more
    commands = [shlex.join(["steelyard", *arguments]) for arguments in results["next"]]
    fields += [("next" if not number else "", line) for number, line in enumerate(commands)]
    fields += [("note", TOY)] if results["toy"] else []
    return format_fields(fields)


def _time(content: dict[str, Any]) -> str:
    work = content["work"]
    text = f"{duration(content['seconds'])} with the judge loaded"
    if work["logical_tokens"] and work["computed_tokens"] is not None:
        saved = 1 - work["computed_tokens"] / work["logical_tokens"]
        text += f"; {saved:.1%} of prompt tokens were saved by sharing"
    return text + f" (steelyard status {shlex.quote(content['run'])})"


def _rejects(rejects: dict[str, int], overlong: int) -> str:
    count = sum(rejects.values())
    text = f"{count:,} {'row' if count == 1 else 'rows'}" + _reasons(rejects)
    return text + (f", and the pairs of {overlong:,} overlong prompts" if overlong else "")


def _reasons(rejects: dict[str, int]) -> str:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in rejects.items())
    return f" ({reasons})" if reasons else ""


def _ahead(counts: dict[str, Any]) -> str:
    ahead = counts["uncommitted"]
    return f", and {ahead:,} that are not committed yet" if ahead else ""


def _work(status: dict[str, Any]) -> str:
    work = status["work"]
    if not work["prompts"]:
        if status["state"] == "scoring":
            return "counted when the first part is committed"
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
    of = f" of {content['rows_of_input']:,}" if content["rows_of_input"] != content["rows"] else ""
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
                f"{content['rows']:,}{of}: {content['pairs']:,} pairs,"
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
