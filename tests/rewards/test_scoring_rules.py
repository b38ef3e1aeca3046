"""Rewards of stated probabilities are those of their definitions; a bad target is an error."""

import math
import subprocess
import sys

import pytest

from steelyard.errors import RewardRefused
from steelyard.rewards import brier, logarithmic

LOST = math.log(1e-3)  # the logarithmic reward of what cannot be read

# What is written, the target, and both rewards by hand.
CASES = [
    ("<probability>0.7</probability>", 0.7, 1.0, 0.7 * math.log(0.7) + 0.3 * math.log(0.3)),
    ("<probability>0.7</probability>", 1.0, 0.91, math.log(0.7)),
    ("<probability>0.7</probability>", 0.0, 0.51, math.log(0.3)),
    ("<probability>0.5</probability>", 0.25, 0.9375, math.log(0.5)),
    ("<probability>1</probability>", 1.0, 1.0, math.log(0.999)),
    ("<probability>1</probability>", 0.0, 0.0, LOST),
    ("<probability>0</probability>", 1.0, 0.0, LOST),
    ("<probability>0.0004</probability>", 0.0, 1 - 0.0004**2, math.log(0.999)),
    ("Both are fine. <Probability> 25% </Probability>", 0.25, 1.0, None),
    ("<probability>0.1</probability> no: <probability>0.9</probability>", 0.9, 1.0, None),
    ("<think><probability>0.1</probability></think><probability>.9</probability>", 0.9, 1.0, None),
    ("", 0.5, 0.0, LOST),
    ("0.7", 0.7, 0.0, LOST),
    ("<probability>high</probability>", 0.7, 0.0, LOST),
    ("<probability>1.2</probability>", 1.0, 0.0, LOST),
    ("<probability>-0.1</probability>", 0.0, 0.0, LOST),
    ("<probability>nan</probability>", 0.0, 0.0, LOST),
    ("<probability>0.7", 0.7, 0.0, LOST),
    ("<think>never ends <probability>0.7</probability>", 0.7, 0.0, LOST),
]


@pytest.mark.parametrize(("text", "target", "squared", "log"), CASES)
def test_stated_probabilities_are_rewarded_by_definition(text, target, squared, log):
    chat = [{"role": "assistant", "content": text}]
    given = {"prompts": ["p", "p"], "completion_ids": [[1], [2]], "trainer_state": None}
    both = {"completions": [text, chat], "probability": [target, target], **given}
    assert brier(**both) == pytest.approx([squared] * 2, abs=1e-12)
    found = logarithmic(**both)
    assert found[0] == found[1]
    if log is not None:
        assert found[0] == pytest.approx(log, abs=1e-12)


def test_each_completion_has_its_own_target():
    texts = [f"<probability>{p}</probability>" for p in (0.1, 0.5, 0.9)]
    assert brier(texts, [0, 0.5, 0.4]) == pytest.approx([0.99, 1.0, 0.75])
    ids = [{"role": "assistant", "content": None, "tool_calls": [{"name": "search"}]}]
    assert brier([ids], [0.5]) == [0.0]  # a call of a tool states nothing


@pytest.mark.parametrize("reward", [brier, logarithmic])
@pytest.mark.parametrize("target", [None, math.nan, -0.01, 1.01, math.inf, "0.5", True])
def test_a_target_that_is_no_probability_is_an_error(reward, target):
    with pytest.raises(RewardRefused, match="completion 1: the target") as refused:
        reward(["x", "x"], probability=[0.5, target])
    assert "from 0 to 1" in str(refused.value)


@pytest.mark.parametrize("reward", [brier, logarithmic])
def test_a_column_of_targets_is_required(reward):
    with pytest.raises(RewardRefused, match="no column `probability`"):
        reward(["x"], prompts=["p"])
    with pytest.raises(RewardRefused, match="no column `probability`"):
        reward(["x"], probability=0.5)
    with pytest.raises(RewardRefused, match="1 values in the column"):
        reward(["x", "y"], probability=[0.5])


@pytest.mark.parametrize(
    ("completion", "cause"),
    [
        ([], "it is"),
        (None, "it is None"),
        (["text"], "it holds 'text'"),
        ([{"role": "user", "content": "x"}], "the role 'user'"),
        ([{"role": "assistant", "content": None}], "is not a text"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "x"}]}], "is not a text"),
    ],
)
def test_what_is_no_completion_is_an_error(completion, cause):
    with pytest.raises(RewardRefused, match=cause) as refused:
        brier([completion], [0.5])
    assert "completion 0" in str(refused.value)


def test_importing_needs_no_trainer_and_no_engine():
    code = (
        "import sys, steelyard.rewards;"
        "print([name for name in ('torch', 'trl', 'vllm', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
