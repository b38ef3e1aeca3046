"""Verdicts that were made elsewhere: what they become, what is refused, and what then works."""

import json
import math

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

import steelyard
from steelyard.comparisons.import_rows import VERDICTS, Reading, read_verdicts
from steelyard.comparisons.importing import import_tables
from steelyard.errors import InputRefused, IntegrityFault, UsageError
from steelyard.input import Limits, open_shards
from steelyard.input.roles import VERDICT_TABLE
from steelyard.input.stream import read
from steelyard.ranking.rank import RankOptions, rank
from steelyard.ranking.winrate import winrate
from steelyard.statistics.means import mean
from steelyard.store.run_record import read_record
from steelyard.store.rundir import RunDir
from support.helpers import command, data_file, rows, write_pairs

COMPETITORS = {"model_a": "model", "model_b": "baseline"}


def table(preferences, **columns):
    count = len(preferences)
    made = {"model": [f"m{i % 3}" for i in range(count)], "baseline": ["base"] * count}
    made["preference"] = pa.array(preferences, pa.float64())
    return pa.table({**made, **columns})


def imported(place, content, name="t", **options):
    pq.write_table(content, place / f"{name}.parquet")
    options = {"column_map": COMPETITORS, **options}
    code = import_tables([str(place / f"{name}.parquet")], place / name, **options)
    return code, steelyard.open_run(place / name)


def test_a_worked_example(tmp_path):
    """AlpacaEval's scale: 1 is the baseline's win, 2 the model's, 1.5 a tie."""
    content = table(
        [2.0, 1.0, 1.5, 1.75],
        instruction_id=[7, 7, 8, 9],
        output=["  four ", "é", "", "no"],
        annotator=["x", "y", "x", None],
    )
    columns = {**COMPETITORS, "response_a": "output"}
    code, run = imported(tmp_path, content, column_map=columns, scale="1..2", judge="gpt4")
    assert code == 0
    found = run.verdicts().to_pylist()
    assert [row["raw_preference"] for row in found] == [1.0, 0.0, 0.5, 0.75]
    assert [row["winner"] for row in found] == ["a", "b", "tie", "a"]
    assert [row["instruction_id"] for row in found] == [7, 7, 8, 9]
    assert [row["length_a"] for row in found] == [4, 1, 0, 2]
    assert [row["metadata"] for row in found] == [{"annotator": x} for x in ("x", "y", "x", None)]
    first = found[0]
    assert (first["model_a"], first["model_b"]) == ("m0", "base")
    assert (first["judge"], first["protocol"], first["status"]) == ("gpt4", "imported", "ok")
    assert (first["pair_id"], first["shard"], first["row"]) == ("t.parquet:0", "t.parquet", 0)
    unknown = ("preference_ab", "raw_tie", "score_a", "consistent", "gold", "length_b", "read_at")
    assert [first[name] for name in unknown] == [None] * len(unknown)


def test_winners_by_word_and_by_name(tmp_path):
    words = ["A", "b", "Tie", "model_b", "m1", "base", "[[C]]"]
    content = table([0.0] * len(words)).drop(["preference"]).append_column("winner", [words])
    _, run = imported(tmp_path, content)
    found = run.verdicts()
    assert found["raw_preference"].to_pylist() == [1, 0, 0.5, 0, 1, 0, 0.5]
    assert found["raw_tie"].to_pylist() == [0, 0, 1, 0, 0, 0, 1]
    assert found["winner"].to_pylist() == ["a", "b", "tie", "b", "a", "b", "tie"]


def test_gold_comes_along_for_calibration(tmp_path):
    _, run = imported(tmp_path, table([0.2, 0.9], label=["A", "tie"]))
    assert run.verdicts()["gold"].to_pylist() == [
        {"a": 1.0, "b": 0.0, "tie": 0.0},
        {"a": 0.0, "b": 0.0, "tie": 1.0},
    ]


def test_one_competitor_for_all_rows(tmp_path):
    columns = {"model_a": "model", "model_b": "=gpt 4"}
    _, run = imported(tmp_path, table([0.5, 0.5]), column_map=columns)
    assert run.verdicts()["model_b"].to_pylist() == ["gpt 4"] * 2
    assert run.verdicts()["metadata"].to_pylist() == [{"baseline": "base"}] * 2


def test_instructions_by_text_are_hashed(tmp_path):
    _, run = imported(tmp_path, table([0.5, 0.5, 0.5], question=["why", " why ", None]))
    key = int.from_bytes(xxhash.xxh3_128_digest(b"why")[:8], "little")
    assert run.verdicts()["instruction_id"].to_pylist() == [key, key, None]


def test_bad_rows_are_rejects_with_reasons(tmp_path):
    content = pa.table(
        {
            "model": ["m", "m", "m", None, " ", "m", "m", "m"],
            "baseline": ["b"] * 8,
            "preference": [1.5, math.nan, 2.01, 1.5, 1.5, None, 1.5, 1.5],
            "length_a": [5, 5, 5, 5, 5, 5, -1, 5],
            "instruction_id": [1, 1, 1, 1, 1, 1, 1, -1],
        }
    )
    code, run = imported(tmp_path, content, scale="1..2")
    assert code == 4
    assert run.verdicts()["row"].to_pylist() == [0]
    rejects = run.sql('SELECT "row", reason, detail FROM rejects ORDER BY 1').to_pylist()
    reasons = ["scale", "scale", "null", "empty", "null", "length", "scale"]
    assert [reject["reason"] for reject in rejects] == reasons
    assert rejects[0]["detail"] == "preference is not from 1 to 2: nan"
    assert rejects[1]["detail"] == "preference is not from 1 to 2: 2.01"
    assert run.status()["rejects"] == {"scale": 3, "null": 2, "empty": 1, "length": 1}


def test_unknown_winners_are_rejects(tmp_path):
    content = pa.table(
        {
            "model": ["m", "m", "a", "m", "m"],
            "baseline": ["b", "m", "x", "base", "base"],
            "winner": ["other", "m", "x", None, "a"],
        }
    )
    _, run = imported(tmp_path, content)
    assert run.verdicts()["row"].to_pylist() == [2, 4]
    assert run.sql("SELECT reason FROM rejects ORDER BY row")["reason"].to_pylist() == [
        "winner",
        "winner",
        "null",
    ]


def test_a_table_without_a_good_row_is_refused_and_leaves_no_run(tmp_path):
    with pytest.raises(InputRefused, match=r"every row was refused \(2 scale\); row 0: preference"):
        imported(tmp_path, table([1.5, 1.7]))
    assert not (tmp_path / "t" / "run.json").exists()
    code, run = imported(tmp_path, table([1.5, 1.7]), scale="1..2")
    assert (code, len(run.verdicts())) == (0, 2)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"scale": "1-2"}, UsageError, "--scale is '1-2'"),
        ({"scale": "1..1"}, UsageError, "--scale"),
        ({"scale": "0..inf"}, UsageError, "--scale"),
        ({"scale": "..1"}, UsageError, "--scale"),
        ({"judge": " "}, UsageError, "no name"),
        ({"column_map": {"model": "x"}}, UsageError, "unknown role model"),
        ({"column_map": {"preference": "=0.5"}}, UsageError, "no competitor's name"),
        ({"column_map": {"model_b": "="}}, UsageError, "no competitor's name"),
        ({"column_map": {}}, InputRefused, "no column for model_a and model_b"),
        ({"column_map": {**COMPETITORS, "preference": ""}}, InputRefused, "no column for pref"),
        ({"column_map": {**COMPETITORS, "winner": "model"}}, UsageError, "two roles"),
        ({"column_map": {**COMPETITORS, "winner": "word"}}, InputRefused, "both there"),
        ({"column_map": {**COMPETITORS, "preference": "word"}}, InputRefused, "a number"),
        (
            {"column_map": {**COMPETITORS, "winner": "word", "preference": ""}, "scale": "0..1"},
            UsageError,
            "--scale 0..1 has no effect on the winners in word",
        ),
    ],
)
def test_what_cannot_be_imported(tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        imported(tmp_path, table([0.5], word=["a"]), **options)
    assert not (tmp_path / "t").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("imported")
    pq.write_table(table([1.0, 1.2, 1.9, 3.0]), place / "t.parquet")
    done = command(
        "import", place / "t.parquet", "--run", place / "run", "--map", "model_a=model",
        "--map", "model_b==base", "--scale", "1..2", "--judge", "someone", "--json",
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    status = json.loads(done.stdout)
    assert status["state"] == "complete"
    assert status["pairs"] == {"planned": 3, "done": 3, "uncommitted": 0}
    assert (status["judge"], status["imported"]) == ("someone", ["t.parquet"])
    return place / "run"


def test_the_run_can_be_looked_at(run):
    answer = rows(run, "SELECT count(*) AS n, avg(raw_preference) AS p FROM verdicts")
    assert answer == [{"n": 3, "p": pytest.approx((0 + 0.2 + 0.9) / 3)}]
    assert rows(run, "SELECT reason FROM rejects") == [{"reason": "scale"}]
    assert rows(run, "SELECT count(*) AS n FROM reads") == [{"n": 0}]
    shown = command("status", run).stdout
    assert "3 done of 3" in shown
    assert "from:    t.parquet" in shown
    assert "prompts" not in shown


def test_columns_are_those_of_a_run(run):
    described = rows(run, "DESCRIBE verdicts")
    assert [row["column_name"] for row in described] == [
        *VERDICTS.names, "metadata", "read_at", "criteria", "keys", "members",
        "calibrated_preference", "calibrated_tie", "trusted", "raw_winner",
    ]  # fmt: skip


def test_the_file_is_written_again_from_the_imported_tables(run):
    with duckdb.connect(str(run / "verdicts.duckdb"), read_only=True) as connection:
        before = connection.sql("FROM verdicts").fetchall()
    (run / "verdicts.duckdb").unlink()
    live = steelyard.open_run(run).verdicts().num_rows
    done = command("compact", run, "--json")
    assert json.loads(done.stdout)["verdicts"] == live == len(before)
    with duckdb.connect(str(run / "verdicts.duckdb"), read_only=True) as connection:
        assert connection.sql("FROM verdicts").fetchall() == before


def test_nothing_is_scored_into_it(run, tmp_path):
    shard = write_pairs(tmp_path / "pairs.parquet", 4)
    for arguments in (("resume", run), ("score", shard, "--run", run, "--judge", "scripted")):
        done = command(*arguments)
        assert done.returncode == 2
        assert "the verdicts of this run were imported" in done.stderr
    assert rows(run, "SELECT count(*) AS n FROM verdicts") == [{"n": 3}]


def test_large_rows_are_written_a_few_at_a_time(tmp_path):
    """A row group is bounded by bytes, for who reads it holds it whole."""
    count, size = 1600, 40_000
    pages = [f"{i:08}" * (size // 8) for i in range(count)]
    imported(tmp_path, table([0.25] * count, page=pages))
    written = pq.read_metadata(tmp_path / "t" / "imported" / "verdicts.parquet")
    groups = [written.row_group(i) for i in range(written.num_row_groups)]
    assert written.num_rows == count
    # Up to 16 MiB wait, and a batch of up to 16 MiB comes on top.
    assert max(group.total_byte_size for group in groups) <= 33 << 20
    assert len(groups) >= 2


def test_a_run_is_never_imported_over(tmp_path):
    imported(tmp_path, table([0.5]))
    with pytest.raises(UsageError, match="there is a run already"):
        imported(tmp_path, table([0.7]))


def test_damage_is_noticed(tmp_path):
    _, run = imported(tmp_path, table([0.5]))
    (run.root / "verdicts.duckdb").unlink()
    path = run.root / "imported" / "verdicts.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityFault, match="damaged"):
        run.verdicts()


NUMBER = st.one_of(
    st.floats(-3, 3), st.sampled_from([-1.0, 0.0, 1.0, 1.5, 2.0, math.nan, math.inf, None])
)
SCALES = st.sampled_from([(0.0, 1.0), (1.0, 2.0), (2.0, 1.0), (-1.0, 1.0), (1.0, 0.0)])


def split(place, values, low, high, column_map=COMPETITORS):
    """The verdicts and rejects of a table, without a run."""
    path = place / "p.parquet"
    pq.write_table(table(values), path)
    tables = open_shards([str(path)], column_map, VERDICT_TABLE)
    (batch,) = read(tables, Limits())
    good, bad = read_verdicts(batch, tables.roles, Reading(low=low, high=high))
    return good.to_pylist(), bad.to_pylist()


@settings(deadline=None)  # files are written
@given(st.lists(NUMBER, min_size=1, max_size=8), SCALES)
def test_preferences_against_a_naive_twin(tmp_path_factory, values, scale):
    low, high = scale
    good, bad = split(tmp_path_factory.mktemp("twin"), values, low, high)
    verdicts = {}
    for number, value in enumerate(values):
        if value is not None and min(low, high) <= value <= max(low, high):
            p = (value - low) / (high - low)
            verdicts[number] = (p, "a" if p > 0.5 else "b" if p < 0.5 else "tie")
    assert {row["row"]: (row["raw_preference"], row["winner"]) for row in good} == verdicts
    assert [row["row"] for row in bad] == [i for i in range(len(values)) if i not in verdicts]
    for row in bad:
        assert row["reason"] == ("null" if values[row["row"]] is None else "scale")


@settings(deadline=None)  # files are written
@given(st.lists(st.floats(1, 2), min_size=1, max_size=8))
def test_swapped_competitors_and_a_turned_scale_swap_the_verdict(tmp_path_factory, values):
    place = tmp_path_factory.mktemp("swap")
    swapped = {"model_a": "baseline", "model_b": "model"}
    one, _ = split(place, values, 1.0, 2.0)
    other, _ = split(place, values, 2.0, 1.0, swapped)
    for row, turned in zip(one, other, strict=True):
        assert turned["raw_preference"] == pytest.approx(1 - row["raw_preference"], abs=1e-15)
        assert (row["model_a"], row["model_b"]) == (turned["model_b"], turned["model_a"])


def test_alpaca_evals_win_rates_are_the_published_ones(tmp_path):
    preferences = data_file("alpaca_eval/preferences.parquet")
    published = pq.read_table(data_file("alpaca_eval/leaderboard.parquet")).to_pylist()
    columns = {**COMPETITORS, "length_a": "output_length", "length_b": "baseline_length"}
    code = import_tables([str(preferences)], tmp_path / "run", column_map=columns, scale="1..2")
    assert code == 0
    run = steelyard.open_run(tmp_path / "run")
    rates = run.sql("SELECT model_a, 100 * avg(raw_preference) AS rate FROM verdicts GROUP BY 1")
    found = {row["model_a"]: row["rate"] for row in rates.to_pylist()}
    assert len(published) == len(found) == 50
    for row in published:
        assert found[row["model"]] == pytest.approx(row["win_rate"], abs=1e-6)
    assert read_record(RunDir(run.root)).imported.pairs == 40_240


def test_stored_words_are_imported(tmp_path):
    words = data_file("arena/llmfao_gpt4.parquet")
    assert import_tables([str(words)], tmp_path / "run", judge="gpt4") == 0
    run = steelyard.open_run(tmp_path / "run")
    counted = run.sql("SELECT winner, count(*) AS n FROM verdicts GROUP BY ALL").to_pylist()
    stored = pq.read_table(words)["winner"].value_counts().to_pylist()
    assert {row["winner"]: row["n"] for row in counted} == {
        entry["values"].lower(): entry["counts"] for entry in stored
    }


def assert_equal(one, other):
    """The same values up to rounding: ids decide in which order clusters are added up."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_equal(*pair)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)
    else:
        assert one == other


def test_imported_votes_on_a_pair_belong_together(tmp_path):
    """8,931 votes on 2,139 pairs: the run has the file's clusters, also in its leaderboard."""
    votes = data_file("arena/llmfao_votes.parquet")
    assert import_tables([str(votes)], tmp_path / "run") == 0
    by_file, by_run = (rank(path, {}, RankOptions()) for path in (votes, tmp_path / "run"))
    assert by_file["clusters"] == by_run["clusters"] == 2139
    assert_equal(by_file["ranking"], by_run["ranking"])
    by_row = rank(tmp_path / "run", {}, RankOptions(intervals="rows"))
    error = {one["competitor"]: one["standard_error"] for one in by_row["ranking"]}
    ratios = [one["standard_error"] / error[one["competitor"]] for one in by_run["ranking"]]
    assert sum(ratios) / len(ratios) > 1.05  # votes on one pair agree
    run = steelyard.open_run(tmp_path / "run")
    row = run.sql("SELECT * FROM leaderboard WHERE competitor = 'GPT 4'").to_pylist()[0]
    table = pq.read_table(votes).to_pylist()
    sides = [(v["pair_id"], {"a": 1.0, "b": 0.0}.get(v["winner"].lower(), 0.5), v) for v in table]
    mine = [
        (pair, y if v["model_a"] == "GPT 4" else 1 - y)
        for pair, y, v in sides if "GPT 4" in {v["model_a"], v["model_b"]}
    ]  # fmt: skip
    pairs, values = map(np.array, zip(*mine, strict=True))
    wanted = mean(values, pairs)
    assert (row["win_rate"], row["instructions"]) == (pytest.approx(wanted.value), wanted.clusters)
    assert wanted.clusters < wanted.rows
    assert row["standard_error"] == pytest.approx(wanted.standard_error)


def test_difficulties_belong_to_the_same_instructions_after_an_import(tmp_path):
    """Ids that are texts, and texts that look like numbers: the run has the file's win rates."""
    for name in ("preferences", "instruction_difficulty"):
        table = pq.read_table(data_file(f"alpaca_eval/{name}.parquet"))
        ids = pa.array([f"0{id_}" for id_ in table["instruction_id"].to_pylist()])
        place = table.schema.get_field_index("instruction_id")
        pq.write_table(table.set_column(place, "instruction_id", ids), tmp_path / f"{name}.parquet")
    lengths = {"length_a": "output_length", "length_b": "baseline_length"}
    columns = {**COMPETITORS, **lengths}
    preferences, hard = (
        tmp_path / "preferences.parquet",
        tmp_path / "instruction_difficulty.parquet",
    )
    import_tables([str(preferences)], tmp_path / "run", column_map=columns, scale="1..2")
    baseline = "gpt4_1106_preview"
    by_run = winrate(tmp_path / "run", {}, baseline, difficulty=hard)
    raw = {**columns, "preference": "(preference - 1)"}
    by_file = winrate(preferences, raw, baseline, difficulty=hard)
    assert_equal(by_run["win_rates"], by_file["win_rates"])
    assert len(by_run["win_rates"]) == 50
    numbers = data_file("alpaca_eval/instruction_difficulty.parquet")
    with pytest.raises(InputRefused, match="40,240 of 40,240 comparisons are of instructions"):
        winrate(tmp_path / "run", {}, baseline, difficulty=numbers)
    by_number = winrate(
        data_file("alpaca_eval/preferences.parquet"), raw, baseline, difficulty=numbers
    )
    assert_equal(by_number["win_rates"], by_file["win_rates"])


@pytest.mark.parametrize("there", [False, True], ids=["no folder", "an empty folder"])
def test_a_refused_import_leaves_nothing_that_was_not_there(tmp_path, there):
    pq.write_table(table([7.0, 8.0]), tmp_path / "t.parquet")
    run = tmp_path / "runs" / "first"
    if there:
        run.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputRefused, match="every row was refused"):
        import_tables([str(tmp_path / "t.parquet")], run, column_map=COMPETITORS)
    assert sorted(tmp_path.rglob("*")) == before


def test_gold_that_sql_wrote_into_csv_is_read_again(tmp_path):
    gold = [{"a": 2.0, "b": 1.0, "tie": 0.0}, {"a": 0.0, "b": 0.0, "tie": 1.0}]
    _, run = imported(tmp_path, table([0.9, 0.4], pair_id=["x", "y"], gold=gold))
    out = tmp_path / "again.csv"
    query = "SELECT pair_id, model_a, model_b, raw_preference, gold FROM verdicts ORDER BY pair_id"
    assert command("sql", run.root, query, "--csv", out).returncode == 0
    assert '"{""a' in out.read_text()
    import_tables([str(out)], tmp_path / "again")
    found = steelyard.open_run(tmp_path / "again").verdicts().to_pylist()
    assert [row["gold"] for row in found] == gold
    done = command("evaluate", out)
    assert done.returncode == 0, done.stderr
    done = command("evaluate", run.root, "--gold", out)
    assert done.returncode == 0, done.stderr
