"""Options and files that a command cannot use: each says what is wrong with it, and where."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from support.helpers import command, write_pairs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("refusals")
    write_pairs(place / "pairs.parquet", 8)
    steelyard.score(place / "pairs.parquet", run=place / "run", judge="scripted")
    shutil.copytree(place / "run", place / "lost")
    (place / "lost" / "run.json").unlink()
    pq.write_table(
        pa.table({"model_a": ["m"], "model_b": ["k"], "preference": [0.1], "text": ["no"]}),
        place / "table.parquet",
    )
    pq.write_table(pa.table({"foo": [1]}), place / "foo.parquet")
    (place / "binary").write_bytes(bytes(range(256)))
    return place


PLAN = ["plan", "PLACE/pairs.parquet", "--judge", "scripted"]
CASES = [
    # A column that is given away says to whom, and a missing one is the same fault everywhere.
    (
        [*PLAN, "--map", "instruction=response_a"],
        3,
        "no column is left for response_a: --map instruction=response_a takes response_a",
    ),
    (["rank", "PLACE/foo.parquet"], 3, "no column for model_a; looked for model_a"),
    (["import", "PLACE/foo.parquet", "--run", "PLACE/new"], 3, "no column for model_a"),
    (["evaluate", "PLACE/foo.parquet"], 3, "no column for preference; looked for"),
    # Texts where numbers are needed: which column, and its type.
    (["rank", "PLACE/table.parquet", "--map", "preference=text"], 3, "column text (VARCHAR) for"),
    (["evaluate", "PLACE/table.parquet", "--logit", "text"], 3, "does not hold numbers: 'no'"),
    # One name of an option, not two.
    (
        ["evaluate", "PLACE/table.parquet", "--bootstraps", "100", "--replicates=200"],
        2,
        "--bootstraps is the former name of --replicates: give one",
    ),
    # Two causes, two messages.
    (["evaluate", "PLACE/run", "--diagram", "x.gif"], 2, "a diagram is a .svg or .png file"),
    (
        ["evaluate", "PLACE/run", "--diagram", "PLACE/none/x.svg"],
        2,
        "the folder for the diagram does not exist",
    ),
    # Values of the scripted judge, in words of ours.
    ([*PLAN[:-1], "scripted:rate=-1"], 2, "the scripted judge does not take rate=-1\n"),
    ([*PLAN[:-1], "scripted:seed=x"], 2, "the scripted judge does not take seed=x\n"),
    ([*PLAN[:-1], "scripted:sed=1"], 2, "did you mean seed?"),
    ([*PLAN, "--revision", "main"], 2, "`revision` has no effect on the judge scripted"),
    (
        ["plan", "PLACE/pairs.parquet", "--judge", "demo", "--revision", "main"],
        2,
        "`revision` has no effect on the judge demo",
    ),
    # Files that are no texts.
    ([*PLAN, "--config", "PLACE/binary"], 2, "cannot be read: it is not a text in UTF-8"),
    (
        [*PLAN, "--protocol", "rubric", "--criteria", "PLACE/binary"],
        2,
        "cannot be read: it is not a text in UTF-8",
    ),
    # A run that lost its record is no folder of tables.
    *(
        ([*line, *more], 6, "run.json is missing: this folder is a run that has lost it")
        for line, more in (
            (["rank", "PLACE/lost"], []),
            (["evaluate", "PLACE/lost"], []),
            (["status", "PLACE/lost"], []),
            (["sql", "PLACE/lost", "SELECT 1"], []),
            (["winrate", "PLACE/lost"], ["--baseline", "m0", "--style"]),
        )
    ),
]


@pytest.mark.parametrize(("line", "code", "words"), CASES)
def test_what_cannot_be_used_is_named(place, line, code, words):
    done = command(*(part.replace("PLACE", str(place)) for part in line))
    assert words in done.stderr
    assert done.returncode == code
