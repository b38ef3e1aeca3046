"""run.json: what it says is read back whole, damage is told from what a later version added."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.comparisons.importing import import_tables
from steelyard.core.sealed import seal
from steelyard.errors import IntegrityFault, UsageError
from steelyard.store.run_record import (
    ImportedRecord,
    ScoredRecord,
    read_record,
    read_scored_record,
    write_record,
)
from steelyard.store.rundir import RunDir
from support.helpers import write_pairs

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
