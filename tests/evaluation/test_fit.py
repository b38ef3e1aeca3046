"""From gold to calibrated verdicts, by the commands: runs, tables, refusals."""

from __future__ import annotations

import json

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.calibrators.calibrator import COLUMNS, Calibrator
from steelyard.calibrators.features import Features
from steelyard.errors import CalibratorRefused, GoldRefused, IntegrityFault, RunLocked, UsageError
from steelyard.evaluation.apply import apply_calibrator
from steelyard.evaluation.evaluate import EvaluateOptions, evaluate_source
from steelyard.evaluation.fit import FitOptions, fit_calibrator
from steelyard.evaluation.judged_pairs import Source, describe_differences
from steelyard.statistics.logistic import logit, sigmoid
from steelyard.store.run_record import read_record
from steelyard.store.rundir import RunDir
from support.helpers import command, pairs_table
from support.trust_data import apply_in_numpy

TEMPERATURE, LENGTH = 2.5, 2.0


def score(place, rows=600, judge="scripted", **options):
    table = pairs_table(rows, instructions=120)
    draw = np.random.default_rng(0)
    for at, name in ((1, "response_a"), (2, "response_b")):
        longer = draw.integers(0, 200, rows).tolist()
        texts = [text + "!" * n for text, n in zip(table[name].to_pylist(), longer, strict=True)]
        table = table.set_column(at, name, pa.array(texts))
    table = table.append_column("pair_id", pa.array([f"p{i}" for i in range(rows)]))
    table = table.append_column("topic", pa.array([i % 120 for i in range(rows)]))
    pq.write_table(table, place / "pairs.parquet")
    return steelyard.score(place / "pairs.parquet", run=place / "run", judge=judge, **options)


def people(run, path, *, ties=False, seed=0):
    """Votes of people from whom this judge differs in temperature and length."""
    table = run.sql("SELECT * FROM verdicts WHERE status = 'ok' ORDER BY pair_id")
    draw = np.random.default_rng(seed)
    longer = table["length_a"].to_numpy().astype(np.float64) - table["length_b"].to_numpy()
    score = logit(table["raw_preference"].to_numpy())
    p = sigmoid((score - LENGTH * np.tanh(longer / longer.std())) / TEMPERATURE)
    a = draw.binomial(5, p)
    tie = draw.binomial(3, 0.5, len(p)) if ties else np.zeros(len(p), dtype=np.int64)
    topic = [one["topic"] for one in table["metadata"].to_pylist()]
    gold = {"pair_id": table["pair_id"], "votes_a": a, "votes_b": 5 - a, "votes_tie": tie}
    pq.write_table(pa.table({**gold, "instruction_id": topic}), path)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("calibration")


@pytest.fixture(scope="module")
def run(place):
    return score(place, judge="scripted:fail=0.005")


@pytest.fixture(scope="module")
def gold(place, run):
    return people(run, place / "gold.parquet", ties=True)


def test_the_scripted_judges_faults_are_found(tmp_path):
    run = score(tmp_path)
    gold = people(run, tmp_path / "gold.parquet")
    fitted = fit_calibrator(Source(run.root), gold, FitOptions()).calibrator
    assert fitted.method == "length"
    intervals = fitted.curve.intervals
    for name, truth in (("logit", 1 / TEMPERATURE), ("length", -LENGTH / TEMPERATURE)):
        assert intervals[name][0] <= truth <= intervals[name][1]
    position = fit_calibrator(Source(run.root), gold, FitOptions(method="position")).calibrator
    low, high = position.curve.intervals["first_position"]
    assert low <= 0 <= high  # this judge has no position bias
    assert fitted.tie is None


def columns(run):
    return run.sql('SELECT * FROM verdicts ORDER BY shard, "row"')


def test_verdicts_are_recomputed_and_raw_values_stay(place, run, gold, tmp_path):
    before = columns(run)
    assert before["calibrated_preference"].null_count == len(before)
    out = place / "c.json"
    done = command("calibrate", "fit", run.root, "--gold", gold, "--out", out, "--agreement", 0.6,
                   "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["calibrator"]["notes"]["candidates"]
    assert content["coverage_risk"]
    assert command("calibrate", "apply", run.root, out).returncode == 0
    applied, fitted = (
        json.loads(path.read_text()) for path in (run.root / "calibration.json", out)
    )
    of_run = {"run": read_record(RunDir(run.root)).run, "check": applied["check"]}
    assert applied == {**fitted, **of_run}
    after = columns(run)
    changed = {"winner", *COLUMNS}
    kept = [name for name in before.column_names if name not in changed]
    assert after.select(kept).equals(before.select(kept))
    made = Calibrator.from_json(out.read_text(), "test")
    ok = after.filter(pa.array([one == "ok" for one in after["status"].to_pylist()]))
    assert 0 < len(ok) < len(after)
    raw = {
        name: ok[name].to_numpy() for name in ("raw_preference", "preference_ab", "preference_ba")
    }
    longer = ok["length_a"].to_numpy().astype(np.float64) - ok["length_b"].to_numpy()
    reads = Features(*map(logit, raw.values()), longer)
    preference, tie, trusted = apply_in_numpy(made, reads)
    assert np.abs(ok["calibrated_preference"].to_numpy() - preference).max() < 1e-12
    assert np.abs(ok["calibrated_tie"].to_numpy() - tie).max() < 1e-12
    assert ok["trusted"].to_pylist() == trusted.tolist()
    errors = after.filter(pa.array([one != "ok" for one in after["status"].to_pylist()]))
    assert errors["calibrated_preference"].null_count == errors["trusted"].null_count == len(errors)
    # The hand-off file was compacted from the same definition; without it a query is live.
    database = run.root / "verdicts.duckdb"
    database.rename(tmp_path / "aside")
    live = columns(run)
    (tmp_path / "aside").rename(database)
    assert live.equals(after)
    shown = command("calibrate", "show", run.root)
    assert shown.stdout.startswith(f"method:       {made.method}")


def test_another_calibrator_takes_the_place_of_the_first(run, gold, tmp_path):
    for method in ("isotonic", "platt"):
        made = fit_calibrator(Source(run.root), gold, FitOptions(method=method)).calibrator
        (tmp_path / "c.json").write_text(made.to_json())
        apply_calibrator(Source(run.root), tmp_path / "c.json", None, force=False)
    assert command("compact", run.root, "--out", tmp_path / "new.duckdb").returncode == 0
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"ATTACH '{tmp_path / 'new.duckdb'}' AS a (READ_ONLY)")
        connection.execute(f"ATTACH '{run.root / 'verdicts.duckdb'}' AS b (READ_ONLY)")
        for table in ("verdicts", "run", "reads", "rejects"):
            for one, other in ("ab", "ba"):
                query = f"FROM {one}.{table} EXCEPT ALL FROM {other}.{table}"
                assert connection.execute(query).fetchall() == []
    left = {path.name for path in run.root.iterdir() if "tmp" in path.name or "spill" in path.name}
    assert not left


def test_evaluate_shows_raw_beside_calibrated(place, run, gold):
    if not (run.root / "calibration.json").exists():
        pytest.skip("needs the calibrated run of the test before")
    done = command("evaluate", run.root, "--gold", gold, "--by", "source", "--json",
                   "--replicates", 100)  # fmt: skip
    content = json.loads(done.stdout)
    raw, made = ({one["metric"]: one for one in content[kind]["metrics"]}
                 for kind in ("raw", "calibrated"))  # fmt: skip
    assert made["mse"]["value"] < raw["mse"]["value"]
    assert content["raw"]["instructions"] == 120
    change = {one["metric"]: one for one in content["change"]}
    assert change["vote_log_loss"]["high"] < 0
    assert {part["value"] for part in content["parts"]} == {f"s{i}" for i in range(5)}
    pairs = sum(part["raw"]["pairs"] for part in content["parts"])
    assert pairs == content["raw"]["pairs"]
    text = command("evaluate", run.root, "--gold", gold, "--replicates", 100).stdout
    assert "reliability, calibrated" in text
    assert "(0.4, 0.5]" in text


def test_a_calibrator_of_other_reads_is_refused_unless_forced(place, run, gold, tmp_path):
    other = score(tmp_path, rows=80, judge="scripted:seed=1")
    out = tmp_path / "c.json"
    made = fit_calibrator(Source(run.root), gold, FitOptions(method="platt")).calibrator
    out.write_text(made.to_json())
    done = command("calibrate", "apply", other.root, out)
    assert done.returncode == 3
    assert "fingerprint" in done.stderr
    assert not (other.root / "calibration.json").exists()
    assert command("calibrate", "apply", other.root, out, "--force").returncode == 0
    assert columns(other)["calibrated_preference"].null_count == 0


def test_each_part_of_the_binding_counts(run, gold):
    made = fit_calibrator(Source(run.root), gold, FitOptions(method="platt")).calibrator
    assert set(made.bound) == {"fingerprint", "judge", "protocol", "templates", "truncation"}
    for key in made.bound:
        words = describe_differences(made.bound, {**made.bound, key: "other"})
        assert words == f"{key}: {made.bound[key]} there, other here"
    assert describe_differences(made.bound, made.bound) == ""


def test_a_run_that_is_written_is_not_calibrated(place, run, gold):
    path = place / "locked.json"
    path.write_text(
        fit_calibrator(Source(run.root), gold, FitOptions(method="none")).calibrator.to_json()
    )
    with RunDir(run.root).lock(), pytest.raises(RunLocked):
        apply_calibrator(Source(run.root), path, None, force=False)


def test_a_damaged_calibration_is_named(tmp_path):
    run = score(tmp_path, rows=20)
    (run.root / "calibration.json").write_text("{}")
    with pytest.raises(IntegrityFault, match="not a calibrator"):
        columns(run)


def test_gold_of_other_pairs_is_refused_with_counts(run, tmp_path):
    pq.write_table(pa.table({"pair_id": ["q1", "q2"], "label": ["A", "B"]}), tmp_path / "g.parquet")
    done = command("evaluate", run.root, "--gold", tmp_path / "g.parquet")
    assert done.returncode == 3
    assert "none of 2 pair_ids in gold is among" in done.stderr
    assert "gold has q1" in done.stderr
    with pytest.raises(GoldRefused, match="none of"):
        evaluate_source(Source(run.root), None, EvaluateOptions())


def test_gold_of_the_shards_is_used_without_a_file(tmp_path):
    table = pairs_table(60).append_column("label", pa.array(["A", "B", "tie"] * 20))
    pq.write_table(table, tmp_path / "p.parquet")
    run = steelyard.score(tmp_path / "p.parquet", run=tmp_path / "run", judge="scripted")
    report = evaluate_source(Source(run.root), None, EvaluateOptions(replicates=0))
    assert report.whole.raw.pairs == 60


def test_too_little_gold_and_hard_decisions_are_refused(run, gold, tmp_path):
    table = pq.read_table(gold)
    pq.write_table(table.slice(0, 5), tmp_path / "few.parquet")
    with pytest.raises(CalibratorRefused, match="too few"):
        fit_calibrator(Source(run.root), tmp_path / "few.parquet", FitOptions())
    hard = pa.table({"pair_id": table["pair_id"], "winner": ["a"] * len(table)})
    pq.write_table(hard, tmp_path / "hard.parquet")
    with pytest.raises(CalibratorRefused, match="decisions without probabilities"):
        fit_calibrator(Source(tmp_path / "hard.parquet"), gold, FitOptions())


def test_pairs_without_content_have_to_be_of_the_same_judge(run, gold, tmp_path):
    (tmp_path / "same").mkdir()
    (tmp_path / "other").mkdir()
    same = score(tmp_path / "same", rows=20, judge="scripted:fail=0.005")
    options = FitOptions(method="contextual", content_free=same.root)
    assert fit_calibrator(Source(run.root), gold, options).calibrator.method == "contextual"
    other = score(tmp_path / "other", rows=20, judge="scripted:seed=1")
    options = FitOptions(method="contextual", content_free=other.root)
    with pytest.raises(CalibratorRefused, match=r"judged differently \(fingerprint"):
        fit_calibrator(Source(run.root), gold, options)


@pytest.mark.parametrize(
    "options",
    [{"method": "magic"}, {"agreement": 1.0}, {"confidence": 0.0}, {"method": "contextual"}],
    ids=str,
)
def test_options_out_of_range_are_refused(run, gold, options):
    with pytest.raises(UsageError):
        fit_calibrator(Source(run.root), gold, FitOptions(**options))
