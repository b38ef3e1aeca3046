"""How people score pairs with vLLM today: three scripts, written as well as their kind allows.

All get the engine settings that Steelyard chose for itself (model, dtype, block and batch sizes,
key-value pool, prefix caching), Steelyard's template as text, both orders of each pair, and the
best way to feed them: one call over all prompts. `seconds` run from that call to the last
preference.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from harness import workloads
from harness.meter import Meter
from harness.prompts import both_orders, encoder_of, pairwise_template
from harness.tools import Job, Outcome, ask_oracle, shut_down

CERTAIN = 100.0  # a logit
ANSWER_TOKENS = 4  # enough for " A." or ": **A**"
_SLOT = re.compile(r"\[\[slot:([a-z_]+)\]\]")
_LABEL = re.compile(r"\b([AB])\b")
# From logits of "the first response is better", one per prompt, to preferences.
Combiner = Callable[[list[float]], list[float]]


def naive(job: Job) -> Outcome:
    """Read the 20 likeliest first tokens; rows in the order of the shards."""
    return score(job, _rendered(job))


def generated(job: Job) -> Outcome:
    """Score in AlpacaEval's style: the judge writes its answer, and a pattern finds the letter."""
    texts, before = _rendered(job)
    with Meter() as meter, _llm(job) as llm:
        from vllm import SamplingParams

        wanted = SamplingParams(max_tokens=ANSWER_TOKENS, temperature=0.0)
        began = time.perf_counter()
        outputs = llm.generate(texts, wanted, use_tqdm=False)
        preferences = combine([_written(output) for output in outputs])
        seconds = time.perf_counter() - began
    return _outcome(outputs, preferences, meter, seconds, before)


def choices(job: Job) -> Outcome:
    """Score in lm-evaluation-harness's style: prompt + choice, once per choice, longest first."""
    texts, before = _rendered(job)
    with Meter() as meter, _llm(job) as llm:
        from vllm import SamplingParams

        wanted = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1, detokenize=False)
        began = time.perf_counter()
        tokenizer = llm.get_tokenizer()
        ends = [tokenizer.encode(f" {label}", add_special_tokens=False) for label in "AB"]
        rows = [ids + end for ids in tokenizer(texts)["input_ids"] for end in ends]
        order = sorted(range(len(rows)), key=lambda at: (-len(rows[at]), rows[at]))
        fed = [{"prompt_token_ids": rows[at]} for at in order]
        found = llm.generate(fed, wanted, use_tqdm=False)
        outputs = [output for _, output in sorted(zip(order, found, strict=True), key=_first)]
        sums = [_of_choice(output, ends[at % 2]) for at, output in enumerate(outputs)]
        logits = [a - b for a, b in zip(sums[::2], sums[1::2], strict=True)]
        preferences = combine(logits)
        seconds = time.perf_counter() - began
    return _outcome(outputs, preferences, meter, seconds, before, asked=len(ends))


def score(
    job: Job,
    prepared: tuple[list[str], float],
    combined: Combiner | None = None,
) -> Outcome:
    """Run `LLM.generate` over rendered prompts, for one token with its 20 likeliest.

    Args:
        job: whose settings count.
        prepared: the prompts' texts, and the seconds that they took.
        combined: from the prompts' logits to preferences; by default `combine`.
    """
    texts, before = prepared
    with Meter() as meter, _llm(job) as llm:
        from vllm import SamplingParams

        wanted = SamplingParams(max_tokens=1, temperature=0.0, logprobs=20)
        began = time.perf_counter()
        outputs = llm.generate(texts, wanted, use_tqdm=False)
        preferences = (combined or combine)([_likeliest(output) for output in outputs])
        seconds = time.perf_counter() - began
        prompts = [output.prompt_token_ids for output in outputs]
        oracle = ask_oracle(llm.llm_engine.vllm_config, prompts)
    return _outcome(outputs, preferences, meter, seconds, before, oracle=oracle)


def _rendered(job: Job) -> tuple[list[str], float]:
    """Render the prompts of all rows, ab next to ba; also return the seconds it took."""
    template = pairwise_template(encoder_of(job.judge))
    began = time.perf_counter()
    texts = [fill(template, slots) for slots in both_orders(workloads.read(job.shards))]
    return texts, time.perf_counter() - began


def fill(template: str, slots: Mapping[str, str]) -> str:
    """Fill the slots of a template; marks inside data stay as they are."""
    return _SLOT.sub(lambda mark: slots[mark[1]], template)


def combine(logits: Sequence[float]) -> list[float]:
    """Combine by Steelyard's rule: the sigmoid of the mean logit of both orders."""
    means = ((ab - ba) / 2 for ab, ba in zip(logits[::2], logits[1::2], strict=True))
    return [1 / (1 + math.exp(-max(-700.0, min(700.0, mean)))) for mean in means]


def _likeliest(output: Any) -> float:
    """Sum the forms of a label; a form that is not among the 20 gets the least of their values."""
    found = output.outputs[0].logprobs[0].values()
    masses = {"A": 0.0, "B": 0.0}
    for one in found:
        label = (one.decoded_token or "").strip()
        if label in masses:
            masses[label] += math.exp(one.logprob)
    least = math.exp(min(one.logprob for one in found))
    return math.log(masses["A"] or least) - math.log(masses["B"] or least)


def _written(output: Any) -> float:
    """Take the letter that it wrote as certain; without a letter it is undecided."""
    letter = _LABEL.search(output.outputs[0].text)
    return 0.0 if letter is None else CERTAIN if letter[1] == "A" else -CERTAIN


def _of_choice(output: Any, ids: list[int]) -> float:
    last = output.prompt_logprobs[-len(ids) :]
    return sum(float(row[id_].logprob) for row, id_ in zip(last, ids, strict=True))


def _first(item: tuple[int, Any]) -> int:
    return item[0]


def _outcome(
    outputs: Sequence[Any],
    preferences: list[float],
    meter: Meter,
    seconds: float,
    before: float,
    *,
    asked: int = 1,
    oracle: int = 0,
) -> Outcome:
    """Summarise a run; each prompt was fed `asked` times, and is needed once."""
    sent = sum(len(output.prompt_token_ids) for output in outputs)
    cached = sum(output.num_cached_tokens or 0 for output in outputs)
    return Outcome(
        verdicts=len(preferences),
        logical=sent // asked,
        sent=sent,
        computed=meter.scheduled or sent - cached,
        oracle=oracle,
        cached=cached,
        seconds=seconds,
        before=before,
        idle=meter.idle,
        preferences=preferences,
    )


@contextmanager
def _llm(job: Job) -> Iterator[Any]:
    from vllm import LLM

    made = LLM(**{**job.settings, "skip_tokenizer_init": False})
    try:
        yield made
    finally:
        shut_down(made.llm_engine)
