"""Datasets from runs: books that close, filters, splits, the same bytes again, real verdicts."""

from __future__ import annotations

import fcntl
import json
import random
import re

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import steelyard
from steelyard.cli import main
from steelyard.comparisons.importing import import_tables
from steelyard.errors import InputRefused, RunLocked, UsageError
from steelyard.export import selection
from steelyard.store.durable import file_digest
from support.helpers import data_file, pairs_table


def call(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def read(out, split="train"):
    files = sorted((out / "data").glob(f"{split}-*.parquet"))
    return pa.concat_tables(pq.read_table(file) for file in files).to_pylist()


def verdicts(rows):
    """A table of verdicts with texts; `rows`: (instruction, a, b, preference)."""
    instruction, a, b, preference = zip(*rows, strict=True)
    return pa.table(
        {
            "pair_id": [f"p{at}" for at in range(len(rows))],
            "instruction": instruction,
            "response_a": a,
            "response_b": b,
            "model_a": [f"model {text.strip()[:1]}" for text in a],
            "model_b": [f"model {text.strip()[:1]}" for text in b],
            "preference": np.array(preference, dtype=np.float64),
        }
    )


@pytest.fixture
def imported(tmp_path):
    """Makes a run of verdicts."""

    def make(rows, name="run"):
        table = rows if isinstance(rows, pa.Table) else verdicts(rows)
        pq.write_table(table, tmp_path / f"{name}.parquet")
        assert import_tables([str(tmp_path / f"{name}.parquet")], tmp_path / name) == 0
        return steelyard.open_run(tmp_path / name)

    return make


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """400 pairs of 40 instructions in two shards, judged by the scripted judge."""
    folder = tmp_path_factory.mktemp("scored")
    (folder / "in").mkdir()
    table = pairs_table(400, instructions=40)
    order = np.random.default_rng(0).permutation(400)
    table = table.take(pa.array(order))
    pq.write_table(table.slice(0, 150), folder / "in" / "one.parquet")
    pq.write_table(table.slice(150), folder / "in" / "two.parquet")
    return steelyard.score(folder / "in", run=folder / "run", judge="scripted:seed=3")


def books(content):
    """The counts of an export, which have to close."""
    assert content["exported"] + sum(content["removed"].values()) == content["verdicts"]
    return content["removed"]


def test_every_verdict_is_a_row_with_the_better_response_first(scored, tmp_path):
    content = scored.export(tmp_path / "out", "preference")
    assert books(content) == {}
    rows = {row["pair_id"]: row for row in read(tmp_path / "out")}
    found = scored.verdicts().to_pylist()
    assert len(rows) == len(found) == content["rows"]["train"] == 400
    config = pq.read_table(scored.root.parent / "in").to_pylist()
    texts = {(row["response_a"], row["response_b"]): row for row in config}
    for verdict in found:
        row = rows[verdict["pair_id"]]
        a_wins = verdict["raw_preference"] > 0.5
        chosen, rejected = (row[side][0]["content"] for side in ("chosen", "rejected"))
        pair = texts[(chosen, rejected) if a_wins else (rejected, chosen)]
        assert row["prompt"] == [{"role": "user", "content": pair["instruction"]}]
        assert row["probability"] == max(verdict["raw_preference"], 1 - verdict["raw_preference"])
        assert row["chosen_model"] == (verdict["model_a"] if a_wins else verdict["model_b"])
        assert row["consistent"] == verdict["consistent"]
        assert row["label_mass"] == min(verdict["label_mass_ab"], verdict["label_mass_ba"])
    assert {row["judge"] for row in rows.values()} == {found[0]["judge"]}


def test_filters_are_counted_under_the_first_reason(scored, tmp_path):
    """Each count recomputed by SQL over the verdicts."""
    content = scored.export(
        tmp_path / "out", "reward", where="metadata.source <> 's1'", consistent=True,
        min_label_mass=0.5, min_probability=0.6, margin=(0.5, 1.5),
    )  # fmt: skip
    p = "greatest(raw_preference, 1 - raw_preference)"
    (expected,) = scored.sql(f"""
SELECT count(*) FILTER (NOT wanted) AS "where",
  count(*) FILTER (wanted AND NOT consistent) AS inconsistent,
  count(*) FILTER (wanted AND consistent AND NOT massive) AS label_mass,
  count(*) FILTER (wanted AND consistent AND massive AND {p} < 0.6) AS probability,
  count(*) FILTER (wanted AND consistent AND massive AND {p} >= 0.6
    AND NOT ln({p} / (1 - {p})) BETWEEN 0.5 AND 1.5) AS margin
FROM (SELECT *, metadata.source <> 's1' AS wanted,
  least(label_mass_ab, label_mass_ba) >= 0.5 AS massive FROM verdicts)""").to_pylist()
    assert books(content) == {name: count for name, count in expected.items() if count}
    assert min(expected.values()) >= 0
    assert len([count for count in expected.values() if count]) >= 4
    for row in read(tmp_path / "out"):
        assert 0.5 <= row["margin"] <= 1.5
        assert row["margin"] == pytest.approx(np.log(row["probability"] / (1 - row["probability"])))


@pytest.mark.parametrize("kind", ["preference", "reward", "kto", "sft", "autorater", "grpo"])
def test_the_same_seed_makes_the_same_bytes(scored, tmp_path, kind):
    options = {"test": 0.2, "seed": 7, "rows_per_file": 50}
    if kind != "sft":
        options |= {"per_instruction": 4}
    if kind not in {"autorater", "grpo"}:
        options |= {"balance_length": True}
    folders = [tmp_path / name for name in ("one", "two", "other")]
    for out, seed in zip(folders, (7, 7, 8), strict=True):
        scored.export(out, kind, **{**options, "seed": seed})
    one, two, other = (
        {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}
        for out in folders
    )
    assert one == two
    assert one != other
    content = json.loads(one["export.json"])
    assert {name: file_digest(folders[0] / name) for name in content["files"]} == content["files"]
    assert {"README.md", "export.json", *content["files"]} == one.keys()


def test_no_instruction_stands_in_two_splits(imported, tmp_path):
    """Not even with other letters, white space, or turns before it."""
    rows = []
    for at in range(300):
        question = f"Question number {at}"
        for variant in (question, question.upper(), f" {question.replace(' ', '  ')}\n"):
            rows.append((variant, f"good {len(rows)}", f"bad {len(rows)}", 0.8))
    run = imported(rows)
    content = run.export(tmp_path / "out", "preference", test=0.3)
    train, test = (
        {" ".join(row["prompt"][0]["content"].lower().split()) for row in read(tmp_path / "out", s)}
        for s in ("train", "test")
    )
    assert len(train) + len(test) == len(train | test) == 300
    assert 60 < len(test) < 120
    assert content["rows"] == {"test": 3 * len(test), "train": 3 * len(train)}


def test_rows_are_cut_into_files_of_the_hubs_layout(scored, tmp_path):
    scored.export(tmp_path / "out", "preference", rows_per_file=150)
    names = [file.name for file in sorted((tmp_path / "out" / "data").iterdir())]
    assert names == [f"train-{at:05d}-of-00003.parquet" for at in range(3)]
    sizes = [pq.read_metadata(tmp_path / "out" / "data" / name).num_rows for name in names]
    assert sizes == [150, 150, 100]
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "path: data/train-*.parquet" in card
    assert "| exported | 400 |" in card


def test_best_and_worst_are_taken_from_several_verdicts(imported, tmp_path):
    """Three models against one baseline, in verdicts that lie apart."""
    rows = []
    for at in range(20):
        shuffled = [("x", 0.9), ("y", 0.2), ("z", 0.4)]
        random.Random(at).shuffle(shuffled)
        rows += [(f"question {at}", f"{name} {at}", f"base {at}", p) for name, p in shuffled]
    random.Random(1).shuffle(rows)
    content = imported(rows).export(tmp_path / "out", "preference", select="best-worst")
    assert books(content) == {"not_selected": 20}
    found = read(tmp_path / "out")
    assert len(found) == 20
    for row in found:
        number = row["prompt"][0]["content"].split()[-1]
        assert row["chosen"][0]["content"] == f"x {number}"
        assert row["rejected"][0]["content"] == f"y {number}"
        assert row["probability"] == pytest.approx(36 / 37)
        assert row["pair_id"] != row["rejected_pair_id"] is not None
    second = imported(rows, "again").export(tmp_path / "second", "preference", select="best-second")
    assert second["rows"] == {"train": 20}
    assert {row["rejected"][0]["content"][:4] for row in read(tmp_path / "second")} == {"base"}


@pytest.mark.parametrize("instructions", [20, 40])
def test_selected_pairs_say_what_is_claimed_and_what_to_expect(imported, instructions, tmp_path):
    """Three verdicts on three responses contradict each other once: 30 are enough to measure it."""
    draw, rows = np.random.default_rng(0), []
    for at in range(instructions):
        strength = draw.normal(0, 1, 3)
        for a, b in ((0, 1), (1, 2), (2, 0)):
            p = 1 / (1 + np.exp(strength[b] - strength[a] + draw.normal(0, 2)))
            rows.append((f"question {at}", f"{'xyz'[a]} {at}", f"{'xyz'[b]} {at}", p))
    run = imported(rows)
    content = run.export(tmp_path / "out", "reward", select="best-worst")
    accuracy, found = content["accuracy"], read(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    mean = sum(row["probability"] for row in found) / len(found)
    assert content["promise"] is None
    if instructions == 20:
        assert accuracy == {
            "noise_share": None, "noise_from": None, "expected": None,
            "claimed": pytest.approx(mean, abs=1e-6),
        }  # fmt: skip
        assert (
            f"{mean:.1%} claimed; the noise of verdicts is not known; preferences are raw" in card
        )
    else:
        assert accuracy["noise_from"] == "verdicts"
        assert 0.4 < accuracy["noise_share"] < 0.9  # 4 of 6 in truth
        assert accuracy["expected"] == pytest.approx(mean, abs=1e-6)
        assert accuracy["expected"] < accuracy["claimed"] - 0.05
        assert f"{mean:.1%} expected, {accuracy['claimed']:.1%} claimed" in card
    assert run.export(tmp_path / "all", "reward")["accuracy"] is None


def test_the_choice_is_the_same_however_many_verdicts_are_looked_at_at_once(
    scored, tmp_path, monkeypatch
):
    one = scored.export(tmp_path / "one", "preference", select="best-worst")
    monkeypatch.setattr(selection, "CHOOSE_FROM", 15)
    other = scored.export(tmp_path / "other", "preference", select="best-worst")
    assert one == other
    assert one["rows"]["train"] > 20


def test_completions_are_good_if_they_win_more_than_they_lose(imported, tmp_path):
    rows = [
        ("q", "one", "two", 0.9),
        ("q", "two", "three", 0.7),
        ("q", "three", "one", 0.4),
        ("other", "x", "y", 0.25),
    ]
    content = imported(rows).export(tmp_path / "out", "kto")
    assert books(content) == {}
    found = {row["completion"][0]["content"]: row for row in read(tmp_path / "out")}
    expected = {"one": 0.75, "two": 0.4, "three": 0.35, "x": 0.25, "y": 0.75}
    assert {name: row["probability"] for name, row in found.items()} == pytest.approx(expected)
    assert {name for name, row in found.items() if row["label"]} == {"one", "y"}


def test_the_best_completions_for_sft(imported, tmp_path):
    rows = [("q", "one", "two", 0.9), ("q", "two", "three", 0.7), ("other", "x", "y", 0.25)]
    imported(rows).export(tmp_path / "out", "sft")
    assert [row["completion"][0]["content"] for row in read(tmp_path / "out")] == ["one", "y"]
    content = imported(rows, "2").export(tmp_path / "second", "sft", select="all")
    assert books(content) == {}
    again = [*rows, ("q", "one", "three", 0.8)]
    content = imported(again, "3").export(tmp_path / "third", "sft", select="all")
    assert books(content) == {"repeated": 1}


def test_judges_learn_both_orders_from_gold_or_from_preferences(tmp_path):
    table = pairs_table(6, instructions=3)
    table = table.append_column("votes_a", pa.array([3.0, 0, 1, 2, 0, 5]))
    table = table.append_column("votes_b", pa.array([1.0, 2, 1, 0, 0, 0]))
    table = table.append_column("votes_tie", pa.array([0.0, 2, 0, 1, 1, 0]))
    pq.write_table(table, tmp_path / "in.parquet")
    run = steelyard.score(tmp_path / "in.parquet", run=tmp_path / "run", judge="scripted")
    for kind in ("autorater", "grpo"):
        run.export(tmp_path / kind, kind)
        run.export(tmp_path / f"{kind}-p", kind, target="preference")
    shares = run.sql(
        "SELECT pair_id, (gold.a + gold.tie / 2) / (gold.a + gold.b + gold.tie) AS share,"
        " raw_preference FROM verdicts"
    ).to_pylist()
    for kind in ("autorater", "grpo"):
        rows, by_preference = (read(tmp_path / f"{kind}{more}") for more in ("", "-p"))
        assert len(rows) == len(by_preference) == 12
        for one in shares:
            own = {row["shown"]: row for row in rows if row["pair_id"] == one["pair_id"]}
            assert own["ab"]["probability"] == pytest.approx(one["share"])
            assert own["ba"]["probability"] == pytest.approx(1 - one["share"])
            ab, ba = (own[order]["prompt"][1]["content"] for order in ("ab", "ba"))
            assert ab.index(" first ") < ab.index(" second ")
            assert ba.index(" second ") < ba.index(" first ")
        assert {row["probability"] for row in by_preference if row["shown"] == "ab"} == {
            one["raw_preference"] for one in shares
        }


def test_calibrated_preferences_are_exported_where_there_are_any(tmp_path):
    pq.write_table(pairs_table(600, instructions=600), tmp_path / "in.parquet")
    root = steelyard.score(tmp_path / "in.parquet", run=tmp_path / "run", judge="scripted").root
    gold = steelyard.open_run(root).sql("""
SELECT pair_id, CASE WHEN raw_preference + (hash(pair_id) % 100 - 49.5) / 150 > 0.6 THEN 'A'
  ELSE 'B' END AS gold FROM verdicts""")
    pq.write_table(gold, tmp_path / "gold.parquet")
    fit = call(
        "calibrate", "fit", root, "--gold", tmp_path / "gold.parquet", "--method", "platt",
        "--agreement", 0.9, "--out", tmp_path / "c.json",
    )  # fmt: skip
    assert fit.exit_code == 0, fit.output
    assert call("calibrate", "apply", root, tmp_path / "c.json").exit_code == 0
    run = steelyard.open_run(root)
    content = run.export(tmp_path / "out", "reward", trusted=True)
    expected = run.sql("""SELECT pair_id, greatest(calibrated_preference, 1 - calibrated_preference)
      AS p, CASE WHEN calibrated_preference >= 0.5 THEN raw_preference ELSE 1 - raw_preference END
      AS raw FROM verdicts WHERE trusted""").to_pylist()
    rows = {row["pair_id"]: row for row in read(tmp_path / "out")}
    assert books(content)["untrusted"] == 600 - len(expected) > 0
    assert len(rows) == len(expected) > 0
    for one in expected:
        row = rows[one["pair_id"]]
        assert (row["probability"], row["raw_probability"]) == (one["p"], one["raw"])
    assert content["calibrator"]["method"] == "platt"
    assert "calibrated by `platt`" in (tmp_path / "out" / "README.md").read_text("utf-8")
    assert content["promise"] == {"agreement": 0.9, "confidence": 0.95, "of_rows": True}
    done = call("export", root, "--format", "reward", "--trusted", "--select", "best-worst",
                "--dry-run", "--json")  # fmt: skip
    assert json.loads(done.stdout)["promise"]["of_rows"] is False
    assert "not of the pairs that are selected from them (best-worst)" in done.stderr


def test_lengths_are_balanced(imported, tmp_path):
    """Better responses are longer in four of five; afterwards in half."""
    draw = np.random.default_rng(0)
    rows = []
    for at in range(1000):
        long, short = "l" + "x" * int(draw.integers(50, 400)), "s" * int(draw.integers(1, 50))
        rows.append((f"q{at}", f"{long}{at}", f"{short}{at}", 0.9 if draw.random() < 0.8 else 0.1))
    run = imported(rows)
    before = run.export(tmp_path / "all", "preference")
    after = run.export(tmp_path / "out", "preference", balance_length=True)

    def differences(out):
        return np.array([
            len(row["chosen"][0]["content"]) - len(row["rejected"][0]["content"])
            for row in read(out)
        ])  # fmt: skip

    one, other = differences(tmp_path / "all"), differences(tmp_path / "out")
    assert len(one) == before["rows"]["train"] == 1000
    assert (one > 0).mean() > 0.75
    assert (other > 0).sum() == (other < 0).sum() > 150
    longer, shorter = np.sort(other[other > 0]), np.sort(-other[other < 0])
    assert np.abs(longer - shorter).max() < 60  # matched in their sizes too
    assert books(after) == {"length_balance": 1000 - len(other)}


def test_instructions_of_evaluations_and_near_copies_are_left_out(imported, tmp_path):
    words = [f"word{at}" for at in range(14)]
    long = " ".join(words)
    rows = [
        ("Tell me a story about a dog", "a1", "b1", 0.9),
        ("tell me a  story about a dog!", "a2", "b2", 0.9),
        (f"Explain: {long}", "a3", "b3", 0.9),
        ("What else is there to say about the moon tonight", "a4", "b4", 0.9),
        ("So what else is there to say about the moon tonight", "a5", "b5", 0.9),
        ("Something else", "a6", "b6", 0.9),
    ]
    pq.write_table(
        pa.table({"text": ["TELL me a story about a dog", long]}), tmp_path / "e.parquet"
    )
    run = imported(rows)
    content = run.export(
        tmp_path / "out", "preference", near_duplicates=0.8,
        decontaminate=(str(tmp_path / "e.parquet"),), decontaminate_column="text",
    )  # fmt: skip
    assert books(content) == {"contaminated": 3, "near_duplicate": 1}
    kept = [row["prompt"][0]["content"] for row in read(tmp_path / "out")]
    assert kept == [rows[3][0], rows[5][0]]
    # What was left out for another reason takes nothing with it.
    content = run.export(
        tmp_path / "second", "preference", near_duplicates=0.8, where="pair_id <> 'p3'"
    )
    assert books(content) == {"where": 1, "near_duplicate": 1}
    assert rows[4][0] in [row["prompt"][0]["content"] for row in read(tmp_path / "second")]


def test_verdicts_without_a_choice_are_left_out(imported, tmp_path):
    rows = [
        ("q1", "a", "b", 0.5),
        ("q2", "same", " same ", 0.9),
        ("q3", "a", "b", 0.9),
        ("q3", "b", "a", 0.1),  # the same pair again, turned
        ("q4", " ", "b", 0.9),
        ("q4", "c", "", 0.9),
    ]
    content = imported(rows).export(tmp_path / "out", "preference")
    assert books(content) == {"same_response": 1, "duplicate": 1, "tie": 1, "empty": 1}
    assert [row["pair_id"] for row in read(tmp_path / "out")] == ["p2", "p5"]


def test_plain_text_holds_no_conversation(tmp_path):
    table = pairs_table(3).append_column("system", pa.array([None, "be kind", "  "]))
    pq.write_table(table, tmp_path / "in.parquet")
    run = steelyard.score(tmp_path / "in.parquet", run=tmp_path / "run", judge="scripted")
    content = run.export(tmp_path / "out", "preference", form="plain")
    assert books(content) == {"needs_conversation": 1}
    assert {type(row["prompt"]) for row in read(tmp_path / "out")} == {str}
    content = run.export(tmp_path / "chat", "preference")
    assert books(content) == {}
    assert [len(row["prompt"]) for row in read(tmp_path / "chat")] == [1, 2, 1]


def test_a_dry_run_counts_the_same_and_writes_nothing(scored, tmp_path):
    arguments = ("export", scored.root, "--format", "preference", "--min-probability", 0.7)
    dry = call(*arguments, "--dry-run", "--json")
    assert dry.exit_code == 0, dry.output
    wet = call(*arguments, "--out", tmp_path / "out", "--json")
    one, other = (json.loads(done.stdout) for done in (dry, wet))
    assert other.pop("files")
    assert one.pop("estimate")["row_bytes"] > 0
    assert one == other
    text = call(*arguments, "--dry-run", "--quiet").stdout
    assert "removed, probability: probability below --min-probability" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"where": "nothing = 1"}, "DuckDB refuses --where"),
        ({"where": "1 = 1; DROP TABLE verdicts"}, "DuckDB refuses --where"),
        ({"where": "length_a > 0 -- and more"}, None),
        ({"where": "  "}, "--where is empty"),
        ({"trusted": True}, "--trusted cannot be decided"),
        ({"target": "gold"}, "--target does not apply"),
        ({"min_probability": 0.2}, "--min-probability is 0.2"),
        ({"margin": (2.0, 1.0)}, "--margin is 2..1"),
        ({"per_instruction": 0}, "--per-instruction is 0"),
        ({"select": "worst"}, "--select is 'worst'"),
        ({"form": "prose"}, "--form is 'prose'"),
        ({"where": "random() < 0.5"}, r"--where calls random"),
        ({"where": "read_at < CURRENT_DATE"}, r"--where calls current_date"),
        ({"ngram": 5}, "no effect without --decontaminate"),
        ({"select": "best-worst", "per_instruction": 2}, "--per-instruction has no effect"),
        ({"unknown": 1}, "unknown key 'unknown'"),
    ],
)
def test_options_that_cannot_be(scored, tmp_path, options, words):
    if words is None:
        scored.export(tmp_path / "out", "preference", **options)
        return
    with pytest.raises(UsageError, match=words):
        scored.export(tmp_path / "out", "preference", **options)
    assert list(tmp_path.iterdir()) == []


def test_no_row_left_is_refused_with_the_reasons(scored, tmp_path):
    with pytest.raises(InputRefused, match=r"none of 400 verdicts is left \(400 where\)"):
        scored.export(tmp_path / "out", "preference", where="false")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over_something_else(scored, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(UsageError, match="is there already"):
        scored.export(tmp_path / "out", "preference")
    assert (tmp_path / "out" / "mine").read_text() == "x"


def test_only_scratch_of_exports_is_removed(scored, tmp_path):
    """A folder of the user's, one that a killed export left, and one that another is writing."""
    out, mine = tmp_path / "out", tmp_path / ".out.steelyard-export"
    mine.mkdir()
    (mine / "thesis").write_text("x")
    with pytest.raises(UsageError, match="something else has the name"):
        scored.export(out, "preference")
    assert (mine / "thesis").read_text() == "x"
    (mine / "lock").touch()
    with (mine / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunLocked, match="another export is writing"):
            scored.export(out, "preference")
    assert (mine / "thesis").exists()
    scored.export(out, "preference")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_no_dataset_stands_in_a_run(scored):
    with pytest.raises(UsageError, match="inside a run directory"):
        scored.export(scored.root / "out", "preference")


def test_lengths_are_balanced_in_each_split(imported, tmp_path):
    draw = np.random.default_rng(1)
    rows = [
        (f"q{at}", "l" * int(draw.integers(5, 90)), "s" * int(draw.integers(2, 60)), 0.9)
        for at in range(600)
    ]
    content = imported(rows).export(tmp_path / "out", "preference", balance_length=True, test=0.3)
    assert min(content["rows"].values()) > 20
    for split in content["rows"]:
        sizes = [
            len(row["chosen"][0]["content"]) - len(row["rejected"][0]["content"])
            for row in read(tmp_path / "out", split)
        ]
        assert sum(one > 0 for one in sizes) == sum(one < 0 for one in sizes)


def test_the_best_completion_stays_whatever_the_worst_one_won(imported, tmp_path):
    """x is far ahead of z through y, and yet lost to it."""
    rows = [("q", "x", "y", 0.999), ("q", "y", "z", 0.999), ("q", "x", "z", 0.4)]
    assert books(imported(rows).export(tmp_path / "a", "sft")) == {"not_selected": 2}
    assert read(tmp_path / "a")[0]["completion"][0]["content"] == "x"
    rows = [*rows, ("other", "x", "y", 0.9)]
    content = imported(rows, "2").export(tmp_path / "b", "preference", select="best-worst")
    assert books(content) == {"not_selected": 2, "contradicted": 1}


def test_an_evaluation_without_instructions_says_how_to_name_them(scored, tmp_path):
    pq.write_table(pa.table({"q": ["a question"]}), tmp_path / "e.parquet")
    for column in (None, "nope"):
        with pytest.raises(InputRefused) as refused:
            scored.export(
                tmp_path / "out", "preference", decontaminate=(str(tmp_path / "e.parquet"),),
                decontaminate_column=column,
            )  # fmt: skip
        assert "--decontaminate-column" in refused.value.remedy
        assert "--map" not in str(refused.value)


def test_changed_shards_are_refused(imported, tmp_path):
    run = imported([("q", "a", "b", 0.9)])
    pq.write_table(verdicts([("q", "a", "c", 0.9)]), tmp_path / "run.parquet")
    with pytest.raises(InputRefused, match="shards have changed"):
        run.export(tmp_path / "out", "preference")
    assert not (tmp_path / "out").exists()


def test_verdicts_without_texts_say_what_is_needed(imported, tmp_path):
    table = verdicts([("q", "a", "b", 0.9)]).drop_columns(["response_a", "response_b"])
    run = imported(table)
    with pytest.raises(UsageError, match="hold no texts"):
        run.export(tmp_path / "out", "preference")
    responses = {"prompt": ["q", "q"], "generator": ["model a", "model b"], "output": ["a", "b"]}
    pq.write_table(pa.table(responses), tmp_path / "r.parquet")
    run.export(tmp_path / "out", "preference", responses=(str(tmp_path / "r.parquet"),))
    (row,) = read(tmp_path / "out")
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("a", "b")
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert re.search(r"\| texts \| `r\.parquet` \(fingerprint `[0-9a-f]{32}`\)", card)
    missing = {**responses, "output": ["a", None]}
    pq.write_table(pa.table(missing), tmp_path / "m.parquet")
    with pytest.raises(InputRefused, match="two responses were not found"):
        run.export(tmp_path / "m", "preference", responses=(str(tmp_path / "m.parquet"),))
    two = {key: [*values, values[0]] for key, values in responses.items()}
    two["output"][2] = "another"
    pq.write_table(pa.table(two), tmp_path / "two.parquet")
    with pytest.raises(InputRefused, match="several responses"):
        run.export(tmp_path / "second", "preference", responses=(str(tmp_path / "two.parquet"),))


def test_alpaca_evals_best_and_worst(tmp_path):
    """The best and the worst of 50 models on each of 805 instructions, recomputed in SQL."""
    preferences = data_file("alpaca_eval/preferences.parquet")
    outputs = data_file("alpaca_eval/outputs.parquet")
    columns = {"model_a": "model", "model_b": "baseline"}
    import_tables([str(preferences)], tmp_path / "run", column_map=columns, scale="1..2")
    run = steelyard.open_run(tmp_path / "run")
    content = run.export(
        tmp_path / "out", "reward", select="best-worst", form="plain", responses=(str(outputs),)
    )
    books(content)
    assert content["rows"] == {"train": 805}
    expected = duckdb.sql(f"""
WITH texts AS (
  SELECT instruction_id AS i, model, trim(output, E' \\t\\n\\r\\x0b\\x0c') AS text, instruction
  FROM read_parquet('{outputs}')
), judged AS (
  SELECT instruction_id AS i, text, ln(p / (1 - p)) AS odds, n
  FROM (
    SELECT *, file_row_number AS n, least(greatest(preference - 1, 1e-12), 1 - 1e-12) AS p
    FROM read_parquet('{preferences}', file_row_number = true)
  ) p
  JOIN texts t ON t.i = instruction_id AND t.model = p.model
  WHERE p.model <> baseline
  UNION ALL
  SELECT i, text, 0, -1 FROM texts WHERE model = 'gpt4_1106_preview'
), once AS (
  SELECT * FROM judged QUALIFY row_number() OVER (PARTITION BY i, text ORDER BY n) = 1
)
SELECT i, max(odds) - min(odds) AS margin, first(text ORDER BY odds DESC, n) AS best,
  last(text ORDER BY odds DESC, n) AS worst
FROM once GROUP BY i""").fetchall()
    assert len(expected) == 805
    texts = {(best.strip(), worst.strip()): margin for _, margin, best, worst in expected}
    assert len(texts) == 805
    for row in read(tmp_path / "out"):
        margin = texts[row["chosen"].strip(), row["rejected"].strip()]
        assert row["margin"] == pytest.approx(min(margin, np.log((1 - 1e-6) / 1e-6)), abs=1e-6)
