"""run.json: what it says is read back whole, damage is told from what a later version added."""

from __future__ import annotations

import json
import platform
import re
import uuid
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.comparisons.importing import import_tables
from steelyard.core.sealed import seal
from steelyard.core.version import __version__
from steelyard.errors import IntegrityFault, UsageError
from steelyard.input.discover import Source
from steelyard.store.run_record import (
    ImportedRecord,
    ScoredRecord,
    common_fields,
    read_content,
    read_record,
    read_scored_record,
    write_record,
)
from steelyard.store.rundir import RunDir
from support.helpers import ROOT, write_pairs

VERDICTS = {
    "instruction": ["why?"], "response_a": ["so"], "response_b": ["thus"],
    "model_a": ["x"], "model_b": ["y"], "preference": [0.75],
}  # fmt: skip


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    place = tmp_path_factory.mktemp("scored")
    write_pairs(place / "pairs.parquet", 8)
    steelyard.score(place / "pairs.parquet", run=place / "run", judge="scripted")
    return place / "run"


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    place = tmp_path_factory.mktemp("imported")
    pq.write_table(pa.table(VERDICTS), place / "verdicts.parquet")
    import_tables([str(place / "verdicts.parquet")], place / "run", judge="people")
    return place / "run"


@pytest.fixture
def changed(scored, tmp_path):
    """A copy of the run whose record can be edited."""

    def change(edit):
        content = json.loads((scored / "run.json").read_text())
        edit(content)
        del content["check"]
        (tmp_path / "run.json").write_bytes(seal(content))
        return RunDir(tmp_path)

    return change


@pytest.mark.parametrize(("name", "kind"), [("scored", ScoredRecord), ("imported", ImportedRecord)])
def test_a_record_is_read_back_whole(name, kind, request, tmp_path):
    run = request.getfixturevalue(name)
    record = read_record(RunDir(run))
    assert type(record) is kind
    write_record(RunDir(tmp_path), record)
    assert (tmp_path / "run.json").read_bytes() == (run / "run.json").read_bytes()
    assert read_record(RunDir(tmp_path)) == record


def test_an_imported_run_is_nothing_to_score_or_reuse(imported):
    assert read_record(RunDir(imported)).judge == "people"
    with pytest.raises(UsageError, match="were imported"):
        read_scored_record(RunDir(imported))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda content: content.pop("fingerprint"), "missing required field `fingerprint`"),
        (lambda content: content["input"].update(rows="many"), r"\$.input.rows"),
        (lambda content: content["judges"][0]["part"]["answer"].pop("labels"), "labels"),
        (lambda content: content["config"].update(part_rows="all"), r"\$.config.part_rows"),
    ],
)
def test_damage_says_where_it_is(changed, edit, words):
    with pytest.raises(IntegrityFault, match=words) as fault:
        read_record(changed(edit))
    assert fault.value.place.endswith("run.json")


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b'"run"', b"\xff\xfe", b"null"])
def test_what_is_not_a_record_at_all_is_damage(tmp_path, text):
    (tmp_path / "run.json").write_bytes(text)
    with pytest.raises(IntegrityFault, match=r"the file cannot be read"):
        read_record(RunDir(tmp_path))


@pytest.mark.parametrize(
    "key",
    ["config.retries", "judges.0.part.answer.x", "inquiry.questions.x", "inquiry.protocols.0.x"],
)
def test_a_key_of_a_later_version_that_may_change_verdicts_is_refused(changed, key):
    def later(content):
        content["steelyard"], inner = "9.1.0", content
        *path, name = key.split(".")
        for step in path:
            inner = inner[int(step) if step.isdigit() else step]
        inner[name] = 1

    with pytest.raises(UsageError, match=f"`{key}`") as refused:
        read_record(changed(later))
    assert "9.1.0 or later" in refused.value.remedy


def test_other_keys_of_a_later_version_are_kept_and_shown(scored, tmp_path):
    content = json.loads((scored / "run.json").read_text())
    content |= {"note": "of a later version"}
    content["input"]["columns"] = ["x"]
    del content["check"]
    (scored / "run.json").write_bytes(seal(content))
    (scored / "verdicts.duckdb").unlink(missing_ok=True)
    run = steelyard.open_run(scored)
    assert run.sql("SELECT value FROM run WHERE key = 'note'").to_pylist() == [
        {"value": "of a later version"}
    ]
    assert (scored / "run.json").read_bytes() == seal(content)


def test_a_folder_without_a_record_is_refused(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="not a run directory"):
            read_record(RunDir(place))


# -- records of golden runs, which an earlier version wrote without a check ------------------------


JUDGE = "scripted:seed=7,fail=0,nan=0"


@pytest.fixture
def golden(tmp_path):
    """A folder with only the record of a golden run, changed by a function."""

    def place(name, edit=lambda _: None, *, sealed=False):
        content = json.loads((ROOT / "tests/golden" / name / "run.json").read_text("utf-8"))
        edit(content)
        data = seal(content) if sealed else json.dumps(content).encode()
        (tmp_path / "run.json").write_bytes(data)
        return RunDir(tmp_path)

    return place


def test_a_record_names_its_judges_and_protocol(golden):
    record = read_scored_record(golden("complete"))
    assert (record.judge, record.protocol) == (JUDGE, "pairwise")
    assert (record.steelyard, record.input.rows) == ("0.1.0", 66)
    record = read_record(golden("imported"))
    assert (record.judge, record.protocol) == ("elder", "imported")
    assert record.imported.pairs == 38


def test_several_judges_are_joined(golden):
    def two(content):
        content["judges"] *= 2
        content["inquiry"]["questions"]["judges"] = 2

    assert read_scored_record(golden("complete", two)).judge == f"{JUDGE} + {JUDGE}"


@pytest.mark.parametrize(
    ("name", "edit", "words"),
    [
        ("complete", lambda c: c.update(judges=c["judges"] * 2), "not the number of judges"),
        ("imported", lambda c: c["config"].pop("judge"), "`config` has no judge"),
        ("imported", lambda c: c["config"].pop("protocol"), "`config` has no protocol"),
        ("imported", lambda c: c["imported"]["files"].pop("rejects"), "files` has no rejects"),
        ("imported", lambda c: c["imported"]["files"].pop("verdicts"), "files` has no verdicts"),
        ("complete", lambda c: c.update(later=1), "has no check, and the unknown key later"),
        ("complete", lambda c: c.update(inquiry=[]), "inquiry"),
    ],
)
def test_a_record_that_contradicts_itself_is_damage(golden, name, edit, words):
    run = golden(name, edit)
    with pytest.raises(IntegrityFault, match=words) as fault:
        read_record(run)
    assert fault.value.place == str(run.record_file)
    assert "neither read nor resumed" in str(fault.value.effect)
    assert "new run directory" in fault.value.remedy


@pytest.mark.parametrize("sealed", [True, False])
def test_keys_of_the_time_without_a_check_are_known(golden, sealed):
    run = golden("complete", sealed=sealed)
    names = ["steelyard", "run", "created", "fingerprint", "config", "inquiry", "judges"]
    assert list(read_content(run)) == [*names, "input", "machine"]
    assert "imported" in read_content(golden("imported", sealed=sealed))


def test_a_later_key_that_only_describes_is_read_where_there_is_a_check(golden):
    run = golden("complete", lambda content: content.update(later=1), sealed=True)
    assert read_content(run)["later"] == 1
    read_record(run)


@pytest.mark.parametrize(
    ("edit", "key"),
    [
        (lambda c: c["config"].update(new=1), "config.new"),
        (lambda c: c["judges"][0].update(new=1), "judges.0.new"),
        (lambda c: c["inquiry"]["protocols"][0].update(new={"a": 1}), "inquiry.protocols.0.new"),
    ],
)
def test_a_later_key_that_decides_is_refused(golden, edit, key):
    with pytest.raises(UsageError, match=re.escape(f"the key `{key}`, unknown")) as refused:
        read_record(golden("complete", edit))
    assert "Steelyard 0.1.0 or later" in refused.value.remedy


def test_a_record_that_is_gone_from_a_run_is_missing(golden):
    run = golden("complete")
    run.record_file.unlink()
    (run.root / "plan").mkdir()
    (run.root / "plan" / "plan.json").write_bytes(b"{}")
    with pytest.raises(IntegrityFault, match=r"run\.json is missing"):
        read_record(run)


def test_imported_verdicts_cannot_be_scored(golden):
    with pytest.raises(UsageError, match="imported: no judge reads"):
        read_scored_record(golden("imported"))


def test_a_written_record_is_text_for_people(golden, tmp_path):
    record = read_record(golden("complete"))
    other = RunDir(tmp_path / "other")
    other.files.make()
    write_record(other, record)
    text = other.record_file.read_text("utf-8")
    assert text.startswith('{\n  "steelyard": "0.1.0",\n  "run": ')
    assert list(json.loads(text))[-3:] == ["input", "machine", "check"]
    assert "inquiry" in json.loads(text)
    assert read_record(other) == record


def test_a_new_record_says_when_where_and_of_what_it_is():
    sources = [Source("a", "/x/a"), Source("b", "/x/b")]
    fields = common_fields(SimpleNamespace(fingerprint="f", sources=sources, rows=7))
    assert fields["steelyard"] == __version__
    assert uuid.UUID(fields["run"]).version == 4
    assert (fields["input"].fingerprint, fields["input"].shards) == ("f", ("a", "b"))
    assert fields["input"].rows == 7
    machine = fields["machine"]
    assert machine["python"] == platform.python_version()
    assert machine["host"] == platform.node()
    assert machine["pyarrow"] == pa.__version__
    assert set(machine) == {"host", "system", "python", "pyarrow", "duckdb", "numpy"}
