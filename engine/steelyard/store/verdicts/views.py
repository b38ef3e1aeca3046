"""The SQL of views: the one definition of a verdict, for live runs and for the hand-off file.

asked: one row per prompt of a pair; answered: asked joined to reads, with the values of the
protocol's rule; verdicts: one row per pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.calibrators.calibrator import COLUMNS, Calibrator, calibrated_sql
from steelyard.calibrators.features import number_sql
from steelyard.plan.spec import JudgingSpec
from steelyard.protocols.axes import PromptAxes
from steelyard.protocols.rules import COLUMNS as VALUES
from steelyard.protocols.rules import IN_ORDER, MEMBER, RULES, Rule, member_sql, winner
from steelyard.store.sql import sql_list, sql_text

LOW_LABEL_MASS = 0.5
NO = "NULL::DOUBLE"
_FIELDS = ", ".join(f"{name} DOUBLE" for name in MEMBER)
NO_MEMBERS = f"NULL::STRUCT(judge VARCHAR, protocol VARCHAR, {_FIELDS})[]"


@dataclass(frozen=True, slots=True)
class VerdictSpec:
    """What the views depend on."""

    judging: JudgingSpec
    judges: Sequence[str]  # names
    metadata: bool = False  # whether the pairs have columns without a role
    calibrator: Calibrator | None = None

    @property
    def axes(self) -> PromptAxes:
        """In what a pair's prompts differ."""
        return self.judging.axes

    @property
    def rule(self) -> Rule:
        """How a pair's reads are combined."""
        return RULES[self.judging.protocol.combine]

    @property
    def preference_band(self) -> float:
        """Tie band of calibrated preferences; 0 where the protocol's is a difference of scores."""
        return self.judging.protocol.tie_band if self.rule.band == "preference" else 0.0


# Of `verdict_sql`, stored in a hand-off file: one with another definition is not read.
DEFINITION = "2"
# The calibrated columns of a run to which no calibrator was applied.
UNCALIBRATED = """NULL::DOUBLE AS calibrated_preference, NULL::DOUBLE AS calibrated_tie,
  NULL::BOOLEAN AS trusted"""


def verdict_sql(spec: VerdictSpec, pairs: str = "pairs_raw", reads: str = "reads") -> str:
    """Return the query for verdicts: raw ones with their calibrated columns.

    Reads the tables `pairs` and `reads`. A pair appears when all its prompts are read.
    """
    rule = spec.rule
    values = dict(rule.verdict)
    combined = ",\n    ".join(f"{sql} AS {name}" for name, sql in values.items())
    numbers = ",\n  ".join(
        f"CASE WHEN c.good THEN c.{name} END AS {name}" if name in values else f"{NO} AS {name}"
        for name in VALUES
    )
    query = f"""
WITH asked AS (
  {_asked_sql(spec, pairs, ("pair",))}
), answered AS (
  {_answered_sql(spec, ("a.pair",), reads)}
), combined AS (
  SELECT pair, count(*) AS asked,
    {_good(spec)} AS good,
    {combined},
    {_flags(spec)} AS flags,
    {_members(spec)} AS members,
    min(label_mass) FILTER (WHERE NOT swapped) AS label_mass_ab,
    min(label_mass) FILTER (WHERE swapped) AS label_mass_ba,
    max(status) FILTER (WHERE status <> 'ok') AS status, max(error) AS error,
    max(read_at) AS read_at
  FROM answered GROUP BY pair
)
SELECT p.pair_id, p.shard, p."row", p.instruction_id, p.category, p.model_a, p.model_b,
  {sql_text(" + ".join(spec.judges))} AS judge,
  {sql_text(spec.judging.name)} AS protocol,
  {numbers},
  {_comparisons(spec)},
  c.label_mass_ab, c.label_mass_ba, c.flags,
  CASE WHEN c.good THEN 'ok' ELSE c.status END AS status,
  CASE WHEN NOT c.good THEN c.error END AS error,
  p.length_a, p.length_b, p.gold,
  {"p.metadata" if spec.metadata else "NULL::STRUCT(none VARCHAR)"} AS metadata,
  c.read_at, p.criteria, p.keys, CASE WHEN c.good THEN c.members END AS members
FROM {pairs} p JOIN combined c ON p.pair = c.pair
WHERE c.asked = len(p.keys)"""  # noqa: S608 - our own text
    if spec.axes.one_per_order:
        query = query.replace(IN_ORDER, "")  # two terms have one sum, and need no sorting
    return with_calibration(query, spec.calibrator, spec.preference_band)


def with_calibration(verdicts: str, calibrator: Calibrator | None, band: float) -> str:
    """Add calibrated columns to a query for raw verdicts, whose winner becomes `raw_winner`."""
    if calibrator is None:
        return f"SELECT v.*,\n  {UNCALIBRATED}, v.winner AS raw_winner\nFROM ({verdicts}) v"
    *added, (_, winner_sql) = calibrated_columns(calibrator, band)
    columns = ",\n  ".join(f"{sql} AS {name}" for name, sql in added)
    return f"""SELECT v.* REPLACE ({winner_sql} AS winner), v.winner AS raw_winner
FROM (SELECT v.*,
  {columns}
FROM ({verdicts}) v) v"""  # noqa: S608 - our own text


def calibrated_columns(calibrator: Calibrator, band: float) -> list[tuple[str, str]]:
    """Return the columns that a calibrator decides as (name, SQL); later ones read earlier ones.

    The winner of a trusted verdict is the side that the promise of agreement is about. Of others
    it may be a tie: by the probability of a tie where gold had ties, else where the calibrated
    preference is within `band` of one half.
    """
    preference, tie, trusted = COLUMNS
    side = f"CASE WHEN {preference} > 0.5 THEN 'a' ELSE 'b' END"
    free = winner(preference, tie, None, band)
    won = f"CASE WHEN {trusted} AND {preference} <> 0.5 THEN {side} ELSE {free} END"
    return [*calibrated_sql(calibrator), ("winner", won)]


def answers_sql(spec: VerdictSpec) -> str:
    """Return the view `answers` over `verdicts` and `reads`: one row per prompt of a verdict."""
    values = "".join(f"{name}, " for name, _ in spec.rule.answer)
    first, other = spec.axes.orders
    variants = [protocol.name for protocol in spec.judging.protocols]
    return f"""
WITH asked AS (
  {_asked_sql(spec, "verdicts", ("pair_id", "shard", '"row"'))}
), answered AS (
  {_answered_sql(spec, ("a.pair_id", "a.shard", 'a."row"'), "reads")}
)
SELECT pair_id, shard, "row", {sql_list(spec.judges)}[judge + 1] AS judge,
  {sql_list(variants)}[variant + 1] AS protocol, criterion, weight, sample,
  CASE WHEN swapped THEN '{other}' ELSE '{first}' END AS shown,
  {values}status, error, label_logprobs, label_mass, output, numbers, forced, prompt_key
FROM answered"""  # noqa: S608 - our own text


def _asked_sql(spec: VerdictSpec, source: str, columns: Sequence[str]) -> str:
    """Return one row per prompt of a pair, with its position on the PromptAxes."""
    axes = spec.axes
    orders, samples = "2", axes.samples
    if axes.shows == "response":
        orders = "(CASE WHEN length_b IS NULL THEN 1 ELSE 2 END)"
    criterion, weight = "NULL::VARCHAR", "1.0::DOUBLE"
    each = f"(n // {axes.judges * axes.variants})"  # prompts per judge and variant
    number = f"(nth % {each}) // ({orders} * {samples}) + 1"
    if axes.row_criteria:
        criterion, weight = (f"criteria[{number}].{name}" for name in ("text", "weight"))
    elif axes.criteria:
        texts = sql_list([criterion.text for criterion in axes.criteria])
        weights = ", ".join(number_sql(criterion.weight) for criterion in axes.criteria)
        criterion, weight = f"{texts}[{number}]", f"[{weights}][{number}]"
    return f"""SELECT {", ".join(columns)}, prompt_key, nth, nth % {orders} = 1 AS swapped,
    (nth // {orders}) % {samples} AS sample, {criterion} AS criterion, {weight} AS weight,
    (nth // {each}) % {axes.variants} AS variant,
    nth // ({each} * {axes.variants}) AS judge,
    nth - (nth // {orders}) % {samples} * {orders} AS question
  FROM (
    SELECT {", ".join(columns)}, length_b, criteria, len(keys) AS n,
      unnest(keys) AS prompt_key, unnest(range(len(keys))) AS nth
    FROM {source}
  )"""  # noqa: S608 - our own text


def _answered_sql(spec: VerdictSpec, columns: Sequence[str], reads: str) -> str:
    """Join `asked` to the reads, with the rule's values."""
    rule = spec.rule
    options = ", ".join(number_sql(value) for value in spec.judging.protocol.scale)
    scale = f", [{options}] AS scale" if options else ""
    missing = ", 0)" if rule.missing_is_no else ")"
    values = ", ".join(
        f"coalesce(CASE WHEN status = 'ok' THEN {sql} END{missing} AS {name}"
        for name, sql in rule.answer
    )
    return f"""SELECT *, {values} FROM (
    SELECT {", ".join(columns)}, a.nth, a.swapped, a.sample, a.criterion, a.weight, a.variant,
      a.judge, a.question, r.*{scale}
    FROM asked a JOIN {reads} r ON a.prompt_key = r.prompt_key
  )"""  # noqa: S608 - our own text


def _good(spec: VerdictSpec) -> str:
    """Require an answer to every question, of one sample at least."""
    if not spec.rule.missing_is_no:
        if spec.axes.samples == 1:
            return "bool_and(status = 'ok')"
        return "count(DISTINCT question) FILTER (WHERE status = 'ok') = count(DISTINCT question)"
    sides = (f"bool_or(status = 'ok') FILTER (WHERE {side})" for side in ("NOT swapped", "swapped"))
    return " AND ".join(f"coalesce({side}, true)" for side in sides)


def _flags(spec: VerdictSpec) -> str:
    first, other = spec.axes.orders
    flags = {
        "truncated": "bool_or(truncated)",
        f"outside_{first}": "bool_or(argmax_outside AND NOT swapped)",
        f"outside_{other}": "bool_or(argmax_outside AND swapped)",
        "low_label_mass": f"min(label_mass) < {LOW_LABEL_MASS}",
        "forced": "bool_or(forced)",
    }
    if spec.rule.missing_is_no or spec.axes.samples > 1:
        flags["missing_answers"] = "bool_or(status <> 'ok')"
    return " || ".join(
        f"CASE WHEN {condition} THEN ['{flag}'] ELSE []::VARCHAR[] END"
        for flag, condition in flags.items()
    )


def _members(spec: VerdictSpec) -> str:
    """Return what each judge and variant says alone; NULL where there are not several, or samples.

    A calibrator may weigh them (`calibrators.stacked`).
    """
    axes = spec.axes
    if axes.judges * axes.variants * axes.samples == 1:
        return f"any_value({NO_MEMBERS})"
    members = []
    for judge in range(axes.judges):
        for variant, protocol in enumerate(spec.judging.protocols):
            who = f"judge = {judge} AND variant = {variant}"
            names = {"judge": sql_text(spec.judges[judge]), "protocol": sql_text(protocol.name)}
            values = {**names, **member_sql(spec.rule, who, axes.samples)}
            packed = ", ".join(f"{name} := {sql}" for name, sql in values.items())
            members.append(f"struct_pack({packed})")
    return f"[{', '.join(members)}]"


def _comparisons(spec: VerdictSpec) -> str:
    """Return columns that follow from the preferences: who wins, and what the order changed."""
    names = {name for name, _ in spec.rule.verdict}
    scores = ("c.score_a", "c.score_b") if spec.rule.band == "score" else None
    tie = "c.raw_tie" if "raw_tie" in names else "NULL"
    won = winner("c.raw_preference", tie, scores, spec.judging.protocol.tie_band)
    deviation, consistent = NO, "NULL::BOOLEAN"
    if "preference_ab" in names:
        deviation = "CASE WHEN c.good THEN c.preference_ab - c.preference_ba END"
        both = (f"sign(c.preference_{order} - 0.5)" for order in ("ab", "ba"))
        consistent = f"CASE WHEN c.good THEN {' = '.join(both)} END"
    return f"""CASE WHEN c.good THEN {won} END AS winner,
  {deviation} AS symmetry_deviation, {consistent} AS consistent"""


REJECTS_SQL = """
SELECT shard, "row", pair_id, reason, detail FROM rejects_raw
UNION ALL
SELECT shard, "row", pair_id, status, error FROM verdicts WHERE status = 'overlong'"""
