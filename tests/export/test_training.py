"""TRL's trainers take a step on each kind of exported dataset, offline and on a CPU."""

import math
import re
import shlex
import socket

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import steelyard
from steelyard.cli import main
from steelyard.rewards import Judge, brier, logarithmic
from support import tiny
from support.helpers import ROOT, pairs_table, write_pairs

pytestmark = [
    pytest.mark.train,
    # Of its own use of vLLM, which none of these tests makes.
    pytest.mark.filterwarnings("ignore:TRL currently supports vLLM versions:UserWarning"),
]

STATED = "<probability>0.7</probability>"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(_, address):
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A language model whose random answers have a probability now and then."""
    folder = tmp_path_factory.mktemp("model")
    return str(tiny.write_model(folder, context=2048, says=(STATED,)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """32 pairs of 8 instructions, judged."""
    folder = tmp_path_factory.mktemp("run")
    shard = write_pairs(folder / "pairs.parquet", 32, instructions=8)
    return steelyard.score(shard, run=folder / "run", judge="scripted")


def load(run, folder, kind, *, plain=False):
    """An export as a trainer's user loads it."""
    from datasets import load_dataset

    run.export(folder / "export", kind, form="plain" if plain else "conversational")
    loaded = load_dataset(str(folder / "export"), cache_dir=str(folder / "cache"))
    assert list(loaded) == ["train"]
    assert {"pair_id", "probability", "judge"} <= set(loaded["train"].column_names)
    assert isinstance(loaded["train"][0]["prompt"], str if plain else list)
    return loaded["train"]


def settings(folder, **more):
    return {
        "output_dir": str(folder / "out"),
        "max_steps": 1,
        "learning_rate": 0.01,
        "per_device_train_batch_size": 2,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": 0,
        **more,
    }


def take_a_step(trainer):
    """Train for a step; what it logged."""
    before = {name: one.detach().clone() for name, one in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.state.global_step == 1
    assert any(
        not one.detach().equal(before[name]) for name, one in trainer.model.named_parameters()
    )
    (logged,) = [one for one in trainer.state.log_history if "loss" in one]
    assert math.isfinite(logged["loss"])
    assert logged["grad_norm"] > 0
    return logged


plain_or_not = pytest.mark.parametrize("plain", [False, True], ids=["conversational", "plain"])


def language_model(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return {
        "model": AutoModelForCausalLM.from_pretrained(folder),
        "processing_class": AutoTokenizer.from_pretrained(folder),
    }


@plain_or_not
@pytest.mark.parametrize("kind", ["preference", "reward"])
def test_dpo(model, run, tmp_path, kind, plain):
    from trl import DPOConfig, DPOTrainer

    take_a_step(
        DPOTrainer(
            args=DPOConfig(**settings(tmp_path)),
            train_dataset=load(run, tmp_path, kind, plain=plain),
            **language_model(model),
        )
    )


@plain_or_not
def test_kto(model, run, tmp_path, plain):
    from trl import KTOConfig, KTOTrainer

    take_a_step(
        KTOTrainer(
            args=KTOConfig(**settings(tmp_path)),
            train_dataset=load(run, tmp_path, "kto", plain=plain),
            **language_model(model),
        )
    )


@plain_or_not
def test_reward_model_with_margins(model, run, tmp_path, plain):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    def loss(dataset):
        return take_a_step(
            RewardTrainer(
                args=RewardConfig(**settings(tmp_path)),
                train_dataset=dataset,
                model=AutoModelForSequenceClassification.from_pretrained(model, num_labels=1),
                processing_class=AutoTokenizer.from_pretrained(model),
            )
        )["loss"]

    pairs = load(run, tmp_path, "reward", plain=plain)
    assert loss(pairs) != pytest.approx(loss(pairs.remove_columns("margin")), rel=0.01)


@pytest.mark.parametrize(("kind", "plain"), [("sft", False), ("sft", True), ("autorater", False)])
def test_sft(model, run, tmp_path, kind, plain):
    from trl import SFTConfig, SFTTrainer

    take_a_step(
        SFTTrainer(
            args=SFTConfig(**settings(tmp_path)),
            train_dataset=load(run, tmp_path, kind, plain=plain),
            **language_model(model),
        )
    )


def grpo(model, folder, dataset, rewards):
    from trl import GRPOConfig, GRPOTrainer

    # At this temperature the model says what it was made to say about every other time.
    more = {"temperature": 3.0, "num_generations": 4, "max_completion_length": 8}
    args = settings(folder, per_device_train_batch_size=8, **more)
    return take_a_step(
        GRPOTrainer(
            args=GRPOConfig(**args),
            train_dataset=dataset,
            reward_funcs=rewards,
            **language_model(model),
        )
    )


def test_grpo_with_stated_probabilities(model, run, tmp_path):
    seen = []

    def watch(completions, probability, **_):
        texts = [one[0]["content"] for one in completions]
        seen.extend(zip(texts, probability, strict=True))
        return [0.0] * len(texts)

    logged = grpo(model, tmp_path, load(run, tmp_path, "grpo"), [brier, logarithmic, watch])
    assert len(seen) == 8
    stated = [(STATED in text, target) for text, target in seen]
    assert {True, False} == {there for there, _ in stated}
    wanted = [1 - (0.7 - y) ** 2 if there else 0.0 for there, y in stated]
    assert logged["rewards/brier/mean"] == pytest.approx(sum(wanted) / 8, abs=1e-6)
    assert logged["rewards/logarithmic/mean"] < 0


@pytest.mark.parametrize("options", [{"protocol": "pointwise"}, {}, {"baseline": "chosen"}])
def test_grpo_with_a_judge(model, run, tmp_path, options):
    calls = []
    with Judge("scripted:seed=5", **options) as reward:

        def watch(prompts, completions, **columns):
            calls.append(reward(prompts, completions, **columns))
            return [0.0] * len(prompts)

        logged = grpo(model, tmp_path, load(run, tmp_path, "preference"), [reward, watch])
    (once,) = calls
    assert len(set(once)) > 2
    name = f"rewards/judge_{options.get('protocol', 'pairwise')}/mean"
    assert logged[name] == pytest.approx(sum(once) / 8, abs=1e-6)


@pytest.mark.vllm
def test_the_scripts_of_the_page(model, run, tmp_path, monkeypatch):
    page = (ROOT / "docs/rewards.md").read_text("utf-8")
    scripts = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    scripts = [script for script in scripts if "GRPOTrainer" in script]
    assert len(scripts) == 2
    monkeypatch.chdir(tmp_path)
    run.export("judging", "grpo")
    run.export("rewards", "preference")
    small = settings(tmp_path, per_device_train_batch_size=4, num_generations=4, temperature=3.0)
    for script in scripts:
        small_model, named = re.subn(r'"Qwen/[^"]+"', repr(model), script)
        code, settled = re.subn(r"GRPOConfig\(.*\)", "GRPOConfig(**SMALL)", small_model)
        assert named
        assert settled == 1
        known = {"__name__": "__main__", "SMALL": small | {"max_completion_length": 4}}
        exec(code, known)  # our own page
        assert known["trainer"].state.global_step == 1


def test_the_recipe_for_a_reward_model(model, tmp_path, monkeypatch, capsys):
    """The commands and the script of the page on datasets, with judge and model of this test."""
    page = (ROOT / "docs/reward-datasets.md").read_text("utf-8")
    commands, script = (
        re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL)[1] for kind in ("sh", "python")
    )
    monkeypatch.chdir(tmp_path)
    pairs = pairs_table(300, instructions=60)
    ids = pa.array([f"pair {at}" for at in range(300)])
    pq.write_table(pairs.append_column("pair_id", ids), "pairs.parquet")
    # People who agree with the judge but for each tenth pair: else calibration leaves no verdict.
    judged = steelyard.score("pairs.parquet", run="before", judge="scripted").verdicts()
    better = [p > 0.5 for p in judged["raw_preference"].to_pylist()]
    gold = ["BA"[one == (at % 10 > 0)] for at, one in enumerate(better)]
    pq.write_table(pa.table({"pair_id": judged["pair_id"], "gold": gold}), "gold.parquet")
    for command in commands.strip().replace("--judge demo", "--judge scripted").splitlines():
        program, *arguments = shlex.split(command)
        assert program == "steelyard"
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
    code, named = re.subn(r'"HuggingFaceTB/[^"]+"', repr(model), script)
    assert named == 1
    known = {"__name__": "__main__"}
    capsys.readouterr()
    exec(code, known)  # our own page
    assert known["trainer"].state.global_step == 20
    assert 0 <= float(capsys.readouterr().out.split()[-1]) <= 1
