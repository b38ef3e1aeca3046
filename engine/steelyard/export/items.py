"""Pairs, and rows of a dataset, as SQL over the scratch database of filters.py.

`ref` numbers the chosen response, the only one, or the one that a judge sees first; `second_ref`
the other. A row is `direct` if all its texts come from a single row of the shards.
"""

from __future__ import annotations

from steelyard.export.options import ExportOptions

_ORIGIN = "pair_id, probability, raw_probability, consistent, label_mass"


def _side(name: str, is_a: str) -> str:
    return f"CASE WHEN {is_a} THEN {name}_a ELSE {name}_b END"


def pairs_sql(options: ExportOptions) -> str:
    """Return the statement for `pairs`, one per verdict.

    The better response comes first, in judging formats response a.
    """
    better = "true" if options.judging else "preference >= 0.5"
    worse = f"NOT ({better})"
    return f"""
CREATE TABLE pairs AS
SELECT n, NULL::BIGINT AS other, instruction, split_hash, tied, gold,
  CASE WHEN {better} THEN preference ELSE 1 - preference END AS probability,
  CASE WHEN {better} THEN raw ELSE 1 - raw END AS raw_probability,
  {_side("ref", better)} AS ref, {_side("ref", worse)} AS second_ref,
  {_side("response", better)} AS response, {_side("response", worse)} AS second,
  {_side("length", better)} - {_side("length", worse)} AS longer,
  {_side("length", better)} = 0 AS empty,
  {_side("model", better)} AS chosen_model, {_side("model", worse)} AS rejected_model,
  pair_id, NULL::VARCHAR AS rejected_pair_id, consistent, label_mass
FROM candidates"""  # noqa: S608 - our own names


# One pair per instruction, from the table `chosen` (pairing.Chosen with numbers n).
CHOSEN_PAIRS = f"""
CREATE TABLE pairs AS
SELECT b.n, CASE WHEN NOT c.direct THEN w.n END AS other, b.instruction, b.split_hash,
  c.direct AND b.tied AS tied, NULL::DOUBLE AS gold, c.probability, c.claimed,
  c.raw AS raw_probability,
  {_side("b.ref", "c.better_is_a")} AS ref, {_side("w.ref", "c.worse_is_a")} AS second_ref,
  {_side("b.response", "c.better_is_a")} AS response,
  {_side("w.response", "c.worse_is_a")} AS second,
  {_side("b.length", "c.better_is_a")} - {_side("w.length", "c.worse_is_a")} AS longer,
  {_side("b.length", "c.better_is_a")} = 0 AS empty,
  {_side("b.model", "c.better_is_a")} AS chosen_model,
  {_side("w.model", "c.worse_is_a")} AS rejected_model,
  b.pair_id, CASE WHEN NOT c.direct THEN w.pair_id END AS rejected_pair_id,
  b.consistent AND w.consistent AS consistent, least(b.label_mass, w.label_mass) AS label_mass,
  c.contradicted
FROM chosen c JOIN candidates b ON b.n = c.better JOIN candidates w ON w.n = c.worse"""  # noqa: S608

# SFT: each completion once.
REPEATED = """
SELECT n FROM pairs ANTI JOIN (
  SELECT min(n) AS n FROM pairs GROUP BY instruction, response
) USING (n)"""

# KTO: each completion once, with how often it wins in what was kept. `side` is 2 n, or 2 n + 1
# for the second response; sums are of whole numbers, so that their order changes nothing.
_MEAN = """CASE WHEN count(*) = 1 THEN min({0}) ELSE
    sum(CAST(round({0} * 1e15) AS BIGINT)) / count(*) / 1e15 END AS {0}"""
COMPLETIONS = f"""
CREATE TABLE completions AS
SELECT min(side) AS side, instruction, response, {_MEAN.format("probability")},
  {_MEAN.format("raw_probability")}, bool_and(consistent) AS consistent,
  min(label_mass) AS label_mass
FROM (
  SELECT 2 * n AS side, instruction, response, probability, raw_probability, consistent, label_mass
  FROM pairs
  UNION ALL
  SELECT 2 * n + 1, instruction, second, 1 - probability, 1 - raw_probability, consistent,
    label_mass FROM pairs
) GROUP BY instruction, response"""  # noqa: S608
UNDECIDED = """
SELECT n FROM pairs JOIN (
  SELECT instruction, response FROM completions WHERE probability = 0.5
) c USING (instruction, response)
JOIN (
  SELECT instruction, response AS second FROM completions WHERE probability = 0.5
) d ON d.instruction = pairs.instruction AND d.second = pairs.second"""


def items_sql(options: ExportOptions, *, in_shards: bool) -> str:
    """Return the statement for `items`, one row per dataset row.

    `in_shards` says whether `ref // 2` is a row of the shards.
    """
    both = "ref // 2 = second_ref // 2" if in_shards else "false"
    single = "true" if in_shards else "false"
    split = f"CASE WHEN split_hash < {options.test!r} THEN 'test' ELSE 'train' END AS split"
    if options.format == "trace":
        select = _TRACED.format(split=split, both=both)
    elif options.judging:
        target = "gold" if options.target == "gold" else "probability"
        select = f"""
SELECT instruction, split, pair_id, consistent, label_mass, direct, 2 * n + turned AS item, shown,
  CASE WHEN turned = 1 THEN second_ref ELSE ref END AS ref,
  CASE WHEN turned = 1 THEN ref ELSE second_ref END AS second_ref,
  CASE WHEN turned = 1 THEN 1 - {target} ELSE {target} END AS probability,
  CASE WHEN turned = 1 THEN 1 - raw_probability ELSE raw_probability END AS raw_probability
FROM (SELECT *, {split}, {both} AS direct FROM pairs),
  (VALUES (0, 'ab'), (1, 'ba')) orders(turned, shown)"""  # noqa: S608
    elif options.format == "kto":
        select = _COMPLETED.format(split=split, single=single)
    else:
        own = (
            f"NULL::BIGINT AS second_ref, chosen_model AS model, {single} AS direct"
            if options.format == "sft"
            else f"second_ref, rejected_pair_id, chosen_model, rejected_model, {both} AS direct"
        )
        select = f"""
SELECT n AS item, {split}, instruction, ref, {_ORIGIN}, {own} FROM pairs"""  # noqa: S608
    return f"CREATE TABLE items AS {select}"


_TRACED = """
SELECT instruction, split, pair_id, consistent, label_mass, direct, item, shown, sample, output,
  CASE WHEN shown = 'ab' THEN ref ELSE second_ref END AS ref,
  CASE WHEN shown = 'ab' THEN second_ref ELSE ref END AS second_ref,
  CASE WHEN shown = 'ab' THEN probability ELSE 1 - probability END AS probability,
  CASE WHEN shown = 'ab' THEN raw_probability ELSE 1 - raw_probability END AS raw_probability
FROM (
  SELECT p.*, t.shown, t.sample, t.output, {split}, {both} AS direct,
    row_number() OVER (ORDER BY n, t.sample, t.shown) AS item
  FROM pairs p JOIN traces t USING (n)
)"""
_COMPLETED = """
SELECT c.side AS item, {split}, c.instruction,
  CASE WHEN c.side % 2 = 0 THEN p.ref ELSE p.second_ref END AS ref, NULL::BIGINT AS second_ref,
  CASE WHEN c.side % 2 = 0 THEN p.chosen_model ELSE p.rejected_model END AS model,
  CASE WHEN c.side % 2 = 0 THEN p.pair_id ELSE coalesce(p.rejected_pair_id, p.pair_id) END
    AS pair_id,
  c.probability, c.raw_probability, c.consistent, c.label_mass, c.probability > 0.5 AS label,
  {single} AS direct
FROM completions c JOIN pairs p ON p.n = c.side // 2 WHERE c.probability <> 0.5"""
