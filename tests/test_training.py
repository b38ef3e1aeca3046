"""TRL's trainers take a step on each kind of exported data set, offline and on a CPU."""

import math
import socket

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny
from steelyard.protocols import get_protocol
from steelyard.protocols.base import SLOT
from steelyard.rewards import Judge, brier, logarithmic

pytestmark = [
    pytest.mark.train,
    # Of its own use of vLLM, which none of these tests makes.
    pytest.mark.filterwarnings("ignore:TRL currently supports vLLM versions:UserWarning"),
]

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
PROVENANCE = {
    "pair_id": pa.string(),
    "probability": pa.float64(),
    "raw_probability": pa.float64(),
    "consistent": pa.bool_(),
    "label_mass": pa.float64(),
    "judge": pa.string(),
}
CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
"""
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


def says(role, text):
    return {"role": role, "content": text}


def judge_prompt(at, swapped):
    """What `verbalized` shows of a pair."""
    first, second = (f"answer {at} {side}" for side in ("ba" if swapped else "ab"))
    texts = {"instruction": f"question {at}", "first": first, "second": second}
    return [
        says(one.role, SLOT.sub(lambda found: texts[found[1]], one.content))
        for one in get_protocol("verbalized").messages(frozenset())
    ]


def rows(kind, at):
    """A pair in the columns of a kind of export, without provenance."""
    ask = [says("user", f"question {at}")]
    good, bad = ([says("assistant", f"answer {at} {side}")] for side in "ab")
    p = (at + 0.5) / 8
    if kind == "kto":
        return [
            {"prompt": ask, "completion": good, "label": True},
            {"prompt": ask, "completion": bad, "label": False},
        ]
    if kind == "sft":
        return [{"prompt": ask, "completion": good}]
    if kind in {"autorater", "grpo"}:
        targets = {False: p, True: 1 - p}
        return [
            {"prompt": judge_prompt(at, swapped), "probability": target}
            if kind == "grpo"
            else {
                "prompt": judge_prompt(at, swapped),
                "completion": [says("assistant", f"<probability>{target:.4f}</probability>")],
            }
            for swapped, target in targets.items()
        ]
    row = {"prompt": ask, "chosen": good, "rejected": bad}
    return [row | {"margin": math.log(p / (1 - p))} if kind == "reward" else row]


def flat(value):
    """A conversation as the plain text of its last message."""
    return value[-1]["content"] if isinstance(value, list) else value


def write_export(folder, kind, *, plain=False):
    """Two shards in the Hub's layout."""
    provenance = {
        "pair_id": "p",
        "probability": 0.8,
        "raw_probability": 0.9,
        "consistent": True,
        "label_mass": 0.99,
        "judge": "scripted",
    }
    found = [provenance | row for at in range(8) for row in rows(kind, at)]
    if plain:
        found = [{name: flat(value) for name, value in row.items()} for row in found]
    own = {name: pa.string() if plain else MESSAGES for name in TEXTS if name in found[0]}
    own |= {name: kind for name, kind in OTHERS.items() if name in found[0]}
    table = pa.Table.from_pylist(found, pa.schema(own | PROVENANCE))
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    half = len(table) // 2
    for shard in range(2):
        path = folder / "data" / f"train-{shard:05}-of-00002.parquet"
        pq.write_table(table.slice(shard * half, half), path)
    return folder


TEXTS = ("prompt", "chosen", "rejected", "completion")
OTHERS = {"label": pa.bool_(), "margin": pa.float64()}


def load(folder, kind, **options):
    """An export as a trainer's user loads it."""
    from datasets import load_dataset

    place = write_export(folder / "export", kind, **options)
    loaded = load_dataset(str(place), cache_dir=str(folder / "cache"))
    assert list(loaded) == ["train"]
    assert set(PROVENANCE) <= set(loaded["train"].column_names)
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
def test_dpo(model, tmp_path, kind, plain):
    from trl import DPOConfig, DPOTrainer

    take_a_step(
        DPOTrainer(
            args=DPOConfig(**settings(tmp_path)),
            train_dataset=load(tmp_path, kind, plain=plain),
            **language_model(model),
        )
    )


@plain_or_not
def test_kto(model, tmp_path, plain):
    from trl import KTOConfig, KTOTrainer

    take_a_step(
        KTOTrainer(
            args=KTOConfig(**settings(tmp_path)),
            train_dataset=load(tmp_path, "kto", plain=plain),
            **language_model(model),
        )
    )


@plain_or_not
def test_reward_model_with_margins(model, tmp_path, plain):
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

    pairs = load(tmp_path, "reward", plain=plain)
    assert loss(pairs) != pytest.approx(loss(pairs.remove_columns("margin")), rel=0.01)


@pytest.mark.parametrize(("kind", "plain"), [("sft", False), ("sft", True), ("autorater", False)])
def test_sft(model, tmp_path, kind, plain):
    from trl import SFTConfig, SFTTrainer

    take_a_step(
        SFTTrainer(
            args=SFTConfig(**settings(tmp_path)),
            train_dataset=load(tmp_path, kind, plain=plain),
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


def test_grpo_with_stated_probabilities(model, tmp_path):
    seen = []

    def watch(completions, probability, **_):
        texts = [one[0]["content"] for one in completions]
        seen.extend(zip(texts, probability, strict=True))
        return [0.0] * len(texts)

    logged = grpo(model, tmp_path, load(tmp_path, "grpo"), [brier, logarithmic, watch])
    assert len(seen) == 8
    stated = [(STATED in text, target) for text, target in seen]
    assert {True, False} == {there for there, _ in stated}
    wanted = [1 - (0.7 - y) ** 2 if there else 0.0 for there, y in stated]
    assert logged["rewards/brier/mean"] == pytest.approx(sum(wanted) / 8, abs=1e-6)
    assert logged["rewards/logarithmic/mean"] < 0


@pytest.mark.parametrize("options", [{"protocol": "pointwise"}, {}, {"baseline": "chosen"}])
def test_grpo_with_a_judge(model, tmp_path, options):
    calls = []
    with Judge("scripted:seed=5", **options) as reward:

        def watch(prompts, completions, **columns):
            calls.append(reward(prompts, completions, **columns))
            return [0.0] * len(prompts)

        logged = grpo(model, tmp_path, load(tmp_path, "preference"), [reward, watch])
    (once,) = calls
    assert len(set(once)) > 2
    name = f"rewards/judge_{options.get('protocol', 'pairwise')}/mean"
    assert logged[name] == pytest.approx(sum(once) / 8, abs=1e-6)
