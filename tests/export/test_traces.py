"""Traces: what a judge wrote, where it agrees with gold in both orders; models of either side."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import steelyard
from steelyard.cli import main
from steelyard.comparisons.importing import import_tables
from steelyard.errors import UsageError
from support.helpers import pairs_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 pairs with gold, the first of which has a tie and the second none."""
    folder = tmp_path_factory.mktemp("traces")
    gold = ["tie", None, *(["a", "b"] * 29)]
    table = pairs_table(60, instructions=20).append_column("gold", pa.array(gold))
    pq.write_table(table, folder / "pairs.parquet")
    return folder


@pytest.fixture(scope="module", params=[1, 3], ids=["once", "three samples"])
def written(request, folder):
    """The run of a judge that writes."""
    name = "rationale"
    if request.param > 1:
        text = steelyard.protocols.get_protocol(name)
        assert text.temperature == 0
        path = folder / "warm.toml"
        path.write_text(
            'answer = "reasons"\nlabels = ["A", "B"]\nverdict = "[["\ntemperature = 1.0\n'
            'user = "{{ instruction }} {{ first }} {{ second }}"\nsamples = 3\n'
        )
        name = str(path)
    return steelyard.score(
        folder / "pairs.parquet", run=folder / f"run-{request.param}", judge="scripted:seed=5",
        protocol=name,
    )  # fmt: skip


def read(out):
    return pq.read_table(out / "data").to_pylist()


def test_a_trace_is_what_the_judge_wrote_in_each_order(written, tmp_path):
    content = written.export(tmp_path / "out", "trace")
    answers = written.sql(
        "SELECT pair_id, shown, sample, output FROM answers WHERE status = 'ok' AND NOT forced"
    ).to_pylist()
    both = {a["pair_id"] for a in answers if a["shown"] == "ab"} & {
        a["pair_id"] for a in answers if a["shown"] == "ba"
    }
    expected = {
        (a["pair_id"], a["shown"], a["sample"]): a["output"]
        for a in answers
        if a["pair_id"] in both
    }
    rows = read(tmp_path / "out")
    assert content["rows"] == {"train": len(rows)}
    assert content["exported"] == len(both)
    assert content["removed"] == ({"unanswered": 60 - len(both)} if len(both) < 60 else {})
    assert {
        (row["pair_id"], row["shown"], row["sample"]): row["completion"][0]["content"]
        for row in rows
    } == expected
    texts = pq.read_table(written.root.parent / "pairs.parquet").to_pylist()
    by_id = {v["pair_id"]: texts[v["row"]] for v in written.verdicts().to_pylist()}
    for row in rows:
        question, pair = row["prompt"][-1]["content"], by_id[row["pair_id"]]
        a, b = (question.index(pair[side].strip()) for side in ("response_a", "response_b"))
        assert (a < b) == (row["shown"] == "ab")


def test_correct_traces_name_the_side_of_gold_in_both_orders(written, tmp_path):
    content = written.export(tmp_path / "out", "trace", correct=True)
    right = written.sql("""
SELECT pair_id, gold.a FROM verdicts WHERE gold.a <> gold.b
  AND sign(preference_ab - 0.5) = sign(gold.a - gold.b)
  AND sign(preference_ba - 0.5) = sign(gold.a - gold.b)""").to_pylist()
    gold = {row["pair_id"]: "A" if row["a"] else "B" for row in right}
    rows = read(tmp_path / "out")
    assert {row["pair_id"] for row in rows} <= gold.keys()
    assert 0 < len({row["pair_id"] for row in rows}) == content["exported"]
    removed = content["removed"]
    assert removed["no_gold"] == 1
    assert removed["incorrect"] == 59 - len(gold)
    assert sum(removed.values()) + content["exported"] == 60
    logits = written.sql("SELECT pair_id, shown, sample, logit FROM answers").to_pylist()
    favoured = {(a["pair_id"], a["shown"], a["sample"]): a["logit"] for a in logits}
    for row in rows:
        logit = favoured[row["pair_id"], row["shown"], row["sample"]]
        assert (logit > 0) == (gold[row["pair_id"]] == "A")


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [("pairwise", "writes nothing"), ("pointwise", "writes nothing"), (None, "were imported")],
)
def test_runs_without_a_text_on_pairs_are_refused(folder, tmp_path, protocol, reason):
    if protocol is None:
        table = pairs_table(4).append_column("preference", pa.array([0.1, 0.9, 0.5, 0.5]))
        pq.write_table(table, tmp_path / "verdicts.parquet")
        assert import_tables([str(tmp_path / "verdicts.parquet")], tmp_path / "run") == 0
        run = steelyard.open_run(tmp_path / "run")
    else:
        run = steelyard.score(
            folder / "pairs.parquet", run=tmp_path / "run", judge="scripted", protocol=protocol,
            limit=4,
        )  # fmt: skip
    with pytest.raises(UsageError, match=reason):
        run.export(tmp_path / "out", "trace")
    assert not (tmp_path / "out").exists()


def test_correct_needs_gold(tmp_path):
    pq.write_table(pairs_table(4), tmp_path / "pairs.parquet")
    run = steelyard.score(tmp_path / "pairs.parquet", run=tmp_path / "run", judge="scripted")
    with pytest.raises(UsageError, match="--correct cannot be decided"):
        run.export(tmp_path / "out", "preference", correct=True)


def test_models_of_either_side(written, tmp_path):
    chosen = [str(written.root), "--format", "preference", "--json", "--out", str(tmp_path / "out")]
    models = ["--chosen-model", "m0, m1", "--rejected-model", "m4", "--rejected-model", "m3"]
    done = CliRunner().invoke(main, ["export", *chosen, *models])
    assert done.exit_code == 0, done.output
    rows = read(tmp_path / "out")
    assert {row["chosen_model"] for row in rows} == {"m0", "m1"}
    assert {row["rejected_model"] for row in rows} == {"m3", "m4"}
    (wanted,) = written.sql("""
SELECT count(*) AS n FROM verdicts WHERE status = 'ok' AND winner <> 'tie'
  AND if(raw_preference > 0.5, model_a, model_b) IN ('m0', 'm1')
  AND if(raw_preference > 0.5, model_b, model_a) IN ('m3', 'm4')""").to_pylist()
    assert len(rows) == wanted["n"]
    with pytest.raises(UsageError, match="'m9'"):
        written.export(tmp_path / "other", "preference", rejected_model=["m9"])
    with pytest.raises(UsageError, match="does not apply to the format kto"):
        written.export(tmp_path / "other", "kto", chosen_model=["m0"])
