"""What an engine's outputs count as, with an engine that plays back a script."""

from types import SimpleNamespace

import numpy as np
import pytest

from steelyard.core.batches import PromptBatch, TokenRows
from steelyard.core.judges import Answer, LabelSet
from steelyard.judge.base import EngineClock
from steelyard.judge.readout import TextReader
from steelyard.judge.scripted import ByteEncoder
from steelyard.judge.vllm.requests import RequestQueue, iter_prompts, read_batch

ENCODER = ByteEncoder()
PROMPT, TEXT, VERDICT = b"Which is better?", b"Both are.", b" [["


class PlaybackEngine:
    """Answers the n-th request with `texts[n]`, of whose prompt `cached[n]` tokens were cached.

    Every prompt grows by `pictured` tokens, as by those of an image beyond its placeholder.
    """

    vllm_config = SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=200),
        scheduler_config=SimpleNamespace(max_num_seqs=4),
    )

    def __init__(self, texts, cached, label_ids, pictured):
        self._answers = zip(texts, cached, strict=True)
        self._label_ids, self._pictured = label_ids, pictured
        self._waiting = []

    def add_request(self, name, prompt, sampling):
        self._waiting.append((name, prompt["prompt_token_ids"]))

    def step(self):
        waiting, self._waiting = self._waiting, []
        return [self._output(name, ids) for name, ids in waiting]

    def _output(self, name, ids):
        text, cached = next(self._answers)
        ids_shown = [id_ for token in text for id_ in (token, *self._label_ids)]
        logprobs = SimpleNamespace(token_ids=ids_shown, logprobs=[-1.5] * len(ids_shown))
        return SimpleNamespace(
            finished=True,
            request_id=name,
            prompt_token_ids=ids + [0] * self._pictured,
            num_cached_tokens=cached,
            outputs=[SimpleNamespace(token_ids=list(text), logprobs=logprobs)],
        )


def read(texts, cached, pictured=0):
    labels = LabelSet(("A", "B"), tuple(map(ENCODER.label_variants, "AB")))
    answer = Answer(labels, "reasons", max_tokens=20, verdict=tuple(VERDICT))
    queue = RequestQueue(
        PlaybackEngine(texts, cached, labels.token_ids, pictured),
        lambda key: key,
        answer,
        TextReader(answer, ENCODER),
        vocabulary=0,
        clock=EngineClock(),
        separate_process=False,
    )
    rows = TokenRows.of([list(PROMPT)])
    images = [("digest",)] if pictured else ()
    batch = PromptBatch(0, [bytes(16)], rows, np.zeros(1, dtype=bool), images)
    queue.fill(iter_prompts([batch]))
    while queue.unfinished:
        queue.step()
    return read_batch(queue.finished, answer)


@pytest.mark.parametrize(
    ("cached", "computed"),
    [
        (0, TEXT + VERDICT),
        (len(PROMPT) - 6, TEXT + VERDICT),  # the end of the prompt is computed again
        (len(PROMPT), TEXT + VERDICT),
        (len(PROMPT) + 4, TEXT[4:] + VERDICT),
        (len(PROMPT + TEXT), VERDICT),
        (len(PROMPT + TEXT) + 1, VERDICT[1:]),
    ],
)
def test_a_forced_verdict_counts_what_its_request_computed_after_the_prompt(cached, computed):
    reads = read([TEXT, b"A"], [8, cached])
    assert reads.status == ["ok"]
    assert reads.written.forced.tolist() == [True]
    assert reads.cached_tokens.tolist() == [8]
    written, label = len(TEXT), 1
    assert reads.written.output_tokens.tolist() == [written + len(computed) + label]


def test_tokens_of_an_image_belong_to_the_prompt():
    reads = read([TEXT, b"A"], [8, len(PROMPT) + 5], pictured=7)
    assert reads.prompt_tokens.tolist() == [len(PROMPT) + 7]
    assert reads.written.output_tokens.tolist() == [2 * len(TEXT) + len(VERDICT) + 1]


def test_a_verdict_in_the_text_counts_the_text():
    reads = read([b"So [[A]]"], [8])
    assert reads.written.forced.tolist() == [False]
    assert reads.written.output_tokens.tolist() == [len(b"So [[A]]")]
