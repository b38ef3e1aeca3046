"""Images behind the door: keys, prompts in both orders, resume, reuse, the engine's input."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.core.batches import Workload
from steelyard.core.config import RunConfig
from steelyard.core.images import decode_image, image_digest, write_digests
from steelyard.core.progress import Reporter
from steelyard.errors import IntegrityFault, UsageError
from steelyard.judge.scripted import CONTROL, ByteEncoder, ScriptedJudge
from steelyard.judge.vllm.inputs import image_prompt, render_prompt
from steelyard.plan.keys import plan_batch
from steelyard.prompts.forms import image_blocks, make_form
from steelyard.prompts.judging import resolve_spec
from steelyard.prompts.prepared import make_forms
from steelyard.protocols import get_protocol, protocol_names
from steelyard.scoring.run import resume, score
from steelyard.store.folder import Folder
from steelyard.store.images import ImageStore
from support import tiny
from support.helpers import pairs_table, pairwise_key_spec
from support.pictures import BLUE, GREEN, RED, table, write

QUIET = Reporter(quiet=True)


def config(folder, **options):
    values = {"inputs": [str(folder)], "judge": "scripted", **options}
    return RunConfig.from_mapping(values, "test")


SETS = [(RED,), (RED, BLUE), (BLUE, RED), (), (GREEN,), (RED,), (), (BLUE,)]


@pytest.fixture
def scored(tmp_path):
    """Eight pairs of two instructions, some with images, scored by script."""
    shards = write(tmp_path / "in", table([list(one) for one in SETS], instructions=2))
    assert score(config(shards), tmp_path / "run", QUIET) == 0
    return shards, tmp_path / "run"


def planned(images, key_spec):
    """The planner's columns for one pair with these images."""
    folder = pairs_table(1).to_pylist()[0]
    columns = {name: folder[name] for name in ("instruction", "response_a", "response_b")}
    columns |= {"shard": "s", "row": 0, "images": write_digests(images) if images else None}
    schema = steelyard.core.schemas.INTAKE
    return plan_batch(pa.RecordBatch.from_pylist([columns], schema), key_spec)


def keys(images, key_spec):
    return planned(images, key_spec).pairs["keys"].to_pylist()[0]


def test_keys_depend_on_the_images_and_their_order():
    text = pairwise_key_spec()
    key_spec = replace(text, pictured=((b"p" * 16,),))
    a, b = image_digest(RED), image_digest(BLUE)
    found = [keys(one, key_spec) for one in ((), (a,), (b,), (a, b), (b, a), (a, a))]
    assert len({key for pair in found for key in pair}) == 2 * len(found)
    assert found[0] == keys((), text)
    assert keys((a,), replace(text, pictured=((b"q" * 16,),))) != found[1]
    ids = [planned(one, key_spec).pairs["pair_id"][0].as_py() for one in ((), (a,), (b,))]
    assert len(set(ids)) == 3


def planned_pairs(run):
    return pq.read_table(run / "plan/pairs-00000.parquet").to_pylist()


def test_rows_without_images_have_the_keys_of_a_run_without_images(scored, tmp_path):
    shards, run = scored
    plain = pq.read_table(shards).drop_columns("images")
    text = write(tmp_path / "text", plain)
    assert score(config(text), tmp_path / "plain", QUIET) == 0
    with_images, without = (
        {row["row"]: (row["pair_id"], row["keys"]) for row in planned_pairs(one)}
        for one in (run, tmp_path / "plain")
    )
    for row, images in enumerate(SETS):
        assert (with_images[row] == without[row]) == (not images)


@pytest.mark.parametrize("name", sorted(set(protocol_names())))
def test_every_protocol_shows_images_before_all_text_of_the_user(name):
    protocol, encoder = get_protocol(name), ByteEncoder()
    plain = make_form(protocol, encoder)
    form = make_form(protocol, encoder, images=True)
    assert form.templates == plain.templates
    assert form.pictured.keys() == form.templates.keys()
    for filled, text in form.templates.items():
        head, user, rest = text.rpartition("<|user|>")
        for images in (1, 3, 8):
            assert form.template(filled, images) == head + user + "<|image|>" * images + rest


def test_numbered_and_separated_images_are_told_apart():
    class Numbered(ByteEncoder):
        def render_chat(self, messages):
            (message,) = messages
            shown = "".join(f"Picture {at + 1}: <|image|>\n" for at in range(message.images))
            return f"<|user|>{shown and shown + '--'}{message.content}<|assistant|>"

    opening, blocks = image_blocks(Numbered())
    assert opening == "Picture 1: <|image|>\n--"
    assert blocks[:2] == ("--", "Picture 2: <|image|>\n--")


def prompts_of(run, monkeypatch):
    """What the judge is given when the reads of a run are made again: key -> ids, images."""
    seen = {}
    read = ScriptedJudge.read

    def spy(self, batches):
        def noted():
            for batch in batches:
                for at, key in enumerate(batch.keys):
                    seen[key] = (batch.ids(at), batch.images[at] if batch.images else ())
                yield batch

        return read(self, noted())

    monkeypatch.setattr(ScriptedJudge, "read", spy)
    return seen


def test_both_orders_begin_alike_and_carry_the_images(tmp_path, monkeypatch):
    seen = prompts_of(None, monkeypatch)
    shards = write(tmp_path / "in", table([list(one) for one in SETS]))
    assert score(config(shards), tmp_path / "run", QUIET) == 0
    for pair, images in zip(planned_pairs(tmp_path / "run"), SETS, strict=True):
        (ab, shown), (ba, other) = (seen[key] for key in pair["keys"])
        assert shown == other == tuple(map(image_digest, images))
        begin = ab.index(CONTROL["<|user|>"]) + 1
        block = [CONTROL["<|image|>"]] * len(images)
        assert ab[begin : begin + len(images)] == ba[begin : begin + len(images)] == block
        assert CONTROL["<|image|>"] not in ab[begin + len(images) :]
        shared = next(at for at, (x, y) in enumerate(zip(ab, ba, strict=False)) if x != y)
        assert shared > begin + len(images)


def test_prompts_with_equal_images_stand_together(tmp_path, monkeypatch):
    seen = prompts_of(None, monkeypatch)
    sets = [[RED], [BLUE]] * 4
    shards = write(tmp_path / "in", table(sets, instructions=1))
    assert score(config(shards), tmp_path / "run", QUIET) == 0
    order = [images for _, images in seen.values()]
    assert len(order) == 16
    assert sum(x != y for x, y in pairwise(order)) == 1


def verdicts(run):
    query = 'SELECT pair_id, raw_preference FROM verdicts ORDER BY shard, "row"'
    return steelyard.open_run(run).sql(query).to_pylist()


def test_images_are_kept_once_and_change_the_verdict(scored):
    _, run = scored
    kept = sorted(path.name for path in (run / "images").rglob("*") if path.is_file())
    assert kept == sorted(map(image_digest, {RED, BLUE, GREEN}))
    manifest = json.loads((run / "plan" / "plan.json").read_text())
    assert manifest["images"] == 2
    assert not manifest["ranges"]  # texts are copied: shards are not read again
    assert len({row["raw_preference"] for row in verdicts(run)}) == len(SETS)


def test_resume_without_the_input_equals_one_pass(scored, tmp_path):
    shards, run = scored
    stop = threading.Event()

    class Stopping(Reporter):
        def scoring(self, counts):
            stop.set()

    other = tmp_path / "other"
    assert score(config(shards, part_rows=1), other, Stopping(quiet=True), stop) in (0, 130)
    (shards / "pairs.parquet").rename(tmp_path / "away.parquet")
    assert resume(other, QUIET) == 0
    assert verdicts(other) == verdicts(run)


def test_reuse_asks_for_nothing(scored, tmp_path, monkeypatch):
    shards, run = scored
    seen = prompts_of(None, monkeypatch)
    assert score(config(shards, reuse=[str(run)]), tmp_path / "again", QUIET) == 0
    assert not seen
    assert verdicts(tmp_path / "again") == verdicts(run)


def test_plan_counts_and_keeps_nothing(scored):
    from steelyard.scoring.estimate import dry_run

    found = dry_run(config(scored[0]), QUIET)
    assert found["pairs"] == len(SETS)
    assert found["cache"] is None


def test_images_stay_with_their_prompts_when_the_engine_dies(scored, tmp_path):
    """Suspects are read again in other batches."""
    shards, run = scored
    assert score(config(shards, judge="scripted:fail=0.1"), tmp_path / "failing", QUIET) == 4
    query = 'SELECT status, raw_preference FROM verdicts ORDER BY shard, "row"'
    found = steelyard.open_run(tmp_path / "failing").sql(query).to_pylist()
    good = [at for at, row in enumerate(found) if row["status"] == "ok"]
    assert 0 < len(good) < len(SETS)
    expected = verdicts(run)
    for at in good:
        assert found[at]["raw_preference"] == expected[at]["raw_preference"]


class TextOnly(ScriptedJudge):
    images = None


def test_a_judge_of_texts_is_refused_before_anything_is_read():
    spec, examples = resolve_spec(config("in"))
    with pytest.raises(
        UsageError, match=r"'photo' holds images, and scripted.* text only"
    ) as found:
        make_forms(TextOnly(), spec, examples, images="photo")
    assert "--map images=" in found.value.remedy


def test_a_chat_template_without_images_is_refused():
    class Blind(ByteEncoder):
        def render_chat(self, messages):
            return "".join(message.content for message in messages)

    with pytest.raises(steelyard.errors.JudgeUnavailable, match="shows no images"):
        make_form(get_protocol("pairwise"), Blind(), images=True)


def test_the_engine_is_given_ids_images_and_digests(tmp_path):
    store = ImageStore(Folder(tmp_path))
    digests = [image_digest(one) for one in (RED, BLUE)]
    for digest, raw in zip(digests, (RED, BLUE), strict=True):
        store.add(digest, raw)
    prompt = image_prompt(store, [5, 6], digests)
    assert prompt["prompt_token_ids"] == [5, 6]
    assert prompt["multi_modal_uuids"] == {"image": digests}
    for raw, shown in zip((RED, BLUE), prompt["multi_modal_data"]["image"], strict=True):
        assert np.array_equal(np.asarray(shown), np.asarray(decode_image(raw)))
    assert render_prompt(object(), prompt) is prompt


def test_a_damaged_image_of_the_run_is_noticed(tmp_path):
    store, digest = ImageStore(Folder(tmp_path)), image_digest(RED)
    with pytest.raises(IntegrityFault, match="damaged or missing"):
        store.get(digest)
    store.add(digest, RED)
    assert store.get(digest) == RED
    (tmp_path / digest[:2] / digest).write_bytes(RED[:-1])
    with pytest.raises(IntegrityFault, match="damaged or missing"):
        store.get(digest)
    store.add(digest, RED)
    assert store.get(digest) == RED


def test_scripted_reads_depend_on_the_digests():
    judge = ScriptedJudge()
    judge.start(Workload(2, 10), tiny.answer_of(judge.encoder, "A", "B"))
    batch = tiny.batch([[1, 2], [1, 2]])
    same, other = replace(batch, images=[("x",), ("x",)]), replace(batch, images=[("x",), ("y",)])
    for one, equal in ((batch, True), (same, True), (other, False)):
        (reads,) = judge.read(iter([one]))
        assert np.array_equal(*reads.label_logprobs) == equal
