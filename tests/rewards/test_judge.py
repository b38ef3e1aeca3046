"""A judge's rewards are what `score` says of the same texts; what cannot be judged is refused."""

import json
import math
import os
import subprocess
import sys
from itertools import combinations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.core.schemas import TURNS
from steelyard.errors import EngineFailed, RewardRefused, UsageError
from steelyard.protocols import get_protocol, protocol_names
from steelyard.rewards import Judge
from support.mirrored import options_of
from support.tiny import write_model

SYSTEM = {"role": "system", "content": "Be brief."}
CHAT = [
    SYSTEM,
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": " Which planet is the largest? "},
]
PLAIN = "Name a colour."
GROUPS = {
    "chat": (CHAT, ["Jupiter.", "It is Saturn.", "", "Jupiter."]),
    "plain": (PLAIN, ["blue", "Red, of course.", "I would rather not."]),
}


def batch(protocol):
    """What a trainer hands over: generations of two prompts, with columns of the dataset."""
    prompts = [prompt for prompt, texts in GROUPS.values() for _ in texts]
    texts = [text for _, answers in GROUPS.values() for text in answers]
    own = protocol != "multi-turn"  # one prompt is a conversation, the other a text
    completions = [[{"role": "assistant", "content": text}] if own else text for text in texts]
    truth = ["Jupiter"] * 4 + [None] * 3
    return prompts, texts, completions, {"reference": truth, "id": list(range(7))}


def row(prompt, reference, first, second=None):
    chat = prompt if isinstance(prompt, list) else None
    return {
        "instruction": chat[-1]["content"] if chat else prompt,
        "system": chat[0]["content"] if chat else None,
        "turns": chat[1:-1] if chat else None,
        "reference": reference,
        "response_a": first,
        "response_b": second,
    }


def scored(folder, rows, judge, protocol, **options):
    """What `steelyard score` says of rows: raw preferences or scores; None where it has none."""
    text = pa.string()
    kinds = {"turns": TURNS} | dict.fromkeys(
        ("instruction", "system", "reference", "response_a", "response_b"), text
    )
    if get_protocol(protocol).shows == "response":
        del kinds["response_b"]
        rows = [{name: one[name] for name in kinds} for one in rows]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(kinds)), folder / "rows.parquet")
    run = steelyard.score(
        folder / "rows.parquet", run=folder / "run", judge=judge, protocol=protocol, **options
    )
    verdicts = run.verdicts().to_pylist()
    assert [one["row"] for one in verdicts] == list(range(len(rows)))
    alone = get_protocol(protocol).shows == "response"
    return [one["score_a" if alone else "raw_preference"] for one in verdicts]


def expected(folder, judge, protocol, **options):
    """The rewards by the way of a run: the score, or the mean preference over the others."""
    prompts, texts, _, columns = batch(protocol)
    truth = columns["reference"]
    if get_protocol(protocol).shows == "response":
        rows = [row(*one) for one in zip(prompts, truth, texts, strict=True)]
        return scored(folder, rows, judge, protocol, **options)
    duels = [two for two in combinations(range(7), 2) if prompts[two[0]] == prompts[two[1]]]
    rows = [row(prompts[one], truth[one], texts[one], texts[two]) for one, two in duels]
    got = [[] for _ in texts]
    for (one, two), value in zip(
        duels, scored(folder, rows, judge, protocol, **options), strict=True
    ):
        if value is not None:
            got[one].append(value)
            got[two].append(1 - value)
    return [sum(values) / len(values) if values else None for values in got]


@pytest.mark.parametrize("protocol", protocol_names())
def test_rewards_are_what_score_says(tmp_path, protocol):
    options = options_of(protocol, tmp_path)
    wanted = expected(tmp_path / "run", "scripted:seed=3", protocol, **options)
    prompts, _, completions, columns = batch(protocol)
    with Judge("scripted:seed=3", protocol=protocol, failed=-7.0, **options) as reward:
        found = reward(prompts=prompts, completions=completions, trainer_state=None, **columns)
        assert reward(prompts, completions, **columns) == found
        assert reward([], []) == []
    assert found == pytest.approx([-7.0 if one is None else one for one in wanted], abs=1e-12)
    assert len(set(found)) > 4
    assert reward.__name__ == f"judge_{protocol}"


@pytest.mark.vllm
@pytest.mark.parametrize("protocol", ["pointwise", "pairwise"])
def test_rewards_of_an_engine_are_what_score_says(tmp_path, protocol):
    model = str(write_model(tmp_path / "model", context=2048))
    engine = {"dtype": "float32"}
    wanted = expected(tmp_path / "run", model, protocol, engine=engine)
    prompts, _, completions, columns = batch(protocol)
    with Judge(model, protocol=protocol, engine=engine) as reward:
        first = reward(prompts, completions, **columns)
        again = reward(prompts[4:], completions[4:], reference=columns["reference"][4:])
    # Prompts share steps with others here and there: the last digits of float32 differ.
    assert first == pytest.approx(wanted, abs=1e-4)
    assert again == pytest.approx(wanted[4:], abs=1e-4)
    assert max(wanted) - min(wanted) > 0.01
    with pytest.raises(UsageError, match="closed"):
        reward(prompts, completions)


@pytest.mark.vllm
@pytest.mark.slow
def test_a_script_that_an_engine_would_run_again_is_told_so(tmp_path):
    model = write_model(tmp_path / "model", context=2048)
    (tmp_path / "train.py").write_text(
        f"from steelyard.rewards import Judge\nJudge({str(model)!r}, protocol='pointwise')\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "train.py")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
    )
    assert done.returncode == 1
    assert "error[judge]" in done.stderr
    assert "runs the script that loads the judge again" in done.stderr
    assert 'under `if __name__ == "__main__":`' in done.stderr


def test_a_baseline_is_the_one_opponent(tmp_path):
    prompts, texts, completions, columns = batch("pairwise")
    others = [[{"role": "assistant", "content": f"other {at}"}] for at in range(7)]
    rows = [row(prompts[at], columns["reference"][at], texts[at], f"other {at}") for at in range(7)]
    wanted = scored(tmp_path / "run", rows, "scripted", "pairwise")
    with Judge("scripted", baseline="chosen") as reward:
        assert reward(prompts, completions, chosen=others, **columns) == pytest.approx(wanted)
        # A completion alone has an opponent, too.
        assert reward([PLAIN], ["blue"], chosen=["red"]) != reward(
            [PLAIN], ["red"], chosen=["blue"]
        )
        with pytest.raises(RewardRefused, match="no column 'chosen'"):
            reward(prompts, completions, **columns)
        with pytest.raises(RewardRefused, match="`chosen` of completion 0: it is None"):
            reward([PLAIN], ["blue"], chosen=[None])


def test_preferences_among_completions_sum_to_half_of_them():
    with Judge("scripted:seed=9") as reward:
        found = reward([PLAIN] * 5, list("abcde"))
    assert sum(found) == pytest.approx(2.5)


def test_criteria_may_come_with_the_data_set(tmp_path):
    weighted = [
        {"text": "It names a colour.", "weight": 3.0},
        {"text": "It is polite.", "weight": 1},
    ]
    (tmp_path / "criteria.json").write_text(json.dumps({"criteria": weighted}))
    with Judge("scripted", protocol="rubric", criteria=str(tmp_path / "criteria.json")) as reward:
        wanted = reward([PLAIN, PLAIN], ["blue", "red"])
    with Judge("scripted", protocol="rubric") as reward:
        assert reward([PLAIN, PLAIN], ["blue", "red"], criteria=[weighted] * 2) == wanted
        plain = [one["text"] for one in weighted]
        equal = reward([PLAIN, PLAIN], ["blue", "red"], criteria=[plain] * 2)
        assert equal != wanted
        with pytest.raises(RewardRefused, match="no column 'criteria'"):
            reward([PLAIN], ["blue"])
        with pytest.raises(RewardRefused, match="has no criterion"):
            reward([PLAIN], ["blue"], criteria=[[]])
        with pytest.raises(RewardRefused, match="holds values that are not"):
            reward([PLAIN], ["blue"], criteria=[[1, 2]])


@pytest.mark.parametrize(
    ("prompt", "cause"),
    [
        ([{"role": "assistant", "content": "x"}], "end with a message of the user"),
        ([SYSTEM], "end with a message of the user"),
        ([*CHAT, SYSTEM, CHAT[-1]], "not the first"),
        ([{"role": "user", "content": "x"}] * 2, "do not alternate: user user"),
        ([{"role": "assistant", "content": "x"}, CHAT[-1]], "do not alternate: assistant user"),
        (
            [CHAT[-1], {"role": "assistant", "content": None, "tool_calls": [{}]}, CHAT[-1]],
            "calls a tool",
        ),
        ([{"role": "tool", "content": "x"}, {"role": "user", "content": "y"}], "the role 'tool'"),
        ([{"role": "user", "content": [{"type": "image"}]}], "is not a text"),
        ("  ", "empty or white space"),
    ],
)
def test_prompts_that_cannot_be_shown_are_refused(prompt, cause):
    with Judge("scripted", protocol="pointwise") as reward:
        with pytest.raises(RewardRefused, match=cause) as refused:
            reward([prompt], ["x"])
        assert "completion 0" in str(refused.value)


@pytest.mark.parametrize("lost", ["system", "conversation"])
def test_a_protocol_that_does_not_show_all_of_a_prompt_is_refused(tmp_path, lost):
    other = {"system": "conversation", "conversation": "system"}[lost]
    path = tmp_path / "short.toml"
    user = (
        f"{{% if {other} %}}{{{{ {other} }}}}{{% endif %}} {{{{ instruction }}}} {{{{ response }}}}"
    )
    path.write_text(
        'shows = "response"\nlabels = ["1", "2"]\nscale = [1, 2]\ncombine = "scale"\n'
        f"user = {json.dumps(user)}\n"
    )
    with Judge("scripted", protocol=str(path)) as reward:
        assert len(reward([PLAIN], ["blue"])) == 1
        with pytest.raises(RewardRefused, match="does not show"):
            reward([CHAT], ["Jupiter."])


def test_a_completion_without_others_is_refused():
    with Judge("scripted") as reward, pytest.raises(RewardRefused, match="only completion") as no:
        reward([PLAIN, PLAIN, CHAT], ["blue", "red", "Jupiter."])
    assert "completion 2" in str(no.value)


def test_what_cannot_be_judged_is_an_error_or_has_the_reward_that_the_user_chose():
    options = {"protocol": "pairwise", "engine": {}}
    huge = "x" * (2 << 20)  # more than a row may hold
    texts = ["blue", huge, "red"]
    with Judge("scripted", **options) as reward:
        with pytest.raises(RewardRefused, match="2 of 3 verdicts are missing") as refused:
            reward([PLAIN] * 3, texts)
        assert "completion 0" in str(refused.value)
        assert "failed=0.0" in str(refused.value)
        two = reward([PLAIN] * 2, ["blue", "red"])
    with Judge("scripted", failed=-1, **options) as reward:
        assert reward([PLAIN] * 3, texts) == [two[0], -1.0, two[1]]
    broken = Judge("scripted:nan=1", protocol="pointwise")
    with broken, pytest.raises(RewardRefused, match="not finite"):
        broken([PLAIN], ["blue"])
    dying = Judge("scripted:fail=1", protocol="pointwise", failed=0.0)
    with dying, pytest.raises(EngineFailed, match="the script has it fail"):  # whatever it reads
        dying([PLAIN] * 20, [f"text {at}" for at in range(20)])


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"protocol": "pointwise", "baseline": "chosen"}, "baseline has no effect"),
        ({"failed": math.nan}, "failed is nan"),
        ({"protocol": "nonsense"}, "no protocol is called"),
        ({"overlong": "skip"}, "`overlong` is 'skip'"),
        ({"protocol": "few-shot"}, "needs worked examples"),
        ({"engine": {"dtype": "float32"}}, "no engine setting"),
    ],
)
def test_arguments_without_use_are_refused(options, cause):
    with pytest.raises(UsageError, match=cause):
        Judge("scripted", **options)
