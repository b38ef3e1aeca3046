"""Runs of an earlier version are read, finished, calibrated and exported with the same results.

What the earlier version wrote and said is in `golden/`; `golden/make.py` says how it was made.
"""

import json
import shutil
import subprocess
import sys
from datetime import datetime, timedelta

import pyarrow.parquet as pq
import pytest

import steelyard
from support import golden
from support.golden import CALIBRATED, EXPECTED, GOLDEN, HANDOFF, INPUT, INTERRUPTED, OUT, RUN

EXACT = 1e-12  # verdicts
CLOSE = 1e-8  # statistics, which have other last digits on other machines
# What changed on purpose since: by the command that answers, keys at any depth.
CHANGED = {
    # Wilson's intervals; no rate at equal length from five rows of two competitors.
    "winrate": frozenset(
        {"lower", "upper", "difficulty", "warnings", "length_controlled", "style_controlled"}
    ),
    # The same intervals; verbosity over the root mean square of differences.
    "bias": frozenset(
        {"lower", "upper", "coefficient", "standard_error", "longer_at_equal_strength", "warnings"}
    ),
    "evaluate": frozenset({"low", "high", "notes"}),  # the same intervals
    "fit": frozenset({"intervals"}),  # CR2 with Student's t
    # The same, and Romano-Wolf in place of Holm.
    "rank": frozenset({"lower", "upper", "standard_error", "p_value", "warnings"}),
}
RECORDED = (*golden.RUNS, CALIBRATED)
OF_WINNERS = ("leaderboard", "win_matrix", "length_bias")  # views of the preference
# Of selected pairs, the earlier version gave probabilities that selection had raised.
SELECTED, SHRUNK = ("reward", "sft"), {"probability", "margin"}
AUTO = "fit auto"  # draws fits to the judge's preferences, and did not
FINISHED = [name for name in RECORDED if name not in INTERRUPTED]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return golden.copy_input(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, inputs):
    """All golden runs as they were left, but the interrupted ones finished; not to be changed."""
    folder = tmp_path_factory.mktemp("golden-runs")
    runs = {name: golden.copy_run(name, folder / name, inputs) for name in RECORDED}
    for name in INTERRUPTED:
        golden.call(f"resume {RUN} --quiet", {RUN: runs[name]})
    return runs


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The tables of every run as the earlier version wrote them into the hand-off file."""
    folder = tmp_path_factory.mktemp("golden-tables")
    files = {name: GOLDEN / name / f"{HANDOFF}.xz" for name in FINISHED}
    files |= {name: EXPECTED / f"{name}.duckdb.xz" for name in INTERRUPTED}
    return {name: golden.read_handoff(file, folder) for name, file in files.items()}


def recorded(name):
    return json.loads((EXPECTED / f"{name}.json").read_text("utf-8"))


def fresh(name, command, folder, inputs):
    """Make a run anew; the folders of its command."""
    folders = {RUN: folder / name, INPUT: inputs}
    golden.call(command, folders)
    return folders


def read_file(path):
    """The schema and the rows of a Parquet file; of a part, without the times of reading."""
    table = pq.read_table(path)
    kept = [name for name in table.column_names if name != "read_at"]
    return table.schema, golden.without_prose(table.select(kept).to_pylist())


def assert_same_file(path, old):
    (schema, rows), (old_schema, old_rows) = read_file(path), read_file(old)
    assert schema.equals(old_schema, check_metadata=True), path
    golden.assert_close(rows, old_rows, EXACT, path.name)


def assert_same_tables(name, run, old):
    """Hold a run's tables to the old ones.

    Winners and views of a calibrated run were those of raw preferences.
    """
    if name == CALIBRATED:
        old = {table: content for table, content in old.items() if table not in OF_WINNERS}
        old["verdicts"] = golden.renamed(old["verdicts"], "winner", "raw_winner")
    golden.assert_close(golden.read_run(run, old), old, EXACT)


@pytest.mark.parametrize("name", [name for name in FINISHED if name != CALIBRATED])
def test_an_old_hand_off_file_is_taken_as_it_is(name, runs, tables):
    before = (runs[name] / HANDOFF).read_bytes()
    golden.assert_close(golden.read_run(runs[name], tables[name]), tables[name], EXACT)
    assert (runs[name] / HANDOFF).read_bytes() == before
    made_where = "SELECT count(*) AS n FROM run WHERE contains(value, '/steelyard-golden/')"
    assert steelyard.open_run(runs[name]).sql(made_where)["n"][0].as_py() > 0


@pytest.mark.parametrize("name", FINISHED)
def test_old_parts_make_the_old_tables(name, runs, tables, tmp_path):
    """Live, and in a hand-off file that is written anew."""
    run = shutil.copytree(runs[name], tmp_path / name)
    (run / HANDOFF).unlink()
    assert_same_tables(name, run, tables[name])
    golden.call(f"compact {RUN}", {RUN: run})
    assert (run / HANDOFF).exists()
    assert_same_tables(name, run, tables[name])


def test_an_old_calibrated_hand_off_file_is_not_taken(runs, tables):
    """Its winners are raw: the old parts make the tables instead."""
    before = (runs[CALIBRATED] / HANDOFF).read_bytes()
    assert_same_tables(CALIBRATED, runs[CALIBRATED], tables[CALIBRATED])
    assert (runs[CALIBRATED] / HANDOFF).read_bytes() == before


@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_interrupted_run_is_finished(name, runs, tables):
    golden.assert_close(golden.read_run(runs[name], tables[name]), tables[name], EXACT)
    kept = sorted((GOLDEN / name / "reads").iterdir())
    assert [(runs[name] / "reads" / path.name).read_bytes() for path in kept] == [
        path.read_bytes() for path in kept
    ]
    assert len(kept) < len(list((runs[name] / "reads").iterdir()))


@pytest.mark.parametrize("name", INTERRUPTED)
def test_the_command_that_began_a_run_goes_on_with_it(name, inputs, tables, tmp_path):
    run = golden.copy_run(name, tmp_path / name, inputs)
    before = (run / "run.json").read_bytes()
    golden.call(golden.RUNS[name], {RUN: run, INPUT: inputs})
    golden.assert_close(golden.read_run(run, tables[name]), tables[name], EXACT)
    assert (run / "run.json").read_bytes() == before


def test_the_program_resumes_an_old_run(inputs, tmp_path):
    run = golden.copy_run("grouped", tmp_path / "run", inputs)
    command = [sys.executable, "-m", "steelyard", "resume", str(run), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout)["state"] == "complete"


@pytest.mark.parametrize(
    ("name", "question"),
    [
        (x, question)
        for x, asked in golden.QUESTIONS.items()
        for question in asked
        if question != AUTO
    ],
)
def test_questions_have_the_old_answers(name, question, runs, inputs, tmp_path):
    folders = {RUN: runs[name], INPUT: inputs, OUT: tmp_path}
    answer = golden.ask(golden.QUESTIONS[name][question], folders)
    old = recorded(name)[question]
    if question.startswith("winrate"):  # sorted by raw rates where one has none at equal length
        for content in (answer, old):
            content["win_rates"].sort(key=lambda rate: rate["competitor"])
    changed = CHANGED.get(question.split()[0], frozenset())
    golden.assert_close(
        golden.without_keys(answer, changed), golden.without_keys(old, changed), CLOSE
    )


@pytest.mark.parametrize("live", [False, True])
def test_a_calibrator_is_applied(live, runs, tables, tmp_path):
    """To an old hand-off file, and where there is none."""
    run = shutil.copytree(runs["complete"], tmp_path / "run")
    if live:
        (run / HANDOFF).unlink()
    calibrator = GOLDEN / CALIBRATED / "calibration.json"
    golden.call(f"calibrate apply {RUN} {calibrator}", {RUN: run})
    assert_same_tables(CALIBRATED, run, tables[CALIBRATED])
    applied, given = (json.loads(x.read_bytes()) for x in (run / "calibration.json", calibrator))
    of_run = {"run": applied["run"], "check": applied["check"]}
    golden.assert_close(applied, {**given, **of_run}, 0.0)


@pytest.mark.parametrize("name", golden.EXPORTS)
def test_datasets_have_the_old_rows(name, runs, inputs, tmp_path):
    folders = {RUN: runs[CALIBRATED], INPUT: inputs, OUT: tmp_path / "dataset"}
    dataset = golden.export(golden.EXPORTS[name], folders)
    packed = golden.unpack(EXPECTED / "datasets.json.xz", tmp_path)
    old = json.loads(packed.read_text("utf-8"))[name]
    if name in SELECTED:
        dataset, old = (golden.without(values, SHRUNK) for values in (dataset, old))
    golden.assert_close(dataset, old, CLOSE)


@pytest.mark.parametrize("name", golden.RUNS)
def test_a_new_run_is_written_as_the_old_one(name, inputs, tables, tmp_path):
    folders = fresh(name, golden.RUNS[name], tmp_path, inputs)
    run, old = folders[RUN], GOLDEN / name
    record = golden.marked((run / "run.json").read_text("utf-8"), folders)
    assert record == golden.format_record(json.loads(record))
    assert golden.masked_record(record) == golden.masked_record(
        (old / "run.json").read_text("utf-8")
    )
    rows = {
        key: tables[name][key] for key in ("verdicts", "answers", "reads") if key in tables[name]
    }
    golden.assert_close(golden.read_run(run, rows), rows, EXACT)
    if name == "imported":
        return
    manifest = (run / "plan/plan.json").read_text("utf-8")
    assert manifest == json.dumps(json.loads(manifest), indent=1) + "\n"
    old_manifest = (old / "plan/plan.json").read_text("utf-8")
    assert golden.masked_manifest(manifest) == golden.masked_manifest(old_manifest)
    for file in json.loads(manifest)["files"]:
        assert_same_file(run / file, old / file)


@pytest.mark.parametrize("name", ["complete", "rubric"])
def test_new_parts_and_journals_are_written_as_old_ones(name, inputs, tmp_path):
    run, old = fresh(name, golden.RUNS[name], tmp_path, inputs)[RUN], GOLDEN / name
    journal, old_journal = ((x / "journal.jsonl").read_text("utf-8") for x in (run, old))
    assert golden.masked_journal(journal) == golden.masked_journal(old_journal)
    for line in journal.splitlines():
        part = json.loads(line)["part"]
        assert datetime.fromisoformat(part["at"]).utcoffset() == timedelta(0)
        assert_same_file(run / part["name"], old / part["name"])


@pytest.mark.parametrize("name", golden.PROMPTS)
def test_records_and_prompt_keys_are_the_old_ones(name, inputs, tmp_path):
    folders = fresh(name, golden.PROMPTS[name], tmp_path, inputs)
    record = name not in golden.BUILTIN
    summary = golden.summarise_prompts(folders[RUN], folders, record=record)
    golden.assert_close(summary, recorded("prompts")[name], CLOSE)


@pytest.mark.parametrize("name", ["complete", "rubric"])
def test_reads_of_an_old_run_are_reused(name, runs, inputs, tables, tmp_path):
    command = f"{golden.RUNS[name]} --reuse {runs[name]}"
    run = fresh(name, command, tmp_path, inputs)[RUN]
    status = json.loads(golden.call(f"status {RUN} --json", {RUN: run}))["prompts"]
    good = [row for row in tables[name]["reads"]["rows"] if row["status"] == "ok"]
    assert status["reused"] == len(good) > 0
    rows = {"verdicts": tables[name]["verdicts"]}
    golden.assert_close(golden.read_run(run, rows), rows, EXACT)
