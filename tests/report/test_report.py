"""The report on a run: its numbers by hand, its page in a browser, texts that attack it."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.comparisons.importing import import_tables
from steelyard.report.content import ReportOptions, gather
from steelyard.report.page import render
from support.browser import contrast, opened
from support.helpers import command, pairs_table

HOSTILE = (
    "<script>window.attacked = 1</script>", "</script><script>window.attacked = 2</script>",
    "<img src=x onerror='window.attacked = 3'>", "{{ 7 * 7 }} {% raw %}", "<!-- ", "]]>",
    "\u202egnp.exe", "\x1b[31mred", "javascript:window.attacked=4", "'\"><svg onload=attacked=5>",
)  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Eight imported verdicts: four pairs of two instructions, both orders of a few."""
    table = pa.table(
        {
            "pair_id": list("abcdefgh"),
            "instruction": ["x"] * 4 + ["y"] * 4,
            "response_a": [f"first {i}" for i in range(8)],
            "response_b": [f"second {i}" for i in range(8)],
            "model_a": ["m"] * 8,
            "model_b": ["n"] * 8,
            "preference": [0.0, 0.02, 0.5, 0.51, 0.6, 0.97, 1.0, 0.999],
            "gold": ["B", "A", "A", "A", "B", "A", "A", "tie"],
        }
    )
    pq.write_table(table, tmp_path / "verdicts.parquet")
    assert import_tables([str(tmp_path / "verdicts.parquet")], tmp_path / "run") == 0
    return tmp_path / "run"


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A scored run of pairs with gold, and texts that attack a page everywhere."""
    folder = tmp_path_factory.mktemp("scored")
    rows = 60
    table = pairs_table(rows, instructions=20).to_pydict()
    for i in range(rows):
        text = HOSTILE[i % len(HOSTILE)]
        table["instruction"][i] = f"{table['instruction'][i]} {text}"
        table["response_a"][i] += text
        table["model_a"][i] += HOSTILE[i % 3]
    table["pair_id"] = [f"{i} {HOSTILE[i % len(HOSTILE)]}" for i in range(rows)]
    table["gold"] = ["A" if i % 2 else "B" for i in range(rows)]
    pq.write_table(pa.table(table), folder / "pairs.parquet")
    steelyard.score(folder / "pairs.parquet", run=folder / "run", judge="scripted:fail=0.1")
    return folder / "run"


def test_numbers_by_hand(run):
    content = gather(run, ReportOptions(replicates=0))
    verdicts = content["verdicts"]
    assert (verdicts["pairs"], verdicts["ok"], verdicts["a"], verdicts["b"]) == (8, 8, 5, 2)
    assert (verdicts["even"], verdicts["instructions"], verdicts["gold"]) == (1, 2, 8)
    bins = {row["bin"]: row["pairs"] for row in verdicts["histogram"]}
    assert bins == {0: 2, 10: 2, 12: 1, 19: 3}  # [0, 0.05), [0.5, 0.55), [0.6, 0.65), [0.95, 1]
    samples = {
        kind: [pair["pair_id"] for pair in pairs] for kind, pairs in content["samples"].items()
    }
    assert set(samples["most certain"][:2]) == {"a", "g"}
    assert samples["most certain"][2:5] == ["h", "b", "f"]
    assert samples["least certain"][:3] == ["c", "d", "e"]
    assert samples["against gold"] == ["b", "e"]  # 0.02 where gold says A, 0.6 where it says B
    assert "order flipped" not in samples  # an import has no orders
    texts = {pair["pair_id"]: pair["texts"] for pair in content["samples"]["any"]}
    assert texts["f"]["response_b"] == "second 5"
    assert texts["f"]["instruction"] == "y"
    ranked = [row["competitor"] for row in content["ranking"]["ranking"]]
    assert ranked == ["m", "n"]
    page = render(content)
    assert "second 5" in page
    assert "What the judge wrote" not in page


def test_parts_that_a_run_cannot_have_are_named(tmp_path):
    pq.write_table(pairs_table(9).select([0, 1, 2]), tmp_path / "pairs.parquet")
    steelyard.score(tmp_path / "pairs.parquet", run=tmp_path / "run", judge="scripted")
    content = gather(tmp_path / "run", ReportOptions())
    assert content["ranking"] is None
    assert content["evaluation"] is None
    assert set(content["left_out"]) == {"ranking", "evaluation"}
    (tmp_path / "pairs.parquet").unlink()
    content = gather(tmp_path / "run", ReportOptions())
    assert "texts" in content["left_out"]
    assert content["samples"]["any"]
    assert "Texts are not shown" in render(content)


def test_long_texts_are_cut(tmp_path):
    table = pairs_table(3).to_pydict()
    table["response_a"] = ["long " * 4000] * 3
    pq.write_table(pa.table(table), tmp_path / "pairs.parquet")
    steelyard.score(tmp_path / "pairs.parquet", run=tmp_path / "run", judge="scripted")
    content = gather(tmp_path / "run", ReportOptions())
    text = content["samples"]["any"][0]["texts"]["response_a"]
    assert text.startswith("long long")
    assert text.endswith("[14,000 more characters]")


def test_command(scored, tmp_path):
    out = tmp_path / "page.html"
    done = command("report", scored, "--out", out)
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    assert out.read_text("utf-8").startswith("<!doctype html>")
    assert out.stat().st_size < 10_000_000
    assert command("report", scored, "--out", out).returncode == 0  # replaces a report
    other = tmp_path / "notes.html"
    other.write_text("mine")
    refused = command("report", scored, "--out", other)
    assert refused.returncode == 2
    assert other.read_text() == "mine"
    printed = json.loads(command("report", scored, "--json").stdout)
    assert printed["verdicts"] == gather(scored, ReportOptions())["verdicts"]
    assert printed["verdicts"]["pairs"] == 60


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_in_a_browser(scored, tmp_path, dark):
    page_file = tmp_path / "report.html"
    page_file.write_text(render(gather(scored, ReportOptions())), "utf-8")
    with opened(page_file.as_uri(), dark=dark) as page:
        page.wait_for_selector("#chart-ratings svg")
        page.wait_for_selector("#chart-reliability svg")
        assert page.complaints == []
        assert page.requested == [page_file.as_uri()]  # nothing else is asked for
        assert page.evaluate("window.attacked") is None
        assert "<script>window.attacked = 1</script>" in page.inner_text("#pairs")
        assert contrast(page, "p, h1, h2, td, th, summary, .soft, .text, a") >= 4.5
        assert page.get_attribute("html", "lang") == "en"

        # Kinds of pairs by keyboard alone.
        first, second = page.locator("[role=tab]").all()[:2]
        first.focus()
        page.keyboard.press("ArrowRight")
        assert second.get_attribute("aria-selected") == "true"
        assert page.locator("#panel-2").is_visible()
        assert not page.locator("#panel-1").is_visible()
        shot = np.frombuffer(page.screenshot(full_page=True), np.uint8)
        assert len(shot) > 50_000
    with opened(page_file.as_uri(), dark=dark, width=380) as page:  # a telephone
        assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_a_calibrated_run_is_shown_by_its_calibrated_preference(tmp_path):
    draw = np.random.default_rng(0)
    preference = np.round(draw.uniform(0.3, 0.99, 60), 3)
    table = pa.table(
        {
            "pair_id": [f"p{i}" for i in range(60)],
            "instruction": [f"x{i}" for i in range(60)],
            "model_a": ["m"] * 60,
            "model_b": ["n"] * 60,
            "preference": preference,
            "gold": np.where(draw.random(60) < preference - 0.2, "A", "B"),
        }
    )
    pq.write_table(table, tmp_path / "verdicts.parquet")
    run, calibrator = tmp_path / "run", tmp_path / "c.json"
    assert import_tables([str(tmp_path / "verdicts.parquet")], run) == 0
    fitted = command("calibrate", "fit", run, "--method", "platt", "--out", calibrator)
    assert fitted.returncode == 0, fitted.stderr
    curve = json.loads(calibrator.read_text())["curve"]["coefficients"]
    assert command("calibrate", "apply", run, calibrator).returncode == 0
    content = gather(run, ReportOptions(replicates=0, samples=60))
    shown = {pair["pair_id"]: pair for pair in content["samples"]["any"]}
    calibrated = 0
    for i, raw in enumerate(preference.tolist()):
        logit = curve["logit"] * np.log(raw / (1 - raw)) + curve["intercept"]
        assert shown[f"p{i}"]["preference"] == pytest.approx(1 / (1 + np.exp(-logit)))
        assert shown[f"p{i}"]["raw_preference"] == pytest.approx(raw)
        calibrated += logit > 0
    assert content["verdicts"]["a"] == calibrated
    assert calibrated != (preference > 0.5).sum()
    assert {row["kind"] for row in content["verdicts"]["histogram"]} == {"raw", "calibrated"}
