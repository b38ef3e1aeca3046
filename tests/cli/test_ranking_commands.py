"""The commands rank, winrate and bias, on runs and on files, as people call them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import steelyard
from steelyard.cli import main
from steelyard.ranking.style import FEATURES
from steelyard.ranking.win_rates import UNLEARNED
from support import rating_twins as twins
from support.helpers import pairs_table

NAMES = np.array(list("abcdef"))
STYLES = (
    "plain text",
    "# Heading\n- one\n- two",
    "**bold** words\n```\ncode\n```",
    "a longer text " * 9,
)


def call(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def answer(*arguments):
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def votes(tmp_path_factory):
    path = tmp_path_factory.mktemp("votes") / "votes.parquet"
    _, (i, j, y, _, cluster) = twins.simulate(np.random.default_rng(1), instructions=150)
    winner = np.array(["B", "tie", "A"])[(2 * y).astype(int)]
    pq.write_table(
        pa.table(
            {"model_a": NAMES[i], "model_b": NAMES[j], "winner": winner, "prompt_id": cluster}
        ),
        path,
    )
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("statistics")
    table = pairs_table(120, instructions=40)
    for side in "ab":
        at = table.schema.get_field_index(f"response_{side}")
        shift = 1 if side == "b" else 0
        texts = [f"{row} {STYLES[(row // (1 + shift)) % 4]}" for row in range(120)]
        table = table.set_column(at, f"response_{side}", pa.array(texts))
    pq.write_table(table, place / "pairs.parquet")
    steelyard.score(place / "pairs.parquet", run=place / "run", judge="scripted:fail=0.02")
    return place / "run"


def test_rank_a_file(votes):
    found = answer("rank", votes)
    ranking = found["ranking"]
    assert [row["rank"] for row in ranking] == [1, 2, 3, 4, 5, 6]
    assert sorted(row["competitor"] for row in ranking) == list("abcdef")
    assert np.mean([row["rating"] for row in ranking]) == pytest.approx(1000)
    for row in ranking:
        assert row["lower"] < row["rating"] < row["upper"]
        assert row["best_rank"] <= row["rank"] <= row["worst_rank"]
    assert found["clusters"] == 150
    assert found["clusters_by"] == "prompt_id"
    assert len(found["differences"]) == 15
    matrix = np.array(found["win_matrix"]["share"], dtype=float)
    assert np.nansum(matrix + matrix.T) == pytest.approx(30)
    text = call("rank", votes).stdout
    assert "comparisons, intervals over prompt_id" in text
    table = text.split("\n\n")[1]  # after what preferences are of
    assert table.split("\n")[1].startswith(ranking[0]["competitor"])


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "davidson"], ["--method", "rao-kupper"], ["--method", "elo"],
        ["--method", "elo", "--shuffles", "0"], ["--method", "newman"], ["--method", "eigen"],
        ["--method", "pagerank"], ["--method", "average"],
        ["--intervals", "bootstrap", "--replicates", "100"], ["--intervals", "rows"],
        ["--anchor", "c"],
    ],
)  # fmt: skip
def test_all_ways_to_rank(votes, options):
    found = answer("rank", votes, *options)
    scores = [row["rating"] for row in found["ranking"]]
    assert scores == sorted(scores, reverse=True)
    assert np.isfinite(scores).all()
    assert call("rank", votes, *options).exit_code == 0
    if "--anchor" in options:
        anchor = next(row for row in found["ranking"] if row["competitor"] == "c")
        assert anchor["rating"] == anchor["lower"] == anchor["upper"] == 1000


def test_rank_a_run_and_its_file(run):
    one, other = answer("rank", run), answer("rank", run / "verdicts.duckdb")
    assert one["left_out"] == other["left_out"]
    assert one["left_out"]["status error"] > 0
    assert one["ranking"] == other["ranking"]
    leaders = answer("sql", run, "SELECT competitor, average_win_rate FROM leaderboard")
    averages = {row["competitor"]: row["average_win_rate"] for row in leaders}
    for row in one["ranking"]:
        assert row["average_win_rate"] == pytest.approx(averages[row["competitor"]])


def test_style_of_a_run_is_that_of_its_texts(run, tmp_path):
    """The texts are read again from the shards, or stand in a file: the same win rates."""
    found = answer("winrate", run, "--baseline", "m0", "--style", "--map", "instruction=row")
    source = {row["pair_id"]: row for row in answer("sql", run, "SELECT * FROM verdicts")}
    texts = pq.read_table(run.parent / "pairs.parquet").to_pylist()
    rows = [
        {
            "model_a": verdict["model_a"], "model_b": verdict["model_b"],
            "preference": verdict["raw_preference"], "instruction_id": verdict["row"],
            "response_a": texts[verdict["row"]]["response_a"],
            "response_b": texts[verdict["row"]]["response_b"],
        }
        for verdict in source.values() if verdict["status"] == "ok"
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    again = answer("winrate", tmp_path / "rows.parquet", "--baseline", "m0", "--style")
    assert found["rows"] == again["rows"] > 30
    key = lambda one: one["competitor"]  # noqa: E731
    for one, other in zip(
        sorted(found["win_rates"], key=key), sorted(again["win_rates"], key=key), strict=True
    ):
        assert one["mean_length_difference"] == other["mean_length_difference"]
        # two competitors: the difficulty of instructions cannot be learned
        assert one["not_controlled"] == other["not_controlled"] == {"length_controlled": UNLEARNED}
        held, again = one["style_controlled"], other["style_controlled"]
        assert held["win_rate"] == pytest.approx(again["win_rate"], abs=1e-9)
    assert set(found["win_rates"][0]["style_controlled"]["coefficients"]) <= {
        *FEATURES,
        "intercept",
    }
    assert "equal style" in call("winrate", run, "--baseline", "m0", "--style").stdout


def test_style_of_imported_verdicts_is_that_of_their_tables(tmp_path):
    rng, count = np.random.default_rng(4), 90
    columns = {
        "instruction": [f"why {row}?" for row in range(count)],
        "response_a": [STYLES[row % 4] * (1 + row % 7) for row in range(count)],
        "response_b": [STYLES[row % 3] * (1 + row % 5) for row in range(count)],
        "model_a": ["x"] * count, "model_b": ["base"] * count, "preference": rng.random(count),
    }  # fmt: skip
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path)
    assert call("import", path, "--run", tmp_path / "run", "--scale", "0..1").exit_code == 0
    (run,), (file,) = (
        answer("winrate", place, "--baseline", "base", "--style")["win_rates"]
        for place in (tmp_path / "run", path)
    )
    assert run["style_controlled"]["win_rate"] == file["style_controlled"]["win_rate"]
    assert run["style_controlled"]["coefficients"]["lists"] != 0
    pq.write_table(pa.table(columns).drop_columns(["response_b"]), path)
    assert call("import", path, "--run", tmp_path / "bare", "--scale", "0..1").exit_code == 0
    done = call("winrate", tmp_path / "bare", "--baseline", "base", "--style")
    assert done.exit_code == 2
    assert "hold no texts" in done.stderr
    assert "leave --style out" in done.stderr


def test_a_drawing_shows_who_has_no_interval(tmp_path):
    pytest.importorskip("matplotlib")
    rows = {"model_a": ["x", "y", "king"] * 40, "model_b": ["y", "x", "x"] * 40,
            "preference": [0.6, 0.3, 1.0] * 40}  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    found = answer("rank", tmp_path / "t.parquet", "--plot", tmp_path / "out")
    assert [row["lower"] is None for row in found["ranking"]] == [True, False, False]
    assert (tmp_path / "out" / "ratings.svg").stat().st_size > 1000


@pytest.mark.parametrize("rewritten", ["fewer rows", "other texts", "gone"])
def test_style_refuses_shards_that_are_not_what_they_were(run, rewritten):
    shard = run.parent / "pairs.parquet"
    content, table = shard.read_bytes(), pq.read_table(shard)
    if rewritten == "gone":
        shard.unlink()
    elif rewritten == "fewer rows":
        pq.write_table(table.slice(0, 30), shard)
    else:
        at = table.schema.get_field_index("response_a")
        texts = [f"- {text}" for text in table["response_a"].to_pylist()]
        pq.write_table(table.set_column(at, "response_a", pa.array(texts)), shard)
    try:
        done = call("winrate", run, "--baseline", "m0", "--style")
    finally:
        shard.write_bytes(content)
    assert done.exit_code == 3
    assert "the shards have changed since the run was planned" in done.stderr
    assert "leave --style out" in done.stderr
    assert call("winrate", run, "--baseline", "m0", "--style").exit_code == 0


def test_style_opens_the_shards_with_the_roles_of_the_run(tmp_path):
    """A protocol that shows one response knows the column `response`; pairs do not."""
    table = pairs_table(60, instructions=20).rename_columns({"response_a": "response"})
    pq.write_table(table, tmp_path / "t.parquet")
    steelyard.score(
        tmp_path / "t.parquet", run=tmp_path / "run", judge="scripted", protocol="pointwise"
    )
    found = answer("winrate", tmp_path / "run", "--baseline", "m0", "--style")
    assert {row["competitor"] for row in found["win_rates"]} == {"m3"}


def test_bias_of_a_run(run):
    found = answer("bias", run, "--by", "source")
    assert found["by"].keys() == {f"s{n}" for n in range(5)}
    assert found["all"]["position"]["first"]["value"] == pytest.approx(0.5, abs=0.2)
    assert found["missing"] == {}
    assert "label mass" in call("bias", run).stdout


def test_drawings(votes, tmp_path):
    pytest.importorskip("matplotlib")
    assert call("rank", votes, "--plot", tmp_path / "out").exit_code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["ratings.png", "ratings.svg", "win_matrix.png", "win_matrix.svg"]
    assert "<svg" in (tmp_path / "out" / "ratings.svg").read_text("utf-8")
    first = (tmp_path / "out" / "win_matrix.svg").read_bytes()
    call("rank", votes, "--plot", tmp_path / "out")
    assert (tmp_path / "out" / "win_matrix.svg").read_bytes() == first
    (tmp_path / "file").touch()
    assert call("rank", votes, "--plot", tmp_path / "file").exit_code == 2


def test_drawing_without_matplotlib_says_what_to_install(votes, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    done = call("rank", votes, "--plot", tmp_path / "out")
    assert done.exit_code == 5
    assert "pip install 'steelyard[plot]'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--method", "best"], 2, "there is no best for --method"),
        (["--intervals", "wide"], 2, "there is no wide for --intervals"),
        (["--intervals", "bootstrap", "--replicates", "1"], 2, "too few replicates"),
        (["--replicates", "500"], 2, "--replicates has no effect here"),
        (["--method", "elo", "--anchor", "a"], 2, "--anchor has no effect here"),
        (["--anchor", "nobody"], 2, "there is no competitor nobody"),
        (["--map", "winner=model_a"], 3, "the winner is not a, b or tie"),
        (["--map", "winner=none"], 3, "there is no column none"),
    ],
)
def test_errors_name_what_to_do(votes, arguments, code, words):
    done = call("rank", votes, *arguments)
    assert done.exit_code == code
    assert words in done.stderr
    assert "next:" in done.stderr
