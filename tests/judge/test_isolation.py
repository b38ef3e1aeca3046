import numpy as np
import pytest

from steelyard.core.batches import PromptBatch, TokenRows
from steelyard.core.schemas import STATUS_ERROR, STATUS_OK
from steelyard.errors import EngineFailed
from steelyard.judge.base import Judge
from steelyard.judge.isolation import MAX_CRASHES, MAX_LONE_CRASHES, PoisonIsolation, failed_reads
from steelyard.judge.patience import Owner


def batch(start, count, bucket=0):
    keys = [int(value).to_bytes(16, "big") for value in range(start, start + count)]
    rows = TokenRows.of([[value] for value in range(start, start + count)])
    return PromptBatch(bucket, keys, rows, np.zeros(count, np.bool_))


class Fragile(Judge):
    """Dies at some prompts, returns others without numbers some times."""

    def __init__(self, deadly=(), flaky=(), step=3):
        self.deadly, self.flaky, self.step = set(deadly), dict(flaky), step
        self.alive, self.starts, self.seen = True, 0, []

    def start(self, workload=None, answer=None):
        self.alive, self.starts = True, self.starts + 1

    def close(self):
        self.alive = False

    def read(self, batches):
        for prompts in batches:
            for start in range(0, len(prompts), self.step):
                assert self.alive
                step = prompts.slice(start, start + self.step)
                values = step.rows.tokens.tolist()
                if self.deadly & set(values):
                    self.alive = False
                    raise EngineFailed("boom", remedy="none")
                self.seen += values
                out = failed_reads(step, STATUS_OK, [None] * len(step))
                for at, value in enumerate(values):
                    if self.flaky.get(value, 0) > 0:
                        self.flaky[value] -= 1
                        out.status[at] = STATUS_ERROR
                        out.errors[at] = "not finite"
                yield out


def read(judge, batches):
    results = {}
    for reads in PoisonIsolation(judge, judge.start, lambda _: None).read(iter(batches)):
        for key, status, error in zip(reads.keys, reads.status, reads.errors, strict=True):
            assert key not in results
            results[key] = (status, error)
    return {int.from_bytes(key, "big"): value for key, value in results.items()}


@pytest.mark.parametrize("deadly", [{0}, {29}, {5, 6}, {1, 11, 25}, {12}])
def test_a_deadly_prompt_alone_is_lost(deadly):
    judge = Fragile(deadly)
    results = read(judge, [batch(0, 10), batch(10, 10, 1), batch(20, 10, 2)])
    assert set(results) == set(range(30))
    assert {value for value, (status, _) in results.items() if status != STATUS_OK} == deadly
    for value in deadly:
        assert f"died {MAX_CRASHES} times" in results[value][1]
    assert sorted(judge.seen) == sorted(set(range(30)) - deadly)


def test_an_engine_that_always_dies_is_not_blamed_on_prompts():
    judge = Fragile(range(100))
    with pytest.raises(EngineFailed):
        read(judge, [batch(0, 100)])
    assert judge.starts <= 3 * (MAX_LONE_CRASHES + 8)


def test_an_engine_that_dies_without_a_prompt_is_an_environment_fault():
    class Dead(Fragile):
        def read(self, batches):
            raise EngineFailed("gone", remedy="none")
            yield

    with pytest.raises(EngineFailed, match="gone"):
        read(Dead(), [batch(0, 3)])


def test_reads_that_are_not_finite_are_repeated_and_then_given_up():
    judge = Fragile(flaky={4: 1, 7: MAX_CRASHES - 1, 9: MAX_CRASHES + 5})
    results = read(judge, [batch(0, 10), batch(10, 5)])
    assert results[4] == (STATUS_OK, None)
    assert results[7] == (STATUS_OK, None)
    assert results[9] == (STATUS_ERROR, "not finite")
    assert judge.seen.count(9) == MAX_CRASHES
    assert set(results) == set(range(15))


class Deep(Fragile):
    """Pulls several batches before it reads any, as engines do, and dies at the first."""

    def read(self, batches):
        pulled = []
        for prompts in batches:
            pulled.append(prompts)
            if len(pulled) == 2:
                yield from super().read(iter(pulled))
                pulled = []
        yield from super().read(iter(pulled))


@pytest.mark.parametrize("judge", [Deep, Fragile])
def test_prompts_that_were_not_pulled_when_the_engine_died_again_are_read_later(judge):
    """Suspects of several buckets and of more than a batch: the first kills the engine again."""
    engine = judge({0}, flaky={35: 1, 70: 2})
    results = read(engine, [batch(0, 40), batch(40, 40, 1)])
    assert set(results) == set(range(80))
    assert [value for value, (status, _) in results.items() if status != STATUS_OK] == [0]


def test_after_a_stop_a_dead_engine_is_not_restarted():
    stopping = []
    judge = Fragile({5})
    judge.owner = Owner(stopping=lambda: bool(stopping))

    def batches():
        yield batch(0, 5)
        stopping.append(True)
        yield batch(5, 5)

    isolation = PoisonIsolation(judge, judge.start, lambda _: None)
    with pytest.raises(EngineFailed, match="boom"):
        list(isolation.read(batches()))
    assert judge.starts == 0


def test_a_stop_ends_the_search_for_the_culprit():
    stopping = []
    judge = Fragile({5, 90})
    judge.owner = Owner(stopping=lambda: bool(stopping))
    deaths = []

    def on_event(text):
        deaths.append(text)
        stopping.extend([True] * (len(deaths) == 2))

    isolation = PoisonIsolation(judge, judge.start, on_event)
    for _ in isolation.read(iter([batch(0, 100)])):
        pass
    assert judge.starts == 1
    assert ["boom" in text for text in deaths] == [True, True]
    assert len(judge.seen) < 100
