"""The Python API returns what commands print, as attributes, as frames and as harmless HTML."""

from __future__ import annotations

import json
import sys

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.comparisons.importing import import_tables
from steelyard.errors import EnvironmentFault, UsageError
from support.helpers import command, pairs_table

HOSTILE = "<script>alert(1)</script>\x1b[31m"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """12 pairs of two competitors, of which `m` wins three quarters; gold contradicts three."""
    place = tmp_path_factory.mktemp("api")
    preference = [0.9, 0.8, 0.7, 0.1] * 3
    table = pa.table(
        {
            "pair_id": [f"p{n}" for n in range(12)],
            "instruction": [f"question {n // 2}" for n in range(12)],
            "response_a": ["a"] * 11 + [HOSTILE],
            "response_b": ["bb"] * 12,
            "model_a": ["m"] * 12,
            "model_b": [HOSTILE] * 12,
            "preference": preference,
            "gold": ["A", "A", "B", "B"] * 3,
        }
    )
    pq.write_table(table, place / "t.parquet")
    assert import_tables([str(place / "t.parquet")], place / "run") == 0
    return steelyard.open_run(place / "run")


def printed(*arguments):
    done = command(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def missing(whole, part):
    """Return what of JSON `whole` is not in `part`, which may have more keys."""
    if isinstance(whole, dict):
        return [f"{k}: {m}" for k, v in whole.items() for m in missing(v, part.get(k, "absent"))]
    if isinstance(whole, list):
        pairs = zip(whole, part, strict=True)
        return [m for w, p in pairs for m in missing(w, p)]
    return [] if whole == part else [f"{whole!r} is {part!r}"]


def test_results_hold_all_that_commands_print(run):
    for result, arguments in (
        (run.rank(gold=True), ("rank", run.root, "--gold")),
        (
            run.rank(method="elo", shuffles=3),
            ("rank", run.root, "--method", "elo", "--shuffles", 3),
        ),
        (run.winrate("m", gold=True), ("winrate", run.root, "--baseline", "m", "--gold")),
        (run.bias(), ("bias", run.root)),
        (run.evaluate(replicates=50), ("evaluate", run.root, "--replicates", 50)),
    ):
        values = json.loads(json.dumps(result.to_json()))
        content = {k: v for k, v in printed(*arguments).items() if k != "value"}  # of parts alone
        assert not missing(content, values), arguments


def test_values_by_hand(run):
    ranking = run.rank()
    assert [(row.competitor, row.comparisons) for row in ranking.ranking] == [
        ("m", 12),
        (HOSTILE, 12),
    ]
    assert ranking.ranking[0].average_win_rate == pytest.approx((0.9 + 0.8 + 0.7 + 0.1) / 4)
    assert run.winrate(HOSTILE).win_rates[0].discrete_win_rate == 0.75
    assert run.evaluate().raw["agreement"].value == pytest.approx(9 / 12)
    assert run.show("p3").kinds["named"][0].winner == "b"
    with pytest.raises(KeyError):
        run.evaluate().raw["nonsense"]


def test_results_cannot_be_changed(run):
    with pytest.raises(AttributeError):
        run.rank().method = "elo"
    with pytest.raises(AttributeError):
        run.rank().ranking[0].rank = 3


def test_frames(run):
    frame = run.to_pandas("SELECT pair_id, raw_preference AS p FROM verdicts ORDER BY p LIMIT 1")
    assert frame.to_dict("records") == [{"pair_id": "p11", "p": 0.1}] or frame["p"][0] == 0.1
    assert len(run.to_pandas()) == len(run.to_polars()) == 12
    assert run.rank().to_polars()["competitor"][0] == "m"
    assert "corrected_rating" not in run.rank().to_pandas()
    assert "corrected_rating" in run.rank(gold=True).to_pandas()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_library_that_is_not_installed_is_named(run, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(EnvironmentFault, match=f"{library} is not installed"):
        getattr(run, f"to_{library}")()


def test_html_shows_data_and_does_nothing_else(run):
    for result in (run.rank(), run.winrate("m"), run.show("p11")):
        page = result._repr_html_()
        assert "<script" not in page
        assert "\x1b" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m" in page
    assert "<td>complete</td>" in run._repr_html_()


def test_long_tables_are_cut_and_say_so(run):
    from steelyard.api.frames import MOST_ROWS, html_table

    page = html_table([{"n": n} for n in range(MOST_ROWS + 3)], "numbers")
    assert page.count("<tr>") == MOST_ROWS + 1
    assert "<p>3 more rows</p>" in page


def test_calibrating_changes_what_is_read(tmp_path):
    table = pairs_table(80).append_column("gold", pa.array(["A", "B"] * 40))
    pq.write_table(table, tmp_path / "p.parquet")
    run = steelyard.score(tmp_path / "p.parquet", run=tmp_path / "run", judge="scripted")
    assert run.rank().preference == "raw_preference"
    done = run.calibrate(out=tmp_path / "c.json", method="platt")
    assert (done.calibrator.method, done.pairs) == ("platt", 80)
    assert printed("calibrate", "show", tmp_path / "c.json")["method"] == "platt"
    assert run.rank().preference == "calibrated_preference"
    assert run.evaluate().calibrated.pairs == 80


def test_texts_that_are_gone_are_a_note(tmp_path):
    pq.write_table(pairs_table(5), tmp_path / "p.parquet")
    run = steelyard.score(tmp_path / "p.parquet", run=tmp_path / "run", judge="scripted")
    (tmp_path / "p.parquet").unlink()
    shown = run.show(any=2)
    assert len(shown.kinds["any"]) == 2
    assert "texts are not shown" in shown.notes[0]
    assert shown.kinds["any"][0].texts == {}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: run.rank(methd="elo"), "unknown key 'methd'"),
        (lambda run: run.rank(method="nope"), "there is no nope"),
        (lambda run: run.evaluate(replicates="many"), "an option has the wrong type"),
        (lambda run: run.show("p1", any=2), "pairs and kinds of pairs are named"),
        (lambda run: run.show(most_sertain=2), "unknown key 'most_sertain'"),
        (lambda run: run.winrate("nobody"), "no comparison involves nobody"),
    ],
)
def test_wrong_arguments(run, call, words):
    with pytest.raises(UsageError, match=words):
        call(run)


def test_progress_is_quiet_outside_of_notebooks(tmp_path, capsys):
    pq.write_table(pairs_table(5), tmp_path / "p.parquet")
    steelyard.score(tmp_path / "p.parquet", run=tmp_path / "a", judge="scripted")
    assert capsys.readouterr().err == ""
    steelyard.score(tmp_path / "p.parquet", run=tmp_path / "b", judge="scripted", quiet=False)
    assert "planned 5 pairs" in capsys.readouterr().err


def test_every_result_has_a_docstring():
    from steelyard.api import comparisons, results

    for module in (comparisons, results):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                assert kind.__doc__
