"""Judges with labels: real ones where the data is at hand, and a drawn one."""

from __future__ import annotations

import duckdb
import numpy as np

from support.helpers import data_file

JUDGEBENCH = (
    "Ray2333_GRM-Gemma-2B-rewardmodel-ft",
    "internlm_internlm2-7b-reward",
    "Skywork_Skywork-Reward-Gemma-2-27B",
    "o1-mini-2024-09-12",
)
JUDGES = ("drawn", "arena", *JUDGEBENCH)


def labels_and_preferences(judge):
    """Return Y and f of a judge, both [n] in [0, 1]."""
    if judge == "drawn":
        rng = np.random.default_rng(11)
        label = (rng.random(600) < 0.6).astype(float)
        return label, np.clip(0.2 + 0.5 * label + 0.3 * rng.standard_normal(600), 0, 1)
    query = _arena() if judge == "arena" else _judgebench(judge)
    with duckdb.connect(":memory:") as connection:
        rows = connection.sql(query).fetchnumpy()
    return np.asarray(rows["y"], float), np.asarray(rows["f"], float)


def _arena():
    votes, verdicts = (data_file(f"arena/llmfao_{x}.parquet") for x in ("votes", "gpt4"))
    share = "CASE winner WHEN 'A' THEN 1.0 WHEN 'B' THEN 0.0 ELSE 0.5 END"
    return f"""
        SELECT any_value(v.f) AS f, avg({share}) AS y
        FROM '{votes}' JOIN (SELECT pair_id, {share} AS f FROM '{verdicts}') v USING (pair_id)
        GROUP BY pair_id ORDER BY pair_id"""


def _judgebench(judge):
    reads, pairs = (data_file(f"labelled/judgebench{x}.parquet") for x in ("_judges", ""))
    return f"""
        WITH reads AS (
          SELECT pair_id, avg(CASE WHEN score_first IS NOT NULL
            THEN 1 / (1 + exp(CASE WHEN "order" = 'AB' THEN 1 ELSE -1 END
              * (score_second - score_first)))
            WHEN decision = 'A=B' THEN 0.5
            ELSE ((decision = 'A>B') = ("order" = 'AB'))::INT END) AS f
          FROM '{reads}' WHERE judge = '{judge}' GROUP BY pair_id)
        SELECT f, (label = 'A')::INT AS y FROM reads JOIN '{pairs}' USING (pair_id)
        ORDER BY pair_id"""
