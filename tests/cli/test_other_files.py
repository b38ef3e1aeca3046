"""Run directories whose files are lost, cut, or of another run: no command answers from them.

Kind of fault: everything in a run directory that decides a result is checked.
"""

import json
import shutil

import pytest

import steelyard
from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.linear import Linear
from steelyard.core.sealed import seal, unseal
from support.helpers import command, write_pairs

COUNT = "SELECT count(*) AS n FROM verdicts"
PAIRS = 45  # in three parts


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two runs of equal pairs, and of judges that differ."""
    place = tmp_path_factory.mktemp("others")
    write_pairs(place / "pairs.parquet", PAIRS)
    for name, judge in (("base", "scripted"), ("other", "scripted:seed=1")):
        steelyard.score(place / "pairs.parquet", run=place / name, judge=judge, part_rows=20)
    assert len(list((place / "base" / "reads").iterdir())) == 3
    return place


@pytest.fixture
def run(place, tmp_path):
    shutil.copytree(place / "base", tmp_path / "run")
    return tmp_path / "run"


def count(run):
    done = command("sql", run, COUNT, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def state(run):
    done = command("status", run, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["state"]


def refused(run, *commands):
    """Check that commands end as integrity errors; return their messages."""
    messages = []
    for arguments in commands or READERS:
        done = command(arguments[0], run, *arguments[1:])
        assert done.returncode == 6, (arguments, done.stdout, done.stderr)
        messages.append(done.stderr)
    return messages


READERS = (["sql", COUNT], ["rank"], ["bias"], ["compact"])


class TestJournal:
    """What complete.json says that the journal held, and it does not hold."""

    @pytest.mark.parametrize("kept", [0, 1, 2])
    def test_no_database_is_made_of_fewer_parts(self, run, kept):
        path = run / "journal.jsonl"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
        database = (run / "verdicts.duckdb").read_bytes()
        for message in refused(run):
            assert f"was complete with 3 parts, and the journal has {kept}" in message
        assert (run / "verdicts.duckdb").read_bytes() == database
        assert state(run) == "damaged"
        assert command("resume", run).returncode == 0
        assert state(run) == "complete"
        assert count(run) == [{"n": PAIRS}]

    def test_a_database_of_fewer_parts_is_not_read(self, run):
        """As earlier versions made it of an empty journal."""
        path, mark = run / "journal.jsonl", (run / "complete.json").read_bytes()
        path.write_bytes(b"")
        (run / "complete.json").unlink()
        shutil.move(run / "reads", run / "away")
        assert command("compact", run).returncode == 0
        assert count(run) == [{"n": 0}]
        shutil.move(run / "away", run / "reads")
        (run / "complete.json").write_bytes(mark)
        refused(run)
        assert command("resume", run).returncode == 0
        assert count(run) == [{"n": PAIRS}]

    @pytest.mark.parametrize("content", [b"", b"{}", b"other"])
    def test_a_mark_of_completion_that_is_not_the_runs(self, run, place, content):
        if content == b"other":
            content = (place / "other" / "complete.json").read_bytes()
        (run / "complete.json").write_bytes(content)
        refused(run)
        assert state(run) == "damaged"
        assert command("resume", run).returncode == 0
        assert count(run) == [{"n": PAIRS}]


class TestOtherRuns:
    """Files of another run, whole and with a right check."""

    def test_each_command_refuses_its_record(self, run, place):
        (run / "verdicts.duckdb").unlink()
        shutil.copy(place / "other" / "run.json", run / "run.json")
        for message in refused(run, *READERS, ["resume"]):
            assert "plan/plan.json and run.json are of different runs" in message
        assert not (run / "verdicts.duckdb").exists()
        assert state(run) == "damaged"

    def test_each_command_refuses_its_plan(self, run, place):
        shutil.copy(place / "other" / "plan" / "plan.json", run / "plan" / "plan.json")
        refused(run, *READERS, ["resume"])
        assert state(run) == "damaged"

    def test_readers_refuse_its_record_with_its_plan(self, run, place):
        (run / "verdicts.duckdb").unlink()
        shutil.copy(place / "other" / "run.json", run / "run.json")
        shutil.copytree(place / "other" / "plan", run / "plan", dirs_exist_ok=True)
        for message in refused(run):
            assert "complete.json and run.json are of different runs" in message
        assert state(run) == "damaged"

    def test_a_run_of_an_earlier_version_names_no_run(self, run):
        for name in ("plan/plan.json", "complete.json"):
            content, _ = unseal((run / name).read_bytes())
            assert content.pop("run") == json.loads((run / "run.json").read_text())["run"]
            (run / name).write_bytes(seal(content))
        assert state(run) == "complete"
        assert count(run) == [{"n": PAIRS}]

    @pytest.mark.parametrize("act", ["cut", "remove"])
    def test_status_looks_for_the_parts(self, run, act):
        part = sorted((run / "reads").iterdir())[1]
        part.write_bytes(part.read_bytes()[:-1]) if act == "cut" else part.unlink()
        assert state(run) == "damaged"
        assert command("resume", run).returncode == 0
        assert state(run) == "complete"


class TestCalibrators:
    """The calibrator of a run is one that was applied to it."""

    @pytest.fixture
    def fitted(self, run, tmp_path):
        """A calibrator of the run's reads, which is applied to it."""
        record = json.loads((run / "run.json").read_text())
        bound = {"fingerprint": record["fingerprint"]}
        curve = Linear({"logit": 2.0, "intercept": 0.0})
        path = tmp_path / "calibrator.json"
        path.write_text(Calibrator("platt", curve, bound=bound).to_json())
        self.apply(run, path)
        return path

    def apply(self, run, path):
        done = command("calibrate", "apply", run, path, "--force")
        assert done.returncode == 0, done.stderr

    def test_the_calibrator_of_another_run_is_refused(self, run, place, fitted, tmp_path):
        other = tmp_path / "other"
        shutil.copytree(place / "other", other)
        self.apply(other, fitted)  # forced, which is allowed where it was forced
        assert count(other) == [{"n": PAIRS}]
        shutil.copy(other / "calibration.json", run / "calibration.json")
        for message in refused(run):
            assert "calibration.json and run.json are of different runs" in message
        assert state(run) == "damaged"

    @pytest.mark.parametrize("forced", [False, True])
    def test_a_calibrator_that_names_no_run_is_bound_to_its_reads(self, run, forced):
        """As earlier versions applied it."""
        notes = {"forced": "fingerprint"} if forced else {}
        curve = Linear({"logit": 2.0, "intercept": 0.0})
        strange = Calibrator("platt", curve, bound={"fingerprint": "0" * 32}, notes=notes)
        (run / "calibration.json").write_text(strange.to_json())
        if forced:
            assert count(run) == [{"n": PAIRS}]
        else:
            refused(run)
        assert state(run) == ("complete" if forced else "damaged")

    def test_an_empty_file_is_damage(self, run, fitted):
        (run / "calibration.json").write_bytes(b"")
        refused(run)
        assert state(run) == "damaged"

    def test_a_link_is_not_followed(self, run, fitted):
        (run / "calibration.json").unlink()
        (run / "calibration.json").symlink_to(fitted)
        refused(run)
        assert state(run) == "damaged"

    @pytest.mark.parametrize("removed", [(), ("verdicts.duckdb",)])
    def test_its_removal_is_noticed_until_compact_undoes_it(self, run, fitted, tmp_path, removed):
        """Without the database, which says so too, nothing noticed it, and `status` never did."""
        for name in ("calibration.json", *removed):
            (run / name).unlink()
        assert state(run) == "damaged"
        out = ["compact", "--out", tmp_path / "o.duckdb"]
        for message in refused(run, ["sql", COUNT], ["rank"], ["resume"], out):
            assert "the calibrator that was applied is gone" in message
        assert (run / "verdicts.duckdb").exists() != bool(removed)
        assert command("compact", run).returncode == 0
        assert count(run) == [{"n": PAIRS}]
        assert state(run) == "complete"
        self.apply(run, fitted)
        assert state(run) == "complete"
