"""Rules of pairs that do not fit the rows, and what newcomers meet next to them."""

import json

import pytest

import steelyard
from steelyard.errors import InputRefused, UsageError
from steelyard.report.content import ReportOptions, gather
from steelyard.report.page import render
from support.helpers import command


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def pairs(tmp_path):
    rows = [
        {
            "instruction": f"q{i // 2}",
            "response_a": f"a{i}",
            "response_b": f"b{i}",
            "pair_id": f"{i}",
        }
        for i in range(6)
    ]
    return write(tmp_path / "pairs.jsonl", rows)


@pytest.fixture
def responses(tmp_path):
    rows = [
        {"instruction": f"q{i // 2}", "response": f"r{i}", "model": "xy"[i % 2]} for i in range(6)
    ]
    return write(tmp_path / "responses.jsonl", rows)


@pytest.mark.parametrize("rule", ["all", "adjacent", "random=2", "none"])
def test_rows_that_are_pairs_make_no_pairs(pairs, tmp_path, rule):
    with pytest.raises(UsageError, match=r"the rows are pairs|compares two"):
        steelyard.score(pairs, run=tmp_path / "run", judge="scripted", pairs=rule)
    assert not (tmp_path / "run").exists()


def test_a_protocol_of_pairs_does_not_judge_single_responses(responses, tmp_path):
    with pytest.raises(UsageError, match=r"--pairs none leaves each response alone"):
        steelyard.score(responses, run=tmp_path / "run", judge="scripted", pairs="none")


def test_a_report_on_single_scores_says_nothing_of_pairs(responses, tmp_path):
    options = {"judge": "scripted", "pairs": "none", "protocol": "pointwise"}
    steelyard.score(responses, run=tmp_path / "run", **options)
    content = gather(tmp_path / "run", ReportOptions())
    assert "most certain" not in content["samples"]
    page = render(content)
    assert "name response a" not in page
    assert "name the same winner" not in page
    assert ">score<" in page


@pytest.mark.parametrize("option", ["--limit", "--sample"])
@pytest.mark.parametrize("number", ["0", "-1"])
def test_a_part_has_at_least_one_row(pairs, tmp_path, option, number):
    done = command("score", pairs, "--run", tmp_path / "run", "--judge", "scripted", option, number)
    assert done.returncode == 2
    assert f"Invalid value for '{option}': {number}" in done.stderr


def test_errors_about_a_file_that_is_not_parquet_name_the_file(pairs, tmp_path):
    run = steelyard.score(pairs, run=tmp_path / "run", judge="scripted")
    gold = tmp_path / "gold.csv"
    gold.write_text("pair_id,gold\n0,1\n1,0\n", "utf-8")
    with pytest.raises(InputRefused, match="ambiguous") as refused:
        run.evaluate(gold)
    assert refused.value.place == "gold.csv"


def test_gold_of_one_side_is_no_lesson(tmp_path):
    """As in tables of chosen and rejected: a curve would learn that the first is better."""
    rows = [{"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(60)]
    run = tmp_path / "run"
    options = ["--run", run, "--judge", "scripted"]
    assert command("score", write(tmp_path / "trl.jsonl", rows), *options).returncode == 0
    out = tmp_path / "c.json"
    refused = command("calibrate", "fit", run, "--out", out)
    assert refused.returncode == 3
    assert "gold names response_a in all 60 pairs that are decided" in refused.stderr
    done = command("calibrate", "fit", run, "--out", out, "--method", "temperature")
    assert done.returncode == 0, done.stderr
    assert command("calibrate", "apply", run, out).returncode == 0
    page = tmp_path / "page.html"
    done = command("report", run, "--out", page)
    assert done.returncode == 0, done.stderr
    assert "calibrated" in page.read_text("utf-8")


def test_samples_that_could_not_be_read_are_named(pairs, tmp_path):
    run = tmp_path / "run"
    options = ["--run", run, "--judge", "scripted:seed=3", "--protocol", "two-scores"]
    rows = [
        {"instruction": f"q{i}", "response_a": f"a{i}", "response_b": f"b{i}"} for i in range(30)
    ]
    done = command("score", write(tmp_path / "more.jsonl", rows), *options)
    assert done.returncode == 4
    assert "every row has a verdict, but" in done.stderr
    query = done.stderr.split("they are listed by steelyard sql ")[1]
    assert "FROM reads WHERE" in query


def test_a_status_that_is_watched_is_one_line_each_time(pairs, tmp_path):
    run = steelyard.score(pairs, run=tmp_path / "run", judge="scripted")
    done = command("status", run.root, "--watch", "--json")
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["state"] == "complete"


def test_an_import_knows_the_names_of_both_sides(tmp_path):
    """Next to `winner`, which is not gold as well."""
    row = {"instruction": "q", "output_1": "a", "output_2": "b", "generator_1": "x"}
    rows = [{**row, "generator_2": "y", "winner": "model_b"} for _ in range(2)]
    run = tmp_path / "run"
    done = command("import", write(tmp_path / "annotations.jsonl", rows), "--run", run)
    assert done.returncode == 0, done.stderr
    shown = command("show", run, "--any", "1").stdout
    assert "response_b (y), preferred:\n  | b" in shown


def test_a_rubric_without_criteria_names_both_ways_to_give_them(pairs, tmp_path):
    options = ["--run", tmp_path / "run", "--judge", "scripted", "--protocol", "rubric"]
    done = command("score", pairs, *options)
    assert done.returncode == 3
    assert "give --criteria FILE for all rows, or name it: --map criteria=COLUMN" in done.stderr
