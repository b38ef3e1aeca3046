"""Filters that decide which verdicts become pairs of a dataset, as SQL over a scratch database.

The table `candidates` has one row per verdict, `pairs` one per pair. A filter on them is a query
for the numbers `n` of the rows to drop. A pair represents the verdict `n`, and also `other` where
its two responses come from two verdicts. Queries over many rows select few columns, so that they
fit into the memory.
"""

from __future__ import annotations

import re

from steelyard.calibrators.features import logit_sql
from steelyard.core.schemas import READ_FROM
from steelyard.errors import UsageError
from steelyard.export import traces
from steelyard.export.options import ExportOptions
from steelyard.export.pairing import SURE
from steelyard.store.sql import Connection, sql_list

# Why a verdict is not in the dataset, in the order in which the reasons are checked.
REASONS = {
    "no_verdict": "the judge gave no preference",
    "no_text": "its texts are missing",
    "alone": "a single response is not a pair",
    "images": "datasets with images are not supported",
    "two_conversations": "each response belongs to a separate conversation",
    "needs_conversation": "a system message or turns, which plain text cannot hold",
    "where": "--where does not hold",
    "inconsistent": "the two orders do not name the same winner",
    "label_mass": "label mass below --min-label-mass",
    "untrusted": "not trusted by the calibrator",
    "no_gold": "it has no gold, which --correct or the target needs",
    "incorrect": "not both orders name the side that gold names",
    "truncated": "texts of its prompts were cut",
    "same_response": "both responses have the same text",
    "contaminated": "the instruction is in an evaluation",
    "duplicate": "an earlier verdict has the same instruction and responses",
    "near_duplicate": "an earlier instruction is nearly the same",
    "unconnected": "no chain of verdicts connects it to the others of its instruction",
    "not_selected": "not the pair that --select takes for its instruction",
    "contradicted": "judged against each other, the worse response won",
    "tie": "a tie: neither response is chosen",
    "empty": "the chosen response has no text",
    "chosen_model": "the chosen response is not by a --chosen-model",
    "rejected_model": "the rejected response is not by a --rejected-model",
    "unanswered": "the judge did not write a verdict in both orders",
    "probability": "probability below --min-probability",
    "margin": "log-odds outside --margin",
    "per_instruction": "more than --per-instruction pairs",
    "length_balance": "dropped by --balance-length",
    "repeated": "an earlier pair has the same completion",
    "undecided": "both completions have a mean of one half",
}

_BINS = 20  # of the length difference


_VERDICTS = """
SELECT shard, "row", pair_id, model_a, model_b, status, winner, gold, consistent, trusted,
  length_b IS NULL AND raw_preference IS NULL AS alone, instruction_id,
  raw_preference, calibrated_preference, least(label_mass_ab, label_mass_ba) AS label_mass,
  CASE WHEN preference_ab + preference_ba IS NOT NULL THEN ({ab} - {ba}) / 2 END AS gap,
  list_contains(flags, 'truncated') AS truncated, {correct} AS correct,
  {where} AS wanted{addresses}
FROM ({source})"""
# Gold, which is not a tie, names the side that each order prefers.
_CORRECT = " AND ".join(
    f"sign(coalesce(preference_{order}, raw_preference) - 0.5) = sign(gold.a - gold.b)"
    for order in ("ab", "ba")
)
_ADDRESSES = "".join(f", metadata.{name}" for name in READ_FROM)
_ORDERS = {order: logit_sql(f"preference_{order}") for order in ("ab", "ba")}


def verdicts_sql(source: str, wanted: str, *, by_response: bool) -> str:
    """Return the query for what is needed of the verdicts that the query `source` gives.

    `wanted` is the condition of --where; `by_response` adds the places of both responses.
    """
    addresses = _ADDRESSES if by_response else ""
    return _VERDICTS.format(
        where=wanted,
        source=source,
        addresses=addresses,
        correct=f"gold.a <> gold.b AND {_CORRECT}",
        **_ORDERS,
    )


def candidates_sql(options: ExportOptions, preference: str) -> str:
    """Return the statement for `candidates`: verdicts, features of their texts, and `reason`.

    `preference` is the column of verdicts that is exported.
    """
    checks = {
        "no_verdict": f"v.status <> 'ok' OR v.{preference} IS NULL AND NOT v.alone",
        "no_text": "t.n IS NULL AND NOT v.alone",
        "alone": "v.alone OR t.ref_b IS NULL",
        "problem": "t.problem IS NOT NULL AND t.problem <> 'contaminated'",
        "where": "NOT v.wanted",
        "inconsistent": "v.consistent IS NOT TRUE" if options.consistent else "false",
        "label_mass": f"coalesce(v.label_mass, 0) < {options.min_label_mass or 0.0!r}",
        "untrusted": "v.trusted IS NOT TRUE" if options.trusted else "false",
        "no_gold": "v.gold IS NULL" if options.target == "gold" or options.correct else "false",
        "incorrect": "v.correct IS NOT TRUE" if options.correct else "false",
        "truncated": "v.truncated" if options.format == "trace" else "false",
        "same_response": "false" if options.judging else "t.response_a = t.response_b",
        "contaminated": "t.problem = 'contaminated'",
    }
    cases = " ".join(f"WHEN {check} THEN '{name}'" for name, check in checks.items())
    return f"""
CREATE TABLE candidates AS
SELECT t.n, t.instruction, t.cluster_leader, t.split_hash, t.response_a, t.response_b, t.ref_a,
  t.ref_b, t.length_a, t.length_b, v.pair_id, v.model_a, v.model_b, v.consistent, v.label_mass,
  v.winner = 'tie' AS tied, v.{preference} AS preference, v.raw_preference AS raw, v.gap,
  (v.gold.a + v.gold.tie / 2) / (v.gold.a + v.gold.b + v.gold.tie) AS gold,
  CASE {cases.replace("'problem'", "t.problem")} END AS reason
FROM verdicts v LEFT JOIN pair_texts t ON v.shard = t.shard AND v."row" = t."row" """  # noqa: S608


def candidate_filters(options: ExportOptions) -> dict[str, str]:
    """Return by reason the queries for candidates to drop, in their order."""
    near = {} if options.near_duplicates is None else {"near_duplicate": _NEAR_DUPLICATE}
    return {"duplicate": _DUPLICATE, **near}


# The same two responses to the same instruction, on either side.
_DUPLICATE = """
SELECT n FROM candidates ANTI JOIN (
  SELECT min(n) AS n FROM candidates
  GROUP BY instruction, least(response_a, response_b), greatest(response_a, response_b)
) USING (n)"""
_NEAR_DUPLICATE = """
SELECT n FROM candidates JOIN (
  SELECT cluster_leader, arg_min(instruction, n) AS kept FROM candidates GROUP BY cluster_leader
) USING (cluster_leader) WHERE instruction <> kept"""


def pair_filters(options: ExportOptions) -> dict[str, str]:
    """Return by reason the queries for pairs to drop, in their order."""
    sure = "greatest(probability, 1 - probability)"
    conditions = {}
    if options.selection != "all" and options.format != "sft":  # which takes the best alone
        conditions["contradicted"] = "contradicted"
    if not options.judging:
        conditions |= {"tie": "tied OR probability = 0.5", "empty": "empty"}
    for reason in ("chosen_model", "rejected_model"):
        if names := getattr(options, reason):
            conditions[reason] = f"list_contains({sql_list(names)}, {reason}) IS NOT TRUE"
    if options.format == "trace":
        conditions["unanswered"] = traces.UNANSWERED
    if options.min_probability is not None:
        conditions["probability"] = f"{sure} < {options.min_probability!r}"
    if options.margin is not None:
        low, high = options.margin
        odds = f"ln(least({sure}, {1 - SURE!r}) / (1 - least({sure}, {1 - SURE!r})))"
        conditions["margin"] = f"{odds} NOT BETWEEN '{low!r}'::DOUBLE AND '{high!r}'::DOUBLE"
    queries = {
        reason: f"SELECT n FROM pairs WHERE {condition}"  # noqa: S608 - our own names
        for reason, condition in conditions.items()
    }
    if options.per_instruction is not None:
        queries["per_instruction"] = _excess(options)
    if options.balance_length:
        queries["length_balance"] = _unbalanced(options)
    return queries


def _draw(options: ExportOptions) -> str:
    """Draw a random number per pair, which does not depend on the other pairs."""
    return f"md5_number_lower('{options.seed}:' || pair_id)"


def _excess(options: ExportOptions) -> str:
    return f"""
SELECT n FROM (SELECT n, instruction, {_draw(options)} AS drawn FROM pairs)
QUALIFY row_number() OVER (PARTITION BY instruction ORDER BY drawn, n)
  > {options.per_instruction}"""  # noqa: S608


def _unbalanced(options: ExportOptions) -> str:
    """Select pairs without a partner in their bin whose length differs the other way."""
    return f"""
SELECT n FROM (
  SELECT n, longer, drawn, test,
    ntile({_BINS}) OVER (PARTITION BY test ORDER BY abs(longer), n) AS bin
  FROM (
    SELECT n, longer, {_draw(options)} AS drawn, split_hash < {options.test!r} AS test FROM pairs
  )
) WHERE longer <> 0
QUALIFY row_number() OVER (PARTITION BY test, bin, sign(longer) ORDER BY drawn, n) > least(
  count(*) FILTER (WHERE longer > 0) OVER (PARTITION BY test, bin),
  count(*) FILTER (WHERE longer < 0) OVER (PARTITION BY test, bin))"""  # noqa: S608


def require_repeatable(connection: Connection, where: str) -> None:
    """Refuse a condition that can hold this time and not the next.

    Raises:
        UsageError: it calls a function such as random() or now().
    """
    words = set(re.findall(r"[a-z_0-9]+", where.lower()))
    volatile = connection.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
    ).fetchall()
    called = {
        name for (name,) in volatile if re.search(rf"\b{re.escape(name)}\s*\(", where.lower())
    }
    called |= words & {"current_date", "current_time", "current_timestamp", "localtimestamp"}
    if called:
        raise UsageError(
            f"--where calls {', '.join(sorted(called))}, whose value changes between runs",
            effect="the same command would not make the same dataset",
            remedy="for a random part use hash(pair_id) % 100 < 50, or --per-instruction, --test",
        )
