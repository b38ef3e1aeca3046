"""Which verdicts become pairs of a dataset: every filter, as SQL over the scratch database.

checked -> once -> candidates (what is asked of each verdict) -> pairs (items.py) -> certain -> few
-> kept (what is asked of each pair). Each table has the rows that the one before let through, and
a column `reason`: why a row goes no further, NULL if it does. A row stands for the verdict `n`,
and for `other` where its two responses were judged in two verdicts.
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
    "undecided": "both completions win as much as they lose",
}

_BINS = 20  # of the length difference


def checked_sql(options: ExportOptions, preference: str) -> str:
    """Verdicts with what was seen of their texts, and what each fails by itself.

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
    cases = _first(checks).replace("'problem'", "s.problem")
    return f"""
CREATE TABLE checked AS
SELECT s.n, NULL::BIGINT AS other, s.instruction, s.leader, s.spread, s.response_a, s.response_b,
  s.ref_a, s.ref_b, s.length_a, s.length_b, v.pair_id, v.model_a, v.model_b, v.consistent,
  v.label_mass, v.winner = 'tie' AS tied, v.{preference} AS preference, v.raw_preference AS raw,
  (v.gold.a + v.gold.tie / 2) / (v.gold.a + v.gold.b + v.gold.tie) AS gold,
  {cases} AS reason
FROM verdicts v LEFT JOIN seen s ON v.shard = s.shard AND v."row" = s."row" """  # noqa: S608


def step_sql(name: str, source: str, reason: str) -> str:
    """The table `name`: what `source` lets through, with the reasons of this step."""
    return (
        f"CREATE TABLE {name} AS SELECT * EXCLUDE (reason), {reason} AS reason"  # noqa: S608
        f" FROM {source} WHERE reason IS NULL"
    )


# The same two responses to the same instruction, on whichever sides.
DUPLICATE = """CASE WHEN row_number() OVER (
    PARTITION BY instruction, least(response_a, response_b), greatest(response_a, response_b)
    ORDER BY n
  ) > 1 THEN 'duplicate' END"""
NEAR_DUPLICATE = """CASE WHEN instruction <> first_value(instruction) OVER (
    PARTITION BY leader ORDER BY n
  ) THEN 'near_duplicate' END"""


def certain(options: ExportOptions) -> str:
    """Why a pair is not certain enough, or too certain."""
    low, high = options.margin or (0.0, 0.0)
    sure = "greatest(probability, 1 - probability)"
    odds = f"ln(least({sure}, {1 - SURE!r}) / (1 - least({sure}, {1 - SURE!r})))"
    checks = {
        "tie": "false" if options.judging else "tied OR probability = 0.5",
        "empty": "false" if options.judging else "empty",
        "probability": f"{sure} < {options.min_probability or 0.0!r}",
        "margin": "false"
        if options.margin is None
        else f"{odds} NOT BETWEEN {low!r} AND '{high!r}'::DOUBLE",
    }
    return _first(checks)


def few(options: ExportOptions) -> str:
    """Why a pair is one too many of its instruction; which ones, the seed draws."""
    most = options.per_instruction
    if most is None:
        return "NULL"
    return f"""CASE WHEN row_number() OVER (PARTITION BY instruction ORDER BY {draw(options)}, n)
  > {most} THEN 'per_instruction' END"""


def draw(options: ExportOptions) -> str:
    """A random number of a pair, the same whatever stands around it."""
    return f"md5('{options.seed}:' || pair_id)"


# In each bin of absolute length differences, as many pairs whose chosen response is longer as
# pairs whose rejected one is.
BALANCED = "CASE WHEN longer <> 0 AND place > most THEN 'length_balance' END"


def matched_sql(options: ExportOptions) -> str:
    """The table `matched`: `few` with each pair's place in its bin and side, and room for both."""
    return f"""
CREATE TABLE matched AS
SELECT * EXCLUDE (bin), least(count(*) FILTER (WHERE longer > 0) OVER (PARTITION BY bin),
    count(*) FILTER (WHERE longer < 0) OVER (PARTITION BY bin)) AS most,
  row_number() OVER (PARTITION BY bin, sign(longer) ORDER BY {draw(options)}, n) AS place
FROM (SELECT *, ntile({_BINS}) OVER (ORDER BY abs(longer), n) AS bin
  FROM few WHERE reason IS NULL)"""  # noqa: S608


def _first(checks: dict[str, str]) -> str:
    cases = " ".join(f"WHEN {check} THEN '{name}'" for name, check in checks.items())
    return f"CASE {cases} END"
