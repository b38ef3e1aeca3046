"""Every benchmark runs at its smoke size and audits itself, so that none rots.

In this process: importing vLLM for each would take as long as all of their engines.
"""

import json
import os
import runpy
import sys

import pytest

from support.helpers import ROOT, data_file

FOLDER = ROOT / "benchmarks"
EMBEDDED = ("host", "tokens")  # their smoke sizes have its tokenizer
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "run")


def test_none_is_called_kernels():
    """transformers would take it for a package of that name (docs/decisions/0001)."""
    assert not (FOLDER / "kernels.py").exists()


def test_make_bench_runs_them_all():
    listed = (FOLDER / "run.py").read_text("utf-8").split("NAMES = (")[1].split(")")[0]
    assert sorted(name.strip(' \n"') for name in listed.split(",") if name.strip()) == NAMES


@pytest.fixture
def as_script(monkeypatch):
    """The surroundings of a script in the folder of the benchmarks; all is put back."""
    before = dict(os.environ)
    monkeypatch.syspath_prepend(FOLDER)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("as_script")
@pytest.mark.parametrize("name", NAMES)
def test_smoke(name, tmp_path, monkeypatch, request):
    if name in EMBEDDED:
        request.getfixturevalue("embedded_judge")
    if name == "trust":
        data_file("labelled/judgebench_judges.parquet")
    target = tmp_path / "result.json"
    script = str(FOLDER / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [script, "--smoke", "--json", str(target)])
    assert exit_code(script) in {None, 0}
    result = json.loads(target.read_text("utf-8"))
    assert result["rows"]
    assert result["commit"]
    AUDITS.get(name, lambda rows: None)(result["rows"])


def exit_code(script):
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return end.code
    return None


def soak(rows):
    (row,) = rows
    assert row["kills"] == 25
    assert (row["lost"], row["duplicated"], row["altered"], row["errors"]) == (0, 0, 0, 0)
    assert row["queries"] > 0


def bitflips(rows):
    """Every kind of file was tried, and no changed bit was taken for a result."""
    kinds = {row["file"]: row for row in rows}
    assert {"run.json", "plan/plan.json", "journal.jsonl", "complete.json", "calibration.json",
            "telemetry.jsonl", "verdicts.duckdb", "reads/part-*.parquet"} <= set(kinds)  # fmt: skip
    for name, row in kinds.items():
        assert row["violation"] == 0
        assert row["found"] + row["without effect"] == row["flips"] > 0
        if name.endswith(".json"):
            assert row["found"] == row["flips"]


def hostile(rows):
    assert {"links", "hard links", "records"} <= {row["kind"] for row in rows}
    for row in rows:
        assert row["violations"] == 0
        assert row["commands"] == 6 * row["cases"] > 0
        assert row["refused"] > 0


def simulate(rows):
    """Many kinds of faults, none of which cost anything; nothing is left of what it was made of."""
    whole, *kinds = rows
    assert (whole["fault"], whole["seeds"], whole["violations"]) == ("all", 40, 0)
    assert whole["steps"] > 20_000
    assert sum(row["times"] for row in kinds if row["fault"].startswith("error: ")) >= 10
    assert {"kill", "full", "short", "ended: DiskFull"} <= {row["fault"] for row in kinds}


def same_work(rows, *, tokens=0.01):
    """All tools weigh the same pairs, and Steelyard computes the least."""
    ours, *others = rows
    assert others
    assert ours["computed"] == ours["oracle"]
    for row in others:
        if row["oracle"]:  # in the order of the shards, under eviction
            assert row["computed"] == pytest.approx(row["oracle"], rel=0.005)
    for row in others:
        assert row["verdicts"] == ours["verdicts"] > 0
        assert row["logical"] == pytest.approx(ours["logical"], rel=tokens)
        assert ours["computed"] <= row["computed"]
        assert ours["computed"] < ours["logical"]
        assert 0 < row["hit_rate"] < 1 or row["tool"] == "choices"


def overlap(rows):
    """Copies cost the engine nothing; to a naive script they are rows like others."""
    without, copies, naive = rows
    assert copies["verdicts"] > without["verdicts"]
    assert copies["logical"] > without["logical"]
    assert copies["computed"] == without["computed"]
    same_work([copies, naive])


def rubric(rows):
    same_work(rows, tokens=0.05)  # criterion-first is worded in a few tokens more
    ours, first, last = rows
    assert ours["verdicts"] == 5 * 3
    assert ours["computed"] <= last["computed"] < first["computed"]


def overhead(rows):
    """The bare engine was given what Steelyard gave it."""
    ours, bare = rows
    assert ours["computed"] == bare["computed"] > 0
    assert 0 <= ours["idle"] < 1


def exactness(rows):
    assert rows[0]["pass"] == "prefix order"
    assert rows[2]["computed"] > max(row["computed"] for row in (rows[0], rows[1], rows[3]))
    for row in rows:
        assert row["prompts_max"] <= 1e-4
        assert row["flips"] == 0


def sharing(rows):
    plain, copies = ([r for r in rows if r["workload"] == f"tournament k=4{more}"]
                     for more in ("", ", 30% copies"))  # fmt: skip
    for row in rows:
        assert row["floor"] <= row["block_floor"] <= row["computed"] <= row["naive"]
        assert row["computed"] <= row["unique"] <= row["logical"]
    for one, other in zip(plain, copies, strict=True):
        assert one["computed"] == other["computed"]
        assert one["logical"] < other["logical"]


def limits(rows):
    """The limits of a step change what is computed at once, not what is computed."""
    assert len({row["computed"] for row in rows}) == 1
    assert len({(row["step_tokens"], row["step_prompts"]) for row in rows}) == len(rows) > 1


def ratings(rows):
    """All tools find the same ratings, and intervals by instruction hold the truth."""
    for row in rows:
        if row["what"] in {"ratings, exact", "ratings of summed points"}:
            assert row["difference"] < 1e-3
    held = {row["tool"]: float(row["coverage"]) for row in rows if row["coverage"]}
    assert held["cluster intervals"] > 0.85


def calibration(rows):
    assert all(row["rows"] == rows[0]["rows"] > 0 for row in rows)
    assert len(rows) == 5


def trust(rows):
    assert len(rows) == 6  # three reward models, two metrics
    assert all(0 <= row["share"] <= 1 for row in rows)


def export(rows):
    imported, *exports = rows
    assert imported["rows"] > 0
    assert all(0 < row["rows"] <= 2 * imported["rows"] for row in exports)


def protocols(rows):
    """Every protocol judged every pair; a rubric's criteria share their response."""
    by_name = {row["protocol"]: row for row in rows}
    assert len(by_name) == len(rows) >= 12
    assert all(row["computed_a_pair"] <= row["logical_a_pair"] for row in rows)
    assert by_name["rubric"]["computed_a_pair"] < by_name["rubric"]["logical_a_pair"] / 3
    assert by_name["two-scores"]["written_a_pair"] > by_name["pairwise"]["written_a_pair"] == 0


def gpu(rows):
    same_work(rows[:2])
    same_work(rows[2:])
    assert all(row["mfu"] > 0 for row in rows)


AUDITS = {
    "bitflips": bitflips,
    "hostile": hostile,
    "calibration": calibration,
    "exactness": exactness,
    "export": export,
    "gpu": gpu,
    "limits": limits,
    "overhead": overhead,
    "overlap": overlap,
    "protocols": protocols,
    "ratings": ratings,
    "rubric": rubric,
    "sharing": sharing,
    "simulate": simulate,
    "soak": soak,
    "tournament": same_work,
    "trust": trust,
    "versus": same_work,
}
