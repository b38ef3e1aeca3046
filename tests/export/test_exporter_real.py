"""Datasets of what a real engine read, and the documented way from pairs to a reward model."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from support.helpers import pairs_table
from support.mirrored import talk
from support.tiny import write_model

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    judge = write_model(folder / "judge", context=1024)
    table = pairs_table(24, instructions=6)
    turns = [talk(f"earlier {at % 6}") for at in range(24)]
    table = table.append_column("turns", pa.array(turns))
    pq.write_table(table, folder / "pairs.parquet")
    return steelyard.score(folder / "pairs.parquet", run=folder / "run", judge=str(judge))


@pytest.mark.parametrize("kind", ["preference", "reward", "kto", "sft", "autorater", "grpo"])
def test_rows_say_what_the_engine_read(run, tmp_path, kind):
    content = run.export(tmp_path / "out", kind)
    assert content["exported"] + sum(content["removed"].values()) == content["verdicts"] == 24
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert len(rows) == {"kto": 48, "sft": 6, "autorater": 48, "grpo": 48}.get(kind, 24)
    found = {row["pair_id"]: row for row in run.verdicts().to_pylist()}
    for row in rows:
        verdict = found[row["pair_id"]]
        p = verdict["raw_preference"]
        if kind != "sft":
            assert abs(row["probability"] - 0.5) == pytest.approx(abs(p - 0.5), abs=1e-12)
        assert row["label_mass"] == min(verdict["label_mass_ab"], verdict["label_mass_ba"])
        assert row["judge"] == verdict["judge"]
        said = " ".join(turn["content"] for turn in row["prompt"])
        assert "earlier" in said
        if kind in {"preference", "reward"}:
            a_won = row["chosen"][0]["content"].count(" first ")
            assert (a_won == 1) == (p > 0.5)
        if kind == "kto":
            assert row["label"] == (row["probability"] > 0.5)
