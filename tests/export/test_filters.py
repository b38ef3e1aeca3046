"""Filters of datasets, each on a few rows made by hand."""

import hashlib
import math

import duckdb
import pytest

from steelyard.export.filters import REASONS, candidate_filters, candidates_sql, pair_filters
from steelyard.export.options import ExportOptions
from steelyard.export.pairing import SURE

VERDICT = {
    "shard": "s", "row": 0, "pair_id": "p", "model_a": "m", "model_b": "n", "status": "ok",
    "winner": "a", "gold": {"a": 3.0, "b": 1.0, "tie": 2.0}, "consistent": True, "trusted": True,
    "alone": False, "instruction_id": 7, "raw_preference": 0.7, "calibrated_preference": 0.6,
    "label_mass": 0.9, "wanted": True, "gap": 0.1,
}  # fmt: skip
TEXTS = {
    "n": 0, "shard": "s", "row": 0, "instruction": 7, "cluster_leader": 7, "split_hash": 0.5,
    "response_a": 1, "response_b": 2, "ref_a": 0, "ref_b": 1, "length_a": 10, "length_b": 20,
    "problem": None,
}  # fmt: skip
TYPES = """
CREATE TABLE verdicts (shard VARCHAR, "row" BIGINT, pair_id VARCHAR, model_a VARCHAR,
  model_b VARCHAR, status VARCHAR, winner VARCHAR, gold STRUCT(a DOUBLE, b DOUBLE, tie DOUBLE),
  consistent BOOLEAN, trusted BOOLEAN, alone BOOLEAN, instruction_id UBIGINT,
  raw_preference DOUBLE, calibrated_preference DOUBLE, label_mass DOUBLE, wanted BOOLEAN,
  gap DOUBLE);
CREATE TABLE pair_texts (n BIGINT, shard VARCHAR, "row" BIGINT, instruction UBIGINT,
  cluster_leader UBIGINT, split_hash DOUBLE, response_a UBIGINT, response_b UBIGINT, ref_a BIGINT,
  ref_b BIGINT, length_a BIGINT, length_b BIGINT, problem VARCHAR);
"""


def dicts(relation):
    names = [column[0] for column in relation.description]
    return [dict(zip(names, row, strict=True)) for row in relation.fetchall()]


def fill(connection, table, rows):
    for row in rows:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO {table} VALUES ({marks})", list(row.values()))


def candidates(verdicts, texts, preference="raw_preference", **options):
    """The rows of `candidates`, by pair_id."""
    with duckdb.connect() as connection:
        connection.execute(TYPES)
        fill(connection, "verdicts", verdicts)
        fill(connection, "pair_texts", texts)
        made = ExportOptions(**{"format": "preference", **options})
        connection.execute(candidates_sql(made, preference))
        return {row["pair_id"]: row for row in dicts(connection.execute("FROM candidates"))}


def reason(verdict=(), texts=(), **options):
    rows = [] if texts is None else [TEXTS | dict(texts)]
    (row,) = candidates([VERDICT | dict(verdict)], rows, **options).values()
    return row["reason"]


def test_what_is_known_of_a_candidate():
    (row,) = candidates([VERDICT], [TEXTS]).values()
    assert row == {
        "n": 0, "instruction": 7, "cluster_leader": 7, "split_hash": 0.5, "response_a": 1,
        "response_b": 2, "ref_a": 0, "ref_b": 1, "length_a": 10, "length_b": 20, "pair_id": "p",
        "model_a": "m", "model_b": "n", "consistent": True, "label_mass": 0.9, "tied": False,
        "preference": 0.7, "raw": 0.7, "gap": 0.1, "gold": pytest.approx((3 + 2 / 2) / 6),
        "reason": None,
    }  # fmt: skip
    (row,) = candidates([VERDICT | {"winner": "tie"}], [TEXTS], "calibrated_preference").values()
    assert (row["tied"], row["preference"], row["raw"]) == (True, 0.6, 0.7)


def test_what_is_not_known_is_null():
    unknown = dict.fromkeys(("gold", "consistent", "label_mass", "model_a", "winner"))
    (row,) = candidates([VERDICT | unknown], [TEXTS]).values()
    names = ("gold", "consistent", "label_mass", "model_a", "tied")
    assert [row[name] for name in names] == [None] * 5
    (row,) = candidates([VERDICT | {"raw_preference": None}], []).values()
    assert row["n"] is row["preference"] is row["length_a"] is None


def test_texts_belong_to_their_row_of_their_shard():
    verdicts = [
        VERDICT | {"pair_id": name, "shard": name[0], "row": int(name[1])}
        for name in ("s0", "s1", "t0", "t1")
    ]
    texts = [
        TEXTS | {"n": n, "shard": name[0], "row": int(name[1])}
        for n, name in enumerate(("t1", "t0", "s1"))
    ]
    rows = candidates(verdicts, texts)
    assert {name: row["n"] for name, row in rows.items()} == {"s0": None, "s1": 2, "t0": 1, "t1": 0}
    assert rows["s0"]["reason"] == "no_text"


@pytest.mark.parametrize(
    ("verdict", "texts", "options", "expected"),
    [
        ({}, {}, {}, None),
        ({"status": "error"}, {}, {}, "no_verdict"),
        ({"raw_preference": None}, {}, {}, "no_verdict"),
        ({"status": "error", "raw_preference": None, "alone": True}, {}, {}, "no_verdict"),
        ({}, None, {}, "no_text"),
        ({"raw_preference": None, "alone": True}, None, {}, "alone"),
        ({"raw_preference": None, "alone": True}, {}, {}, "alone"),
        ({}, {"ref_b": None}, {}, "alone"),
        ({}, {"problem": "images"}, {}, "images"),
        ({"wanted": False}, {"problem": "images"}, {}, "images"),
        ({}, {"problem": "contaminated"}, {}, "contaminated"),
        ({"wanted": False}, {}, {}, "where"),
        ({"wanted": False}, {"problem": "contaminated"}, {}, "where"),
        ({"consistent": False}, {}, {}, None),
        ({"consistent": False}, {}, {"consistent": True}, "inconsistent"),
        ({"consistent": None}, {}, {"consistent": True}, "inconsistent"),
        ({"consistent": True}, {}, {"consistent": True}, None),
        ({"label_mass": None}, {}, {}, None),
        ({"label_mass": None}, {}, {"min_label_mass": 0.0}, None),
        ({"label_mass": None}, {}, {"min_label_mass": 0.1}, "label_mass"),
        ({"label_mass": 0.5}, {}, {"min_label_mass": 0.5}, None),
        ({"label_mass": 0.499}, {}, {"min_label_mass": 0.5}, "label_mass"),
        ({"trusted": False}, {}, {}, None),
        ({"trusted": False}, {}, {"trusted": True}, "untrusted"),
        ({"trusted": None}, {}, {"trusted": True}, "untrusted"),
        ({"gold": None}, {}, {}, None),
        ({"gold": None}, {}, {"target": "preference", "format": "grpo"}, None),
        ({"gold": None}, {}, {"target": "gold", "format": "grpo"}, "no_gold"),
        ({}, {"response_b": 1}, {}, "same_response"),
        ({}, {"response_b": 1}, {"format": "autorater"}, None),
        ({}, {"response_b": 1, "problem": "contaminated"}, {}, "same_response"),
        # The first of several reasons.
        ({"consistent": False, "label_mass": 0.0, "trusted": False}, {"response_b": 1},
         {"consistent": True, "min_label_mass": 0.5, "trusted": True}, "inconsistent"),
        ({"label_mass": 0.0, "trusted": False}, {"response_b": 1},
         {"min_label_mass": 0.5, "trusted": True}, "label_mass"),
        ({"trusted": False, "gold": None}, {}, {"trusted": True, "target": "gold"}, "untrusted"),
    ],
)  # fmt: skip
def test_the_reason_why_a_verdict_is_left_out(verdict, texts, options, expected):
    assert reason(verdict, texts, **options) == expected
    assert expected is None or expected in REASONS


def run_filter(query, table, rows, types):
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE {table} ({types})")
        fill(connection, table, rows)
        return sorted(n for (n,) in connection.execute(query).fetchall())


def dropped_candidates(name, rows, **options):
    """Rows are (n, instruction, leader, a, b)."""
    query = candidate_filters(ExportOptions("preference", **options))[name]
    names = ("n", "instruction", "cluster_leader", "response_a", "response_b")
    types = ", ".join(f"{column} BIGINT" for column in names)
    rows = [dict(zip(names, row, strict=True)) for row in rows]
    return run_filter(query, "candidates", rows, types)


def test_the_first_of_equal_pairs_stays_on_whichever_side_its_responses_are():
    rows = [
        (4, 1, 1, 10, 20), (2, 1, 1, 20, 10), (9, 1, 1, 10, 20),  # one pair, three times
        (5, 2, 1, 10, 20),  # another instruction
        (6, 1, 1, 10, 30), (7, 1, 1, 30, 20),  # another response
    ]  # fmt: skip
    assert dropped_candidates("duplicate", rows) == [4, 9]
    assert dropped_candidates("duplicate", []) == []


def test_near_duplicates_of_the_first_instruction_of_a_cluster_go():
    rows = [
        (4, 1, 1, 10, 20), (2, 3, 1, 10, 20), (5, 3, 1, 10, 30),  # 3 comes first
        (7, 2, 2, 10, 20), (8, 2, 2, 10, 30),  # a cluster of one instruction
    ]  # fmt: skip
    assert dropped_candidates("near_duplicate", rows, near_duplicates=0.8) == [4]


def test_filters_come_in_the_order_in_which_they_are_counted():
    assert list(candidate_filters(ExportOptions("preference"))) == ["duplicate"]
    near = candidate_filters(ExportOptions("preference", near_duplicates=0.5))
    assert list(near) == ["duplicate", "near_duplicate"]
    everything = ExportOptions(
        "preference", select="best-worst", min_probability=0.6, margin=(0.0, 1.0),
        per_instruction=1, balance_length=True,
    )  # fmt: skip
    names = ["contradicted", "tie", "empty", "probability", "margin", "per_instruction",
             "length_balance"]  # fmt: skip
    assert list(pair_filters(everything)) == names
    order = list(REASONS)
    assert [name for name in order if name in names] == names


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"format": "preference"}, ["tie", "empty"]),
        ({"format": "autorater"}, []),
        ({"format": "grpo"}, []),
        ({"format": "sft"}, ["tie", "empty"]),
        ({"format": "preference", "select": "best-second"}, ["contradicted", "tie", "empty"]),
        ({"format": "preference", "select": "all"}, ["tie", "empty"]),
        ({"format": "grpo", "min_probability": 0.6}, ["probability"]),
        ({"format": "grpo", "margin": (0.0, 1.0)}, ["margin"]),
        ({"format": "grpo", "per_instruction": 2}, ["per_instruction"]),
    ],
)
def test_filters_that_are_asked_for(options, names):
    assert list(pair_filters(ExportOptions(**options))) == names


PAIR = {
    "n": 0, "pair_id": "p", "instruction": 1, "split_hash": 0.5, "probability": 0.8, "tied": False,
    "empty": False, "contradicted": False, "longer": 0,
}  # fmt: skip
PAIR_TYPES = (
    "n BIGINT, pair_id VARCHAR, instruction UBIGINT, split_hash DOUBLE, probability DOUBLE,"
    " tied BOOLEAN, empty BOOLEAN, contradicted BOOLEAN, longer BIGINT"
)


def dropped(name, rows, **options):
    query = pair_filters(ExportOptions(**{"format": "preference", **options}))[name]
    whole = [PAIR | {"n": n, "pair_id": f"p{n}"} | row for n, row in enumerate(rows)]
    return run_filter(query, "pairs", whole, PAIR_TYPES)


def test_ties_are_named_so_or_exactly_one_half():
    rows = [{"probability": p, "tied": tied} for tied in (False, True) for p in (0.5, 0.5001, 0.8)]
    assert dropped("tie", rows) == [0, 3, 4, 5]


def test_flags_drop_a_pair():
    assert dropped("empty", [{}, {"empty": True}]) == [1]
    assert dropped("contradicted", [{"contradicted": True}, {}], select="best-worst") == [0]


def test_the_least_probability_is_of_the_chosen_response():
    rows = [{"probability": p} for p in (0.5, 0.59, 0.6, 0.61, 0.41, 0.4, 0.39, 0.0)]
    assert dropped("probability", rows, min_probability=0.6) == [0, 1, 4]


def test_margins_are_log_odds_of_the_chosen_response():
    # 0.8 and 0.2 have ln 4 = 1.386, 0.9 has ln 9 = 2.197, 0.6 has ln 1.5 = 0.405, 0.5 has 0.
    rows = [{"probability": p} for p in (0.5, 0.6, 0.8, 0.2, 0.9, 1.0, 0.0)]
    assert dropped("margin", rows, margin=(0.4, 1.4)) == [0, 4, 5, 6]
    assert dropped("margin", rows, margin=(0.5, 3.0)) == [0, 1, 5, 6]
    assert dropped("margin", rows, margin=(0.0, math.inf)) == []
    # The surest count as 1 - SURE: their log-odds are ln((1 - SURE) / SURE) = 13.8155.
    assert SURE == 1e-6
    edge = math.log((1 - SURE) / SURE)
    assert dropped("margin", rows, margin=(0.0, edge + 1e-9)) == []
    assert dropped("margin", rows, margin=(0.0, edge - 1e-9)) == [5, 6]
    assert dropped("margin", rows[:1], margin=(0.0, 1.0)) == []


def draw(seed, name):
    """The random number of a pair."""
    return int.from_bytes(hashlib.md5(f"{seed}:{name}".encode()).digest()[8:], "little")


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_instruction_has_more_pairs_than_asked(seed, most):
    rows = [{"instruction": n % 3} for n in range(11)] + [{"instruction": 9}]
    kept = set()
    for instruction in (0, 1, 2, 9):
        mine = [n for n, row in enumerate(rows) if row["instruction"] == instruction]
        kept |= set(sorted(mine, key=lambda n: draw(seed, f"p{n}"))[:most])
    wanted = sorted(set(range(12)) - kept)
    assert dropped("per_instruction", rows, per_instruction=most, seed=seed) == wanted


def test_equal_draws_keep_the_first():
    rows = [{"pair_id": "same"}] * 3
    assert dropped("per_instruction", rows, per_instruction=1) == [1, 2]
    balance = [{"pair_id": "same", "longer": longer} for longer in (5, 5, -5)]
    assert dropped("length_balance", balance, balance_length=True, test=0.0) == [
        0,
        1,
        2,
    ]  # bins of one
    many = [{"pair_id": "same", "longer": 5 if n % 3 else -5} for n in range(60)]
    assert dropped("length_balance", many, balance_length=True) == [
        n for n in range(60) if n % 3 == 2
    ]


def naive_balance(rows, seed, test):
    """20 bins of pairs by the size of the difference; in each as many of one sign as the other."""
    gone = []
    for in_test in (False, True):
        mine = [n for n, row in enumerate(rows) if (row["split_hash"] < test) is in_test]
        mine.sort(key=lambda n: (abs(rows[n]["longer"]), n))
        size, more = divmod(len(mine), 20)
        start = 0
        for number in range(20):
            end = start + size + (number < more)
            members, start = mine[start:end], end
            signs = {sign: [n for n in members if rows[n]["longer"] * sign > 0] for sign in (1, -1)}
            keep = min(map(len, signs.values()))
            for numbers in signs.values():
                gone += sorted(numbers, key=lambda n: draw(seed, f"p{n}"))[keep:]
    return sorted(gone)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("test", [0.0, 0.3])
@pytest.mark.parametrize("count", [0, 1, 30, 130])
def test_lengths_are_balanced_as_a_naive_twin_does(seed, test, count):
    rows = [
        {"longer": (n * 7919 + seed * 31) % 41 - 14, "split_hash": (n * 37 % 100) / 100}
        for n in range(count)
    ]
    wanted = naive_balance(rows, seed, test)
    assert dropped("length_balance", rows, balance_length=True, seed=seed, test=test) == wanted
    assert count < 100 or 0 < len(wanted) < count


def test_a_pair_on_the_edge_of_the_split_is_not_in_the_test():
    rows = [{"longer": 3, "split_hash": 0.25}, {"longer": -3, "split_hash": 0.24}] * 20
    # Each split has pairs of one sign only.
    assert dropped("length_balance", rows, balance_length=True, test=0.25) == list(range(40))
    # In one split two neighbours are a bin, and each finds a partner.
    assert dropped("length_balance", rows, balance_length=True, test=0.2) == []
