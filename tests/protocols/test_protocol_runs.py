"""Protocols from their files to verdicts, with the scripted judge."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.core.config import RunConfig
from steelyard.errors import UsageError
from steelyard.prompts.judging import resolve_spec
from steelyard.protocols import protocol_names
from steelyard.protocols.files import load_criteria, load_examples, load_protocol
from steelyard.scoring.run import score
from support.helpers import command, rows
from support.mirrored import CRITERIA, EXAMPLES, assert_mirrored, mirrored_pairs, options_of


@pytest.mark.parametrize("name", protocol_names())
def test_swapping_the_responses_mirrors_every_verdict(tmp_path, name):
    shard = mirrored_pairs(tmp_path / "pairs.parquet", 40)
    config = RunConfig(inputs=(str(shard),), judge=("scripted",), protocol=(name,),
                       **options_of(name, tmp_path))  # fmt: skip
    assert score(config, tmp_path / "run") in (0, 4)
    assert assert_mirrored(tmp_path / "run", 40) > 20
    preferences = rows(tmp_path / "run", "SELECT DISTINCT raw_preference FROM verdicts")
    assert len(preferences) > 40


def test_an_ensemble_over_judges_and_variants_mirrors_too_and_reuses_its_members(tmp_path):
    shard = mirrored_pairs(tmp_path / "pairs.parquet", 20)
    single = RunConfig(inputs=(str(shard),), judge=("scripted",))
    assert score(single, tmp_path / "single") == 0
    ensemble = RunConfig(
        inputs=(str(shard),), judge=("scripted", "scripted:seed=1"),
        protocol=("pairwise", "pairwise-brief"), reuse=(str(tmp_path / "single"),),
    )  # fmt: skip
    assert score(ensemble, tmp_path / "both") == 0
    assert assert_mirrored(tmp_path / "both", 20) == 20
    reused = rows(
        tmp_path / "both", "SELECT count(*) AS n FROM reads WHERE reused_from IS NOT NULL"
    )
    assert reused == [{"n": 40}]  # both orders of 20 pairs, and their mirrors are the same prompts
    mean = rows(
        tmp_path / "both",
        "SELECT max(abs(v.raw_preference - 1 / (1 + exp(-a.logit)))) AS most FROM verdicts v"
        ' JOIN (SELECT shard, "row", avg(logit) AS logit, count(*) AS n FROM answers GROUP BY ALL)'
        ' a USING (shard, "row") WHERE a.n = 8',
    )
    assert mean[0]["most"] < 1e-12


def test_an_ensemble_goes_on_with_the_judge_it_was_stopped_at(tmp_path):
    import threading

    from steelyard.core.progress import Reporter

    shard = mirrored_pairs(tmp_path / "pairs.parquet", 60)
    judges = ("scripted:rate=800", "scripted:seed=1,rate=800")
    config = RunConfig(inputs=(str(shard),), judge=judges,
                       part_rows=10)  # fmt: skip
    stop = threading.Event()

    class Stopping(Reporter):
        def scoring(self, counts):
            if counts.prompts > 150:
                stop.set()

    assert score(config, tmp_path / "run", Stopping(quiet=True), stop) == 130
    assert score(config, tmp_path / "run", Reporter(quiet=True)) == 0
    found = rows(
        tmp_path / "run", "SELECT count(*) AS n, count(DISTINCT prompt_key) AS k FROM reads"
    )
    assert found == [{"n": 240, "k": 240}]
    status = json.loads(command("status", tmp_path / "run", "--json").stdout)
    assert status["pairs"] == {"planned": 120, "done": 120, "uncommitted": 0}


def test_rows_bring_their_own_criteria_and_responses_alone(tmp_path):
    table = pa.table(
        {
            "instruction": ["a", "b", "c"],
            "response": ["x", "y", "z"],
            "criteria": [
                [{"text": "one", "weight": 1}, {"text": "two", "weight": 2}],
                [{"text": "one", "weight": 1}],
                [],
            ],
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    config = RunConfig(inputs=(str(tmp_path / "rows.parquet"),), judge=("scripted",),
                       protocol=("rubric",))  # fmt: skip
    assert score(config, tmp_path / "run") == 4
    run = tmp_path / "run"
    assert rows(run, "SELECT reason FROM rejects") == [{"reason": "criteria"}]
    found = rows(run, 'SELECT score_a, score_b, raw_preference FROM verdicts ORDER BY "row"')
    assert len(found) == 2
    assert all(row["score_b"] is None and row["raw_preference"] is None for row in found)
    by_hand = rows(
        run,
        'SELECT sum(weight * score) / sum(weight) AS r FROM answers GROUP BY "row" ORDER BY "row"',
    )
    assert [row["score_a"] for row in found] == pytest.approx([row["r"] for row in by_hand])


def test_examples_of_a_row_s_category(tmp_path):
    shard = mirrored_pairs(tmp_path / "pairs.parquet", 4)
    config = RunConfig(inputs=(str(shard),), judge=("scripted",), protocol=("few-shot",),
                       **options_of("few-shot", tmp_path))  # fmt: skip
    assert score(config, tmp_path / "run") == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    general, math = record["judges"][0]["part"]["forms"]
    assert "2 + 2?" in general["constants"].values()
    assert "3 + 3?" in math["constants"].values()
    assert "3 + 3?" not in json.dumps(general)
    found = rows(tmp_path / "run", "SELECT category, count(*) AS n FROM verdicts GROUP BY 1")
    assert {row["category"]: row["n"] for row in found} == {"math": 4, None: 4}


def test_criteria_from_yaml_json_and_toml_are_the_same(tmp_path):
    (tmp_path / "c.toml").write_text(CRITERIA)
    content = {"criteria": [
        {"text": "It answers the question.", "weight": 3},
        {"text": "It names a source.", "weight": 2},
        "It is short.",
    ]}  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(content))
    (tmp_path / "c.yaml").write_text(
        "criteria:\n  - {text: It answers the question., weight: 3}\n"
        "  - {text: It names a source., weight: 2}\n  - It is short.\n"
    )
    expected = load_criteria(tmp_path / "c.toml")
    assert [(one.text, one.weight) for one in expected] == [
        ("It answers the question.", 3.0), ("It names a source.", 2.0), ("It is short.", 1.0),
    ]  # fmt: skip
    assert load_criteria(tmp_path / "c.json") == load_criteria(tmp_path / "c.yaml") == expected


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("criteria = []", "no list"),
        ("other = 1", "unknown key 'other'"),
        ('criteria = ["a"]\nweigth = 2', "unknown key 'weigth'"),
        ('criteria = ["b", {text = "a", wieght = 3}]', "criterion 2: unknown key 'wieght'"),
        ('criteria = [{text = ""}]', "criterion 1"),
        ('criteria = ["a", {text = "b", weight = 0}]', "criterion 2"),
        ('criteria = [{text = "b", weight = true}]', "criterion 1"),
        ("criteria = [", "cannot be read"),
    ],
)
def test_bad_criteria(tmp_path, text, cause):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UsageError, match=cause):
        load_criteria(tmp_path / "c.toml")


def test_bad_examples(tmp_path):
    path = tmp_path / "e.toml"
    path.write_text(EXAMPLES.replace('"B"', '"C"'))
    with pytest.raises(UsageError, match="verdict of example 2"):
        load_examples(path, ("A", "B"))
    path.write_text("examples = []")
    with pytest.raises(UsageError, match="no list"):
        load_examples(path, ("A", "B"))


PAIR = "{{ context }}\n{{ first }}\n{{ second }}\n"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (f'labels = ["A"]\nuser = """{PAIR}"""', "takes 2 labels"),
        (f'labels = ["A", "A"]\nuser = """{PAIR}"""', "twice"),
        (f'labels = ["yes", "Yes "]\nuser = """{PAIR}"""', "twice"),
        (
            f'combine = "tie"\ntie_band = 0.1\nlabels = ["A", "B", "C"]\nuser = """{PAIR}"""',
            "has no effect",
        ),
        (f'label = ["A", "B"]\nuser = """{PAIR}"""', "unknown key"),
        (f'labels = ["A", "B"]\ncombine = "magic"\nuser = """{PAIR}"""', "combine"),
        (f'labels = ["A", "B"]\nshows = "response"\nuser = """{PAIR}"""', "cannot combine"),
        ('labels = ["A", "B"]\nuser = "{{ context }} {{ first }}"', "does not show second"),
        (f'labels = ["A", "B"]\nuser = """{PAIR} {{{{ nobody }}}}"""', "asks for nobody"),
        (f'labels = "AB"\nuser = """{PAIR}"""', r"\$\.labels"),
        (f'labels = ["A", "B"]\nsamples = 3\nuser = """{PAIR}"""', "cannot differ"),
        (f'answer = "reasons"\nlabels = ["A", "B"]\nuser = """{PAIR}"""', "verdict"),
        (f'labels = ["A", "B"]\ntie_band = -1\nuser = """{PAIR}"""', r">= 0.*\$\.tie_band"),
        ("labels = [", "cannot be read"),
        (
            f'labels = ["A", "B"]\nuser = """{PAIR}{{{{ \'a\' * 10**9 }}}}"""',
            "not allowed|refused|may",
        ),
    ],
)
def test_bad_protocol_files(tmp_path, text, cause):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(UsageError, match=cause):
        load_protocol(tmp_path / "p.toml")


def test_a_byte_order_mark_is_not_part_of_a_file(tmp_path):
    """As editors on Windows write it; and letters that differ in case are two labels."""
    text = f'labels = ["a", "A"]\nuser = """{PAIR}"""'
    (tmp_path / "p.toml").write_text(text, encoding="utf-8-sig")
    assert load_protocol(tmp_path / "p.toml").labels == ("a", "A")
    (tmp_path / "c.json").write_text('{"criteria": ["It is short."]}', encoding="utf-8-sig")
    assert [one.text for one in load_criteria(tmp_path / "c.json")] == ["It is short."]


def test_a_protocol_of_the_user(tmp_path):
    (tmp_path / "mine.toml").write_text(
        f'labels = ["1", "2"]\nprefix = "Number"\nuser = """{PAIR}Which one, 1 or 2?"""'
    )
    shard = mirrored_pairs(tmp_path / "pairs.parquet", 5)
    done = command("score", shard, "--run", tmp_path / "run", "--judge", "scripted",
                   "--protocol", tmp_path / "mine.toml", "--quiet")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "run", "SELECT DISTINCT protocol FROM verdicts") == [
        {"protocol": "mine"}
    ]
    (tmp_path / "mine.toml").unlink()  # run.json holds all that a resume needs
    assert command("resume", tmp_path / "run", "--quiet").returncode == 0


def test_a_slot_that_is_shown_twice_is_refused(tmp_path):
    (tmp_path / "p.toml").write_text(f'labels = ["A", "B"]\nuser = """{PAIR}{{{{ first }}}}"""')
    done = command("protocol", "check", tmp_path / "p.toml", "--judge", "scripted")
    assert done.returncode == 2
    assert "each once" in done.stdout


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"protocol": ("pairwise", "pairwise-tie")}, "differ in `combine`"),
        ({"criteria": "c.toml"}, "has no effect"),
        ({"examples": "e.toml"}, "has no effect"),
        ({"protocol": ("few-shot",)}, "needs worked examples"),
        ({"samples": 2}, "cannot differ"),
        ({"protocol": ("pairwise-tie",), "tie_band": 0.1}, "has no effect on pairwise-tie"),
        ({"tie_band": 0.5}, "a tie of every pair under pairwise"),  # a distance from 0.5
        ({"protocol": ("two-scores",), "tie_band": 9.0}, "every pair under two-scores"),  # 1 to 10
        ({"protocol": ("pointwise",), "tie_band": 4.0}, "every pair under pointwise"),  # 1 to 5
        ({"protocol": ("rubric",), "tie_band": 1.0}, "every pair under rubric"),  # shares
        ({"protocol": ("nobody",)}, "no protocol"),
        ({"protocol": ("rubric",), "criteria": "nowhere.toml"}, "cannot be read"),
    ],
)
def test_what_cannot_be_asked(options, cause):
    with pytest.raises(UsageError, match=cause):
        resolve_spec(RunConfig(**options))


def test_the_widest_tie_bands_that_leave_a_winner():
    for name, band in (("pairwise", 0.49), ("two-scores", 8.9), ("pointwise", 3.9)):
        spec, _ = resolve_spec(RunConfig(judge=("scripted",), protocol=(name,), tie_band=band))
        assert spec.protocol.tie_band == band


def test_a_protocol_file_whose_tie_band_leaves_no_winner_is_refused(tmp_path):
    (tmp_path / "p.toml").write_text(f'labels = ["A", "B"]\ntie_band = 0.5\nuser = """{PAIR}"""')
    done = command("protocol", "check", tmp_path / "p.toml", "--judge", "scripted")
    assert done.returncode == 2
    assert "a tie of every pair" in done.stdout + done.stderr


def test_the_commands_that_show_protocols():
    names = [one["name"] for one in json.loads(command("protocol", "list", "--json").stdout)]
    assert names == protocol_names()
    shown = json.loads(
        command("protocol", "show", "pairwise-tie", "--judge", "scripted", "--json").stdout
    )
    assert [one["segment"] for one in shown["segments"][1::2]] == [
        "system", "conversation", "instruction", "reference", "first", "second",
    ]  # fmt: skip
    assert shown["template_tokens"] == sum(one["tokens"] for one in shown["segments"][::2])
    assert "Jupiter is the largest planet." in shown["example"]
    for name in names:
        done = command("protocol", "check", name, "--judge", "scripted", "--json")
        states = {finding["state"] for finding in json.loads(done.stdout)}
        assert (done.returncode, states - {"ok", "note"}) == (0, set()), name


def test_a_criterion_before_the_response_is_noted(tmp_path):
    (tmp_path / "p.toml").write_text(
        'shows = "response"\nlabels = ["Yes", "No"]\ncombine = "rubric"\n'
        'user = """{{ context }}\n{{ criterion }}\n{{ response }}"""'
    )
    done = command("protocol", "check", tmp_path / "p.toml", "--judge", "scripted", "--json")
    notes = [one for one in json.loads(done.stdout) if one["state"] == "note"]
    assert done.returncode == 0
    assert "response comes after criterion" in notes[0]["found"]
