import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from steelyard.dedupe import unique_prompts
from steelyard.plan import ABSENT, MAX_BUCKETS, bucket_count, digests, key_batch
from steelyard.records import KEY_BYTES

TEXT = st.text(max_size=6)
FINGERPRINT = bytes(range(16))


def batch(rows):
    names = ("instruction", "response_a", "response_b", "system", "conversation")
    columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    columns |= {name: [None] * len(rows) for name in ("pair_id", "model_a", "model_b", "reference")}
    return pa.RecordBatch.from_pydict(
        {name: pa.array(values, pa.string()) for name, values in columns.items()}
    )


@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=30), st.integers(0, 5))
def test_digests_equal_one_hash_a_text(texts, start):
    array = pa.array(["x"] * start + texts, pa.string()).slice(start)
    expected = [ABSENT if text is None else xxhash.xxh3_128_digest(text.encode()) for text in texts]
    assert digests(array) == expected


@given(st.lists(st.tuples(TEXT, TEXT, TEXT, st.none() | TEXT, st.none() | TEXT), min_size=1))
def test_keys_are_equal_exactly_where_prompts_are(rows):
    keys = key_batch(batch(rows), FINGERPRINT, 7)
    prompts = {}
    for (instruction, a, b, system, conversation), ab, ba in zip(
        rows, keys.key_ab, keys.key_ba, strict=True
    ):
        prompts.setdefault((system, conversation, instruction, a, b), set()).add(ab)
        prompts.setdefault((system, conversation, instruction, b, a), set()).add(ba)
    assert all(len(found) == 1 for found in prompts.values())
    assert len(set.union(*prompts.values())) == len(prompts)


def test_keys_depend_on_the_judge_and_pair_ids_do_not():
    rows = [("q", "a", "b", None, None)]
    one, other = (key_batch(batch(rows), print_, 1) for print_ in (FINGERPRINT, bytes(16)))
    assert one.key_ab != other.key_ab
    assert one.pair_id == other.pair_id
    assert one.key_ab != one.key_ba


def test_equal_instructions_share_a_bucket():
    rows = [(f"q{i % 20}", f"a{i}", "b", None, None) for i in range(200)]
    keys = key_batch(batch(rows), FINGERPRINT, 8)
    places = {}
    for (instruction, *_), bucket in zip(rows, keys.bucket.tolist(), strict=True):
        places.setdefault(instruction, set()).add(bucket)
        assert 0 <= bucket < 8
    assert all(len(found) == 1 for found in places.values())
    assert len(set(keys.bucket.tolist())) > 1


def test_bucket_count():
    assert bucket_count(0) == 1
    assert bucket_count(100, 10) == 10
    assert bucket_count(101, 10) == 11
    assert bucket_count(10**15) == MAX_BUCKETS


KEYS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40)


@given(KEYS)
def test_dedupe_then_expand_is_the_identity(pairs):
    ab = b"".join(bytes([a]) * KEY_BYTES for a, _ in pairs)
    ba = b"".join(bytes([b]) * KEY_BYTES for _, b in pairs)
    unique = unique_prompts(ab, ba)
    assert b"".join(unique.keys[at] for at in unique.inverse.tolist()) == ab + ba
    assert len(set(unique.keys)) == len(unique.keys)
    both = ab + ba
    for key, first in zip(unique.keys, unique.first.tolist(), strict=True):
        assert both[KEY_BYTES * first :][:KEY_BYTES] == key
