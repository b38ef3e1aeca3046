"""Which verdicts become pairs of a dataset: every filter, as SQL over the scratch database.

`candidates` has a row a verdict, `pairs` one a pair. A filter on them is a query for the numbers
`n` of the rows to leave out. A pair stands for the verdict `n`, and for `other` where its two
responses were judged in two verdicts. Queries that look at many rows at once take few columns, so
that they fit into the memory.
"""

from __future__ import annotations

from steelyard.export.options import ExportOptions
from steelyard.export.pairing import SURE

# Why a verdict is not in the dataset, in the order in which it is asked.
REASONS = {
    "no_verdict": "the judge gave no preference",
    "no_text": "its texts are not there",
    "alone": "a response alone is no pair",
    "images": "datasets of images are not written",
    "two_conversations": "each response has a conversation of its own",
    "needs_conversation": "a system message or turns, which plain text cannot hold",
    "where": "--where does not hold",
    "inconsistent": "the two orders do not name the same winner",
    "label_mass": "label mass below --min-label-mass",
    "untrusted": "not trusted by the calibrator",
    "no_gold": "no gold to aim at",
    "same_response": "both responses are the same text",
    "contaminated": "the instruction stands in an evaluation",
    "duplicate": "the same instruction and responses stood before",
    "near_duplicate": "an instruction nearly the same stood before",
    "unconnected": "no chain of verdicts joins it to the others of its instruction",
    "not_selected": "not the pair that --select takes of its instruction",
    "contradicted": "judged against each other, the worse response won",
    "tie": "a tie: neither response is chosen",
    "empty": "the chosen response has no text",
    "probability": "probability below --min-probability",
    "margin": "log-odds outside --margin",
    "per_instruction": "more than --per-instruction pairs",
    "length_balance": "taken out by --balance-length",
    "repeated": "the same completion stood before",
    "undecided": "both completions have a mean of one half",
}

_BINS = 20  # of the length difference


def candidates_sql(options: ExportOptions, preference: str) -> str:
    """The table `candidates`: verdicts, what was seen of their texts, and `reason`.

    Args:
        options: the filters.
        preference: the column of verdicts that is exported.
    """
    checks = {
        "no_verdict": f"v.status <> 'ok' OR v.{preference} IS NULL AND NOT v.alone",
        "no_text": "s.n IS NULL AND NOT v.alone",
        "alone": "v.alone OR s.ref_b IS NULL",
        "problem": "s.problem IS NOT NULL AND s.problem <> 'contaminated'",
        "where": "NOT v.wanted",
        "inconsistent": "v.consistent IS NOT TRUE" if options.consistent else "false",
        "label_mass": f"coalesce(v.label_mass, 0) < {options.min_label_mass or 0.0!r}",
        "untrusted": "v.trusted IS NOT TRUE" if options.trusted else "false",
        "no_gold": "v.gold IS NULL" if options.target == "gold" else "false",
        "same_response": "false" if options.judging else "s.response_a = s.response_b",
        "contaminated": "s.problem = 'contaminated'",
    }
    cases = " ".join(f"WHEN {check} THEN '{name}'" for name, check in checks.items())
    return f"""
CREATE TABLE candidates AS
SELECT s.n, s.instruction, s.leader, s.spread, s.response_a, s.response_b, s.ref_a, s.ref_b,
  s.length_a, s.length_b, v.pair_id, v.model_a, v.model_b, v.consistent, v.label_mass,
  v.winner = 'tie' AS tied, v.{preference} AS preference, v.raw_preference AS raw,
  (v.gold.a + v.gold.tie / 2) / (v.gold.a + v.gold.b + v.gold.tie) AS gold,
  CASE {cases.replace("'problem'", "s.problem")} END AS reason
FROM verdicts v LEFT JOIN seen s ON v.shard = s.shard AND v."row" = s."row" """  # noqa: S608


def candidate_filters(options: ExportOptions) -> dict[str, str]:
    """Reason -> query for candidates to leave out, one after the other."""
    found = {"duplicate": _DUPLICATE}
    if options.near_duplicates is not None:
        found["near_duplicate"] = _NEAR_DUPLICATE
    return found


# The same two responses to the same instruction, on whichever sides.
_DUPLICATE = """
SELECT n FROM candidates ANTI JOIN (
  SELECT min(n) AS n FROM candidates
  GROUP BY instruction, least(response_a, response_b), greatest(response_a, response_b)
) USING (n)"""
_NEAR_DUPLICATE = """
SELECT n FROM candidates JOIN (
  SELECT leader, arg_min(instruction, n) AS kept FROM candidates GROUP BY leader
) USING (leader) WHERE instruction <> kept"""


def pair_filters(options: ExportOptions) -> dict[str, str]:
    """Reason -> query for pairs to leave out, one after the other."""
    sure = "greatest(probability, 1 - probability)"
    found = {}
    if options.selection != "all" and options.format != "sft":  # which takes the best alone
        found["contradicted"] = "contradicted"
    if not options.judging:
        found |= {"tie": "tied OR probability = 0.5", "empty": "empty"}
    if options.min_probability is not None:
        found["probability"] = f"{sure} < {options.min_probability!r}"
    if options.margin is not None:
        low, high = options.margin
        odds = f"ln(least({sure}, {1 - SURE!r}) / (1 - least({sure}, {1 - SURE!r})))"
        found["margin"] = f"{odds} NOT BETWEEN {low!r} AND '{high!r}'::DOUBLE"
    queries = {name: f"SELECT n FROM pairs WHERE {where}" for name, where in found.items()}  # noqa: S608
    if options.per_instruction is not None:
        queries["per_instruction"] = _few(options)
    if options.balance_length:
        queries["length_balance"] = _unbalanced(options)
    return queries


def _draw(options: ExportOptions) -> str:
    """A random number of a pair, the same whatever stands around it."""
    return f"md5_number_lower('{options.seed}:' || pair_id)"


def _few(options: ExportOptions) -> str:
    return f"""
SELECT n FROM (SELECT n, instruction, {_draw(options)} AS drawn FROM pairs)
QUALIFY row_number() OVER (PARTITION BY instruction ORDER BY drawn, n)
  > {options.per_instruction}"""  # noqa: S608


def _unbalanced(options: ExportOptions) -> str:
    """Pairs without a partner in their bin whose length differs the other way."""
    return f"""
SELECT n FROM (
  SELECT n, longer, drawn, test,
    ntile({_BINS}) OVER (PARTITION BY test ORDER BY abs(longer), n) AS bin
  FROM (SELECT n, longer, {_draw(options)} AS drawn, spread < {options.test!r} AS test FROM pairs)
) WHERE longer <> 0
QUALIFY row_number() OVER (PARTITION BY test, bin, sign(longer) ORDER BY drawn, n) > least(
  count(*) FILTER (WHERE longer > 0) OVER (PARTITION BY test, bin),
  count(*) FILTER (WHERE longer < 0) OVER (PARTITION BY test, bin))"""  # noqa: S608
