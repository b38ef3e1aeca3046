"""Run directories whose files are lost, cut, or of another run: no command answers from them.

Kind of fault: everything in a run directory that decides a result is checked.
"""

import json
import shutil

import pytest

import steelyard
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
