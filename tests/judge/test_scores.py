"""Judges with a score head: which models are judges at all, and what their scores become."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from steelyard.cli.inspection import inspect_judge
from steelyard.errors import JudgeUnavailable
from support import tiny
from support.helpers import command, write_pairs


def write_config(folder, **config):
    """A folder in which all is there but an engine's weights."""
    tiny.write_tokenizer(folder, tiny.byte_level(), eos_token="<|end|>")
    save_file({"a": np.zeros(2, np.float32)}, folder / "model.safetensors")
    sizes = {"model_type": "llama", "max_position_embeddings": 2048, "vocab_size": 600}
    (folder / "config.json").write_text(json.dumps(sizes | config))
    return folder


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "into 2 classes"),
        (
            {"architectures": ["LlamaForSequenceClassification"], "num_labels": 5},
            "into 5 classes",
        ),
        ({"architectures": ["LlamaModel"]}, "gives embeddings"),
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "fills gaps"),
        ({"architectures": ["Qwen2ForRewardModel"]}, "a number for each token"),
        (
            {
                "architectures": ["DebertaV2ForSequenceClassification"],
                "model_type": "deberta-v2",
                "num_labels": 1,
            },
            "is an encoder",
        ),
    ],
)
def test_models_that_cannot_judge_are_refused_when_they_are_opened(tmp_path, config, cause):
    with pytest.raises(JudgeUnavailable, match=cause) as refused:
        inspect_judge(str(write_config(tmp_path / "model", **config)), None, "pairwise")
    assert "ForSequenceClassification with num_labels 1" in refused.value.remedy


@pytest.mark.parametrize("protocol", ["pairwise", "rationale", "pointwise"])
def test_a_reward_model_has_no_answer_to_labels(tmp_path, protocol):
    folder = write_config(
        tmp_path / "model", architectures=["LlamaForSequenceClassification"], num_labels=1
    )
    write_pairs(tmp_path / "pairs.parquet", 3)
    done = command(
        *("score", tmp_path / "pairs.parquet", "--run", tmp_path / "run"),
        *("--judge", folder, "--protocol", protocol),
    )
    assert done.returncode == 5
    assert "gives one score" in done.stderr
    assert "Traceback" not in done.stderr
