"""A judge behind TRL's interface of pairwise judges, which WinRateCallback calls."""

from __future__ import annotations

import inspect
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.errors import RewardRefused
from steelyard.rewards import Judge

PROMPTS = [f"Name thing {n}." for n in range(12)]
PAIRS = [[f"thing {n}", f"another thing, {n}"] for n in range(12)]


@pytest.mark.parametrize("protocol", ["pairwise", "pointwise", "pairwise-tie"])
def test_probabilities_are_the_verdicts_of_a_run(tmp_path, protocol):
    first, second = zip(*PAIRS, strict=True)
    table = pa.table({"instruction": PROMPTS, "response_a": first, "response_b": second})
    pq.write_table(table, tmp_path / "p.parquet")
    run = steelyard.score(
        tmp_path / "p.parquet", run=tmp_path / "run", judge="scripted", protocol=protocol
    )
    preferences = run.verdicts()["raw_preference"].to_pylist()
    with Judge("scripted", protocol=protocol) as judge:
        assert judge.judge(PROMPTS, PAIRS, return_scores=True) == pytest.approx(preferences)
        winners = judge.judge(PROMPTS, PAIRS, shuffle_order=False)
        assert winners == [int(p < 0.5) for p in preferences]
        assert set(winners) == {0, 1}
        turned = judge.judge(PROMPTS, [pair[::-1] for pair in PAIRS])
        assert turned == [1 - winner for winner in winners]


@pytest.mark.parametrize("protocol", ["pairwise", "pairwise-tie"])
def test_equal_completions_win_equally_often_and_repeatably(protocol):
    prompts, pairs = ["q"] * 200, [[f"same {n}"] * 2 for n in range(200)]
    with Judge("scripted", protocol=protocol) as judge:
        winners = judge.judge(prompts, pairs)
        assert winners == judge.judge(prompts, pairs)
        assert judge.judge(prompts, pairs, return_scores=True) == pytest.approx([0.5] * 200)
    assert 70 <= sum(winners) <= 130  # four standard deviations around 100


def test_conversations_are_judged_like_their_texts():
    chat = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    said = [[[{"role": "assistant", "content": text}] for text in pair] for pair in PAIRS]
    with Judge("scripted") as judge:
        plain = judge.judge(PROMPTS, PAIRS, return_scores=True)
        assert judge.judge(chat, said, return_scores=True) == plain


def test_without_a_verdict_an_index_is_missing_and_a_probability_is_refused():
    with Judge("scripted:nan=1") as judge, pytest.raises(RewardRefused, match="12 of 12 verdicts"):
        judge.judge(PROMPTS, PAIRS)
    with Judge("scripted:nan=1", failed=0.0) as judge:
        assert judge.judge(PROMPTS, PAIRS) == [-1] * 12
        with pytest.raises(RewardRefused, match="12 of 12 verdicts"):
            judge.judge(PROMPTS, PAIRS, return_scores=True)


@pytest.mark.parametrize(
    ("prompts", "pairs", "words"),
    [
        (PROMPTS[:2], PAIRS[:1], "1 pairs and 2 prompts"),
        (PROMPTS[:1], [["a", "b", "c"]], "not a pair"),
        (PROMPTS[:1], ["ab"], "not a pair"),
    ],
)
def test_what_is_not_a_pair_is_refused(prompts, pairs, words):
    with Judge("scripted") as judge, pytest.raises(RewardRefused, match=words):
        judge.judge(prompts, pairs)


def win_rate(judge, prompts, reference, policy, *, soft):
    """What TRL's WinRateCallback logs; versions after 1.0 do not have it."""
    completions = list(zip(reference, policy, strict=True))
    if not soft:
        winners = judge.judge(prompts, completions, True)
        return {"eval_win_rate": sum(winner == 1 for winner in winners) / len(winners)}
    scores = judge.judge(prompts, completions, True, return_scores=True)
    rate = sum(0 if score > 0.5 else 1 for score in scores) / len(scores)
    return {"eval_avg_win_prob": 1.0 - sum(scores) / len(scores), "eval_win_rate": rate}


def test_win_rates_as_the_callback_computes_them():
    reference, policy = zip(*PAIRS, strict=True)
    with Judge("scripted") as judge:
        soft = win_rate(judge, PROMPTS, reference, policy, soft=True)
        hard = win_rate(judge, PROMPTS, reference, policy, soft=False)
        turned = win_rate(judge, PROMPTS, policy, reference, soft=True)
    assert soft["eval_win_rate"] == hard["eval_win_rate"]
    assert math.isclose(soft["eval_avg_win_prob"] + turned["eval_avg_win_prob"], 1.0)


def test_the_interface_is_the_one_of_trl_1_0():
    parameters = list(inspect.signature(Judge.judge).parameters)
    assert parameters == ["self", "prompts", "completions", "shuffle_order", "return_scores"]
