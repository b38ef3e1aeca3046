"""A run directory from a stranger: no text or number of its records becomes a statement.

Every value of run.json, plan.json and calibration.json is replaced by SQL, by odd numbers and by
values of other types. The run is then refused, or gives the results that it gave before.

Kind of fault: SQL from a stranger's records.
"""

import copy
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.linear import Linear
from steelyard.calibrators.piecewise import Histogram, PiecewiseLinear
from steelyard.core.sealed import CHECK
from steelyard.errors import SteelyardError
from steelyard.store.calibration import save_calibrator
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import handoff, user_queries
from support.helpers import pairs_table

CLEAN = {2, 3, 6}  # exit codes of refusals
RESULTS = """
SELECT (SELECT list(v ORDER BY pair_id) FROM (SELECT * EXCLUDE (judge, protocol) FROM verdicts) v),
  (SELECT list(a ORDER BY prompt_key, pair_id)
   FROM (SELECT * EXCLUDE (judge, protocol, criterion) FROM answers) a)"""
NUMBERS = (-1, 0, 10**30, -0.5, 1e300, True, None, [], {}, ["x"], {"x": "y"})


def payloads(outside):
    write = f"COPY (SELECT content FROM read_text('{outside}/secret')) TO '{outside}/owned'"
    return (
        f"'); {write}; --",
        f'"; {write}; /*',
        f"1 FROM (SELECT 1)) v; {write}; SELECT $q$ $q$; --",
        "\n\0'\x1b\u202e\ud800;",
    )


def leaves(value, path=()):
    """Paths of all values that are no list or object; of a list, of its first element."""
    if isinstance(value, dict):
        for key in value:
            if key not in {"templates", "config", "machine"}:  # they never reach SQL
                yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        yield from leaves(value[0], (*path, 0)) if value else ()
    else:
        yield path


def replaced(content, path, value):
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("hostile")
    (place / "secret").write_text("SECRET")
    (place / "criteria.json").write_text('{"criteria": [{"text": "good", "weight": 2}, "short"]}')
    pq.write_table(pairs_table(6), place / "pairs.parquet")
    pq.write_table(
        pa.table({"model_a": ["a"] * 3, "model_b": ["b"] * 3, "preference": [0.1, 0.6, 1.0]}),
        place / "table.parquet",
    )
    return place


@pytest.fixture(scope="module")
def run(place):
    steelyard.score(
        place / "pairs.parquet",
        run=place / "run",
        judge="scripted",
        protocol="rubric",
        criteria=str(place / "criteria.json"),
    )
    run = RunDir(place / "run")
    run.database.unlink()
    return run


def results(run, out):
    """The results of a run, live and from a new database; an exit code if it is refused."""
    try:
        live = user_queries.query(RunSnapshot.take(run.root), RESULTS).to_pylist()
        out.unlink(missing_ok=True)
        handoff.compact(RunSnapshot.take(run.root), out)
    except SteelyardError as error:
        return error.exit_code
    return live


def check(run, file, mutations, unchanged=()):
    """Write each mutation of a file, and look at what comes of it."""
    place, out = run.root.parent, run.root.parent / "out.duckdb"
    before = results(run, out)
    assert isinstance(before, list)
    whole = file.read_bytes()
    content = json.loads(whole)
    content.pop(CHECK, None)
    names = set(place.iterdir())
    try:
        for path, value in mutations(content):
            file.write_text(json.dumps(replaced(content, path, value)))
            after = results(run, out)
            if not isinstance(after, int):
                assert after == before or path in unchanged, (path, value)
                assert b"SECRET" not in out.read_bytes()
            else:
                assert after in CLEAN, (path, value)
            assert set(place.iterdir()) | {out} == names | {out}, (path, value)
    finally:
        file.write_bytes(whole)


def texts_of(outside):
    def mutations(content):
        for path in leaves(content):
            for payload in payloads(outside):
                yield path, payload

    return mutations


def test_texts_in_run_json_are_never_statements(run, place):
    check(run, run.record_file, texts_of(place))


def test_texts_in_plan_json_are_never_statements(run, place):
    check(run, run.plan / "plan.json", texts_of(place))


def test_numbers_in_run_json_are_refused_or_without_effect(run):
    def mutations(content):
        for path in leaves({"inquiry": content["inquiry"]}):
            for number in NUMBERS:
                yield path, number

    # What follows from these two is checked by the file's own check alone.
    free = {("inquiry", "questions", "row_criteria"), ("inquiry", "protocols", 0, "tie_band")}
    check(run, run.record_file, mutations, free)


CURVES = (
    Linear({"logit": 1.5, "length": 0.1}, {"logit": (1.0, 2.0)}, {"length_scale": 2.0}),
    PiecewiseLinear((-1.0, 0.0, 1.0), (0.1, 0.5, 0.9)),
    Histogram((0.0,), (0.2, 0.8)),
)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: type(curve).__name__)
def test_texts_in_calibration_json_are_never_statements(run, place, curve):
    notes = {"pairs": 3, "votes": 3.0, "instructions": 3}
    made = Calibrator("platt", curve, 0.5, bound={"judge": "x"}, notes=notes)
    save_calibrator(run.calibration, made)
    try:
        check(run, run.calibration, texts_of(place))
    finally:
        run.calibration.unlink()


def test_texts_of_an_imported_run_are_never_statements(place):
    from steelyard.comparisons.importing import import_tables

    import_tables([str(place / "table.parquet")], place / "imported", judge="people")
    run = RunDir(place / "imported")
    run.database.unlink()
    file, out = run.record_file, place / "imported.duckdb"
    whole, names = file.read_bytes(), {*place.iterdir(), out}
    content = json.loads(whole)
    content.pop(CHECK)
    for path, payload in texts_of(place)(content):
        file.write_text(json.dumps(replaced(content, path, payload)))
        try:
            snapshot = RunSnapshot.take(run.root)
            assert len(user_queries.query(snapshot, "FROM verdicts")) == 3
            handoff.compact(snapshot, out)
        except SteelyardError as error:
            assert error.exit_code in CLEAN, (path, payload)  # noqa: PT017
        assert {*place.iterdir(), out} == names, (path, payload)
    shutil.rmtree(run.root)
