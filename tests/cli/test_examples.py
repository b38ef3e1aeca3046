"""The examples in the help of the commands do what they say, on files of the names they use."""

from __future__ import annotations

import json
import shlex
import shutil

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.cli import main
from steelyard.cli.examples import EXAMPLES, MODEL
from support.helpers import ROOT, command, pairs_table

NOT_RUN = {"serve", "demo", "doctor"}  # endless, or run by other tests
PROTOCOL = ROOT / "engine/steelyard/protocols/builtin/pairwise-brief.toml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that the examples name, and runs of them."""
    place = tmp_path_factory.mktemp("examples")
    table = pairs_table(80).append_column("pair_id", pa.array([f"pair-{n}" for n in range(80)]))
    gold = pa.array(["A", "B", "A", "tie"] * 20)
    pq.write_table(table.append_column("gold", gold), place / "pairs.parquet")
    pq.write_table(pa.table({"pair_id": table["pair_id"], "gold": gold}), place / "people.parquet")
    verdicts = table.select(["pair_id", "instruction", "model_a"])
    verdicts = verdicts.append_column("preference", pa.array([0.2, 0.9, 0.6, 0.7] * 20))
    verdicts = verdicts.append_column("model_b", table["model_b"])
    for name in ("judged", "verdicts"):
        pq.write_table(verdicts, place / f"{name}.parquet")
    names = {"instruction": "instruction", "response_a": "response", "model_a": "model"}
    responses = table.select(list(names)).rename_columns(list(names.values()))
    pq.write_table(responses, place / "responses.parquet")
    prompt = "{question}\n{answer_a}\n{answer_b}\nAnswer A or B.\n"
    (place / "prompt.txt").write_text(prompt)
    entry = {"name": "pair-v2", "prompt_template": prompt}
    (place / "judge_prompts.jsonl").write_text(json.dumps(entry) + "\n")
    shutil.copy(PROTOCOL, place / "mine.toml")
    for name, seed in (("mine", 0), ("other", 1)):
        steelyard.score(place / "pairs.parquet", run=place / f"runs/{name}",
                        judge=f"scripted:seed={seed}")  # fmt: skip
    return place


def leaves(node, words=()):
    if not isinstance(node, click.Group):
        return {" ".join(words): node}
    parts = [leaves(inner, (*words, name)) for name, inner in node.commands.items()]
    return {name: leaf for part in parts for name, leaf in part.items()}


def test_every_command_has_examples_that_its_help_ends_with():
    assert set(EXAMPLES) == set(leaves(main))
    for words, lines in EXAMPLES.items():
        text = command(*words.split(), "--help").stdout
        shown = text.partition("Examples:\n")[2].splitlines()
        assert [line.strip() for line in shown] == [f"steelyard {words} {x}".strip() for x in lines]
        assert all(len(line) <= 100 for line in shown)


@pytest.mark.parametrize("words", EXAMPLES)
def test_examples_can_be_carried_out(folder, monkeypatch, words):
    monkeypatch.chdir(folder)
    for line in EXAMPLES[words]:
        arguments = shlex.split(f"{words} {line}".replace(MODEL, "scripted"))
        if words in NOT_RUN:
            leaf = leaves(main)[words]
            assert leaf.make_context(words, arguments[len(words.split()) :])
            continue
        if words == "score":
            arguments.append("--quiet")
        if words == "protocol new":
            (folder / "mine.toml").unlink(missing_ok=True)
        done = command(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
