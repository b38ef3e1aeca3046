"""Views over `verdicts`: leaderboard, win_matrix, position_bias and length_bias.

They hold what SQL can compute alone; `steelyard rank`, `winrate` and `bias` compute the rest. All
but position_bias, which compares single reads, are of the calibrated preference if there is one.
"""

from __future__ import annotations

from steelyard.statistics.clusters import MIN_FOR_INTERVAL
from steelyard.store.sql import Connection

LONGER_BY = (31, 101, 301, 1001)  # characters: where the bands of `length_bias` begin
# What is independent. Where an import names no instruction, votes on one pair belong together.
CLUSTER = "coalesce(instruction_id, hash(pair_id))"
_SIDES = f"""
sides AS (
  SELECT model_a AS competitor, model_b AS opponent, @preference@ AS win,
    {CLUSTER} AS instruction
  FROM verdicts WHERE @preference@ IS NOT NULL AND model_a <> model_b
  UNION ALL
  SELECT model_b, model_a, 1 - @preference@, {CLUSTER}
  FROM verdicts WHERE @preference@ IS NOT NULL AND model_a <> model_b
)"""  # noqa: S608 - our own text
# Standard errors are those of `statistics.means`, null for fewer than 5 instructions.
_LEADERBOARD = f"""
WITH {_SIDES}, means AS (
  SELECT competitor, count(*) AS comparisons, avg(win) AS win_rate,
    avg(CASE WHEN win > 0.5 THEN 1 WHEN win < 0.5 THEN 0 ELSE 0.5 END) AS discrete_win_rate
  FROM sides GROUP BY competitor
), residuals AS (
  SELECT competitor, instruction, sum(win - win_rate) AS residual
  FROM sides JOIN means USING (competitor) GROUP BY ALL
), errors AS (
  SELECT competitor, count(*) AS instructions,
    CASE WHEN count(*) >= {MIN_FOR_INTERVAL}
    THEN sqrt(sum(residual ** 2) * count(*) / (count(*) - 1))
    END AS error
  FROM residuals GROUP BY competitor
), opponents AS (
  SELECT competitor, opponent, avg(win) AS win_rate FROM sides GROUP BY ALL
), averages AS (
  SELECT competitor, count(*) AS opponents, avg(win_rate) AS average_win_rate
  FROM opponents GROUP BY competitor
)
SELECT rank() OVER (ORDER BY average_win_rate DESC) AS rank, competitor, average_win_rate,
  win_rate, error / comparisons AS standard_error, discrete_win_rate,
  comparisons, instructions, opponents
FROM means JOIN errors USING (competitor) JOIN averages USING (competitor)
ORDER BY rank, competitor"""  # noqa: S608 - our own text
_WIN_MATRIX = f"""
WITH {_SIDES}
SELECT competitor, opponent, count(*) AS comparisons, avg(win) AS win_rate
FROM sides GROUP BY ALL ORDER BY competitor, opponent"""  # noqa: S608 - our own text
_POSITION_BIAS = """
SELECT judge, protocol, count(*) AS pairs,
  avg(CASE WHEN preference_ab > 0.5 THEN 0.5 WHEN preference_ab < 0.5 THEN 0 ELSE 0.25 END
    + CASE WHEN preference_ba < 0.5 THEN 0.5 WHEN preference_ba > 0.5 THEN 0 ELSE 0.25 END
  ) AS first_rate,
  avg(preference_ab - preference_ba) AS towards_first,
  avg(abs(preference_ab - preference_ba)) AS mean_deviation,
  avg((sign(preference_ab - 0.5) <> sign(preference_ba - 0.5))::INTEGER) AS flip_rate
FROM verdicts WHERE preference_ab IS NOT NULL AND preference_ba IS NOT NULL
GROUP BY ALL ORDER BY judge, protocol"""
_BANDS = " ".join(
    f"WHEN abs(length_a - length_b) >= {start} THEN {start}" for start in reversed(LONGER_BY)
)
_LENGTH_BIAS = f"""
SELECT judge, protocol, CASE {_BANDS} END AS longer_by, count(*) AS pairs,
  avg(CASE WHEN length_a > length_b THEN @preference@ ELSE 1 - @preference@ END)
    AS prefers_longer
FROM verdicts
WHERE @preference@ IS NOT NULL AND abs(length_a - length_b) >= {LONGER_BY[0]}
GROUP BY ALL ORDER BY judge, protocol, longer_by"""  # noqa: S608 - our own text
_VIEWS = {
    "leaderboard": _LEADERBOARD,
    "win_matrix": _WIN_MATRIX,
    "position_bias": _POSITION_BIAS,
    "length_bias": _LENGTH_BIAS,
}


STATISTICS = tuple(_VIEWS)


def statistics_sql(preference: str) -> dict[str, str]:
    """Return the query of each view; `preference` is the column of verdicts that they read."""
    return {name: query.replace("@preference@", preference) for name, query in _VIEWS.items()}


def create_statistics(connection: Connection, preference: str) -> None:
    """Create the views, or replace them, on a connection that has `verdicts`."""
    for name, query in statistics_sql(preference).items():
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS {query}")
