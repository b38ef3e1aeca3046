import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from steelyard.core.schemas import KEY, KEY_BYTES, KEYS
from steelyard.plan.dedupe import GroupOrder, SeenTexts, count_unique, unique_prompts
from steelyard.plan.keys import (
    ABSENT,
    MAX_BUCKETS,
    BucketSize,
    as_keys,
    as_words,
    bucket_count,
    digests,
    plan_batch,
)
from steelyard.store.plan.splitting import split
from support.helpers import pairwise_key_spec
from support.planned_rows import intake

TEXT = st.text(st.characters(exclude_categories=["Z", "C"]), max_size=6)
FINGERPRINT = bytes(range(16))


def keys(rows, fingerprint=FINGERPRINT):
    planned = plan_batch(intake(rows), pairwise_key_spec(fingerprint))
    both = planned.pairs["keys"].to_pylist()
    assert all(len(found) == 2 for found in both)
    return [*map(list, zip(*both, strict=True)), planned.pairs["pair_id"].to_pylist()]


@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=30), st.integers(0, 5))
def test_digests_equal_one_hash_a_text(texts, start):
    array = pa.array(["x"] * start + texts, pa.string()).slice(start)
    expected = [ABSENT if text is None else xxhash.xxh3_128_digest(text.encode()) for text in texts]
    assert digests(array) == expected


@given(st.lists(st.tuples(TEXT, TEXT, TEXT, st.none() | TEXT, st.none() | TEXT), min_size=1))
def test_keys_are_equal_exactly_where_prompts_are(rows):
    prompts = {}
    for (instruction, a, b, system, turn), ab, ba in zip(rows, *keys(rows)[:2], strict=True):
        head = (system or None, turn or None, instruction)
        prompts.setdefault((*head, a, b), set()).add(ab)
        prompts.setdefault((*head, b, a), set()).add(ba)
    assert all(len(found) == 1 for found in prompts.values())
    assert len(set.union(*prompts.values())) == len(prompts)


def test_the_key_rule():
    """Parts of other versions stay usable only while keys are made as they were."""
    digest = xxhash.xxh3_128_digest
    q, one, other, system, turn = (digest(t) for t in (b"q", b"a", b"b", b"sys", b"User: t"))
    ab, ba, ids = keys([(" q\n", "a ", "\tb", " sys", "t")])
    head = FINGERPRINT + turn + q + ABSENT + system  # by the slots' names; no reference
    assert ab == [digest(head + one + other)]
    assert ba == [digest(head + other + one)]
    # Columns in their order: no turns of each response, reference, criteria or models.
    texts = q + one + other + system + turn
    assert ids == [xxhash.xxh3_128_hexdigest(texts + 6 * ABSENT)]


def test_keys_depend_on_the_judge_and_pair_ids_do_not():
    rows = [("q", "a", "b", None, None)]
    (one_ab, one_ba, one_id), (other_ab, _, other_id) = keys(rows), keys(rows, bytes(16))
    assert one_ab != other_ab
    assert one_id == other_id
    assert one_ab != one_ba


def test_planned_texts_are_those_whose_digests_are_given():
    rows = [(f" q{i % 5} ", f"a{i}", "", "s" if i % 2 else "  ", None) for i in range(20)]
    planned = plan_batch(intake(rows), pairwise_key_spec(FINGERPRINT))
    assert set(planned.digests) == {"instruction", "response_a", "response_b", "system"}
    for name, words in planned.digests.items():
        assert words.tobytes() == b"".join(digests(planned.texts[name]))
    assert planned.texts["system"].to_pylist() == [None, "s"] * 10
    assert planned.text_bytes.tolist() == [2 + len(f"a{i}") + i % 2 for i in range(20)]


def test_bucket_count():
    size = BucketSize(10, 0)
    assert bucket_count(0, size) == 1
    assert bucket_count(100, size) == 10
    assert bucket_count(101, size) == 11
    assert bucket_count(10**15, size) == MAX_BUCKETS == 512


def test_pairs_weigh_by_their_texts_or_by_their_prompts():
    """Of 64 MiB for prompts, where the texts have 32; a prompt counts 256 bytes besides."""
    size = BucketSize(32 << 20, template_bytes=744)
    texts, prompts = np.array([24, 100_000, 100_000, 1000]), np.array([2, 2, 1, 20])
    assert size.weigh(texts, prompts).tolist() == [1024, 101_000, 100_000, 20_000]


def test_prompts_do_not_make_small_buckets_smaller():
    """There is room for 16 MiB of prompts however small buckets are: 1/8 of 128 are 16 times 1."""
    size = BucketSize(1 << 20, template_bytes=744)
    assert size.weigh(np.array([24]), np.array([32])).tolist() == [2048]


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=40), st.integers(0, 3))
def test_dedupe_then_expand_is_the_identity(pairs, start):
    rows = [[bytes([value]) * KEY_BYTES for value in pair] for pair in pairs]
    unique = unique_prompts(pa.array([[bytes(KEY_BYTES)]] * start + rows, KEYS).slice(start))
    flat = [key for row in rows for key in row]
    assert [unique.keys[at] for at in unique.inverse.tolist()] == flat
    assert len(set(unique.keys)) == len(unique.keys)
    assert [flat.index(key) for key in unique.keys] == unique.first.tolist()
    assert np.diff(unique.starts).tolist() == [len(row) for row in rows]
    assert unique.pairs.tolist() == [pair for pair, row in enumerate(rows) for _ in row]


def words(values):
    """Values as digests would be: two words each."""
    hashed = b"".join(xxhash.xxh3_128_digest(str(value).encode()) for value in values)
    return np.frombuffer(hashed, dtype="<u8").reshape(-1, 2)


@given(st.lists(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)))
def test_unique_keys_are_counted(found):
    assert count_unique(pa.chunked_array([pa.array(found, KEY)])) == len(set(found))


@given(st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=1)))
def test_texts_are_written_at_least_once_a_bucket_and_rarely_twice(batches):
    seen, written = SeenTexts(1 << 12), []
    for rows in batches:
        texts, buckets = zip(*rows, strict=True)
        new = seen.new(words(texts), np.asarray(buckets, dtype=np.int32))
        fresh = [row for row, is_new in zip(rows, new.tolist(), strict=True) if is_new]
        assert len(set(fresh)) == len(fresh)
        written += fresh
    assert set(written) == {row for rows in batches for row in rows}
    assert len(written) <= len(set(written)) + 8  # two may want one slot by turns


def test_a_full_memory_forgets_and_makes_nothing_up():
    seen, buckets = SeenTexts(4), np.zeros(300, dtype=np.int32)
    first, second = words(range(300)), words(range(300, 600))
    assert seen.new(first, buckets).all()
    assert seen.new(second, buckets).all()
    assert seen.new(first, buckets).all()


@given(st.lists(st.lists(st.integers(0, 6), min_size=1), min_size=1))
def test_stretches_of_equal_values(batches):
    """Naive twin: a value may not come again once another one was there."""
    groups, last, ended = GroupOrder(), None, set()
    for values in batches:
        expected = []
        for value in values:
            expected.append(value != last)
            if value != last:
                ended.add(last)
                if value in ended:
                    expected = None
                    break
                last = value
        found = groups.starts(words(values)[:, 0])
        if expected is None:
            assert found is None
            return
        assert found.tolist() == expected


def test_many_stretches_stay_small():
    groups = GroupOrder()
    values = np.random.default_rng(0).permutation(np.arange(100_000, dtype=np.uint64))
    for part in np.array_split(values, 100):
        assert groups.starts(part).all()
    assert len(groups._runs) <= 12
    assert sum(map(len, groups._runs)) == 100_000
    assert groups.starts(values[777:778]) is None


RESPONSES = st.integers(0, 12)


@given(
    st.lists(st.tuples(st.integers(0, 3), RESPONSES, RESPONSES, st.integers(1, 90)), min_size=1),
    st.integers(50, 500),
)
def test_pieces_keep_equal_prompts_together(rows, target):
    instruction, a, b = (words([row[at] for row in rows])[:, 0] for at in range(3))
    size = np.asarray([row[3] for row in rows], dtype=np.int64)
    pieces = split(instruction, a, b, size, target)
    assert set(pieces.tolist()) == set(range(max(pieces) + 1))
    cells, weights = {}, {}
    for (group, one, other, _), piece in zip(rows, pieces.tolist(), strict=True):
        cells.setdefault((group, frozenset((one, other))), set()).add(piece)
    assert all(len(found) == 1 for found in cells.values())
    for group, *_, weight in rows:
        weights[group] = weights.get(group, 0) + weight
    for group, weight in weights.items():
        if weight <= 2 * target:  # an instruction that fits is not torn apart
            assert (
                len({p for row, p in zip(rows, pieces.tolist(), strict=True) if row[0] == group})
                == 1
            )


def test_pieces_are_near_their_target():
    """A tournament and a comparison with one baseline, each a single instruction."""
    draw = np.random.default_rng(0)
    count, size = 40_000, np.full(40_000, 1000)
    same = words([1] * count)[:, 0]
    pool = words(range(400))[:, 0]
    for a, b in (
        (pool[draw.integers(0, 400, count)], pool[draw.integers(0, 400, count)]),
        (same, words(range(count))[:, 0]),
    ):
        weights = np.bincount(split(same, a, b, size, 1_000_000)) * 1000
        assert 35 <= len(weights) <= 45
        assert weights.max() <= 2_000_000


def test_digests_as_words_and_back():
    digests = [bytes(range(16)), None, b"\xff" * 16]
    words = [[0x0706050403020100, 0x0F0E0D0C0B0A0908], [0, 0], [2**64 - 1, 2**64 - 1]]
    column = pa.array(digests, KEY)
    assert as_words(column).tolist() == words
    assert as_words(column.slice(2)).tolist() == words[2:]
    assert as_words(column.slice(1, 1)).tolist() == [[0, 0]]
    assert as_keys(np.array(words, np.uint64)).to_pylist() == digests
    assert as_keys(np.array(words[::-2], np.uint64)).to_pylist() == digests[::-2]
    assert as_keys(np.array([[0, 1], [1, 0]], np.uint64)).null_count == 0
    assert as_words(pa.array([], KEY)).shape == (0, 2)
