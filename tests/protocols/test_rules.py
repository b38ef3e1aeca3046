"""Worked examples, computed by hand, of every rule that makes a verdict of reads."""

import math
from dataclasses import replace

import duckdb
import pyarrow as pa
import pytest

from steelyard.core.schemas import PAIRS, READS
from steelyard.plan.spec import JudgingSpec
from steelyard.protocols import get_protocol, protocol_names
from steelyard.protocols.axes import Criterion, PromptAxes
from steelyard.protocols.rules import RULES
from steelyard.store.verdicts.views import VerdictSpec, answers_sql, verdict_sql


def spec_of(name, tie_band=None, **questions):
    protocol = get_protocol(name)
    if tie_band is not None:
        protocol = replace(protocol, tie_band=tie_band)
    axes = PromptAxes(shows=protocol.shows, **questions)
    judges = tuple(f"judge {i}" for i in range(axes.judges))
    variants = tuple(replace(protocol, name=f"{name} {i}") for i in range(axes.variants))
    return VerdictSpec(JudgingSpec(variants, axes, ()), judges)


def read(key, probabilities=None, *, numbers=None, status="ok", **more):
    """A read with these label probabilities."""
    row = dict.fromkeys(READS.names) | {
        "prompt_key": bytes([key]) * 16,
        "bucket": 0,
        "status": status,
        "truncated": False,
        "argmax_outside": None if status != "ok" else False,
        "prompt_tokens": 1,
        "cached_tokens": 0,
        "read_at": 0,
        "numbers": numbers,
    }
    if status == "ok" and probabilities:
        row |= {
            "label_logprobs": [math.log(p) for p in probabilities],
            "label_mass": sum(probabilities),
        }
    return row | more


def pair(keys, **more):
    row = dict.fromkeys(PAIRS.names) | {
        "pair": 0, "pair_id": "p", "shard": "s", "row": 0, "bucket": 0, "instruction_id": 1,
        "length_a": 1, "length_b": 1, "keys": [bytes([key]) * 16 for key in keys],
    }  # fmt: skip
    return row | more


def verdicts(spec, pairs, reads):
    with duckdb.connect() as connection:
        connection.register("pairs_raw", pa.Table.from_pylist(pairs, PAIRS))
        connection.register("reads", pa.Table.from_pylist(reads, READS))
        connection.execute("CREATE TABLE verdicts AS " + verdict_sql(spec))
        connection.execute("CREATE VIEW answers AS " + answers_sql(spec))
        found = connection.sql("FROM verdicts").to_arrow_table().to_pylist()
        answers = connection.sql("FROM answers ORDER BY prompt_key").to_arrow_table().to_pylist()
    return found, answers


def verdict(spec, reads, **more):
    (found,), _ = verdicts(spec, [pair(range(len(reads)), **more)], reads)
    return found


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_logits_are_averaged_over_both_orders():
    # ab: A to B as 4 to 1. ba: response_a stands second, B to A as 9 to 1. Mean logit: ln 6.
    found = verdict(spec_of("pairwise"), [read(0, [0.8, 0.2]), read(1, [0.05, 0.45])])
    assert found["preference_ab"] == pytest.approx(0.8, abs=1e-12)
    assert found["preference_ba"] == pytest.approx(0.9, abs=1e-12)
    assert found["raw_preference"] == pytest.approx(6 / 7, abs=1e-12)
    assert found["symmetry_deviation"] == pytest.approx(-0.1, abs=1e-12)
    assert (found["winner"], found["consistent"], found["status"]) == ("a", True, "ok")
    assert (found["label_mass_ab"], found["label_mass_ba"]) == pytest.approx((1.0, 0.5))
    assert found["raw_tie"] is None
    assert found["score_a"] is None


def test_a_judge_that_always_says_a_is_not_consistent_and_ties():
    found = verdict(spec_of("pairwise"), [read(0, [0.7, 0.3]), read(1, [0.7, 0.3])])
    assert found["raw_preference"] == pytest.approx(0.5, abs=1e-12)
    assert found["consistent"] is False
    assert found["symmetry_deviation"] == pytest.approx(0.4, abs=1e-12)


@pytest.mark.parametrize(("band", "winner"), [(0.0, "a"), (0.05, "a"), (0.11, "tie")])
def test_a_tie_band_around_one_half(band, winner):
    spec = spec_of("pairwise", tie_band=band)
    found = verdict(spec, [read(0, [0.6, 0.4]), read(1, [0.4, 0.6])])
    assert found["raw_preference"] == pytest.approx(0.6, abs=1e-12)
    assert found["winner"] == winner


def test_tie_probabilities_stay_while_sides_are_swapped():
    # ab: A .5 B .2 C .3. ba: A .1 B .6 C .3, so response_a (shown as B) has .6.
    found = verdict(spec_of("pairwise-tie"), [read(0, [0.5, 0.2, 0.3]), read(1, [0.1, 0.6, 0.3])])
    assert found["raw_tie"] == pytest.approx(0.3, abs=1e-12)
    assert found["preference_ab"] == pytest.approx(0.65, abs=1e-12)
    assert found["preference_ba"] == pytest.approx(0.75, abs=1e-12)
    assert found["raw_preference"] == pytest.approx(0.7, abs=1e-12)  # .55 + .3 / 2
    assert found["winner"] == "a"


def test_the_likeliest_of_three_wins_and_label_mass_is_normalised_away():
    # Half of the mass is elsewhere: a .2 / .5, b .05 / .5, tie .25 / .5.
    reads = [read(0, [0.1, 0.15, 0.25]), read(1, [0.05, 0.2, 0.25])]
    found = verdict(spec_of("pairwise-tie"), reads)
    assert found["raw_tie"] == pytest.approx(0.5, abs=1e-12)
    assert found["raw_preference"] == pytest.approx(0.3 + 0.25, abs=1e-12)
    assert found["winner"] == "tie"


def test_expected_score_and_mode_of_a_scale():
    # a: .1 .1 .2 .5 .1 of mass 1 -> 3.4, mode 4. b: only 2 and 3, half of the mass -> 2.4, mode 2.
    reads = [read(0, [0.1, 0.1, 0.2, 0.5, 0.1]), read(1, [1e-12, 0.3, 0.2, 1e-12, 1e-12])]
    found = verdict(spec_of("pointwise"), reads)
    assert found["score_a"] == pytest.approx(3.4, abs=1e-9)
    assert found["score_b"] == pytest.approx(2.4, abs=1e-9)
    assert (found["hard_score_a"], found["hard_score_b"]) == (4.0, 2.0)
    assert found["raw_preference"] == pytest.approx(sigmoid(1.0), abs=1e-9)
    assert found["winner"] == "a"
    assert found["preference_ab"] is None
    assert found["consistent"] is None


def test_a_scale_that_begins_at_zero_and_one_that_is_shifted():
    even = [1 / 6] * 6
    found = verdict(spec_of("additive-5"), [read(0, even), read(1, even)])
    assert found["score_a"] == pytest.approx(2.5, abs=1e-12)
    assert found["winner"] == "tie"
    tenth = [0.1] * 10
    found = verdict(spec_of("pointwise-10"), [read(0, tenth), read(1, tenth)])
    assert found["score_a"] == pytest.approx(5.5, abs=1e-12)


def test_a_response_alone_has_a_score_and_no_preference():
    found = verdict(spec_of("pointwise"), [read(0, [0.2] * 5)], length_b=None)
    assert found["score_a"] == pytest.approx(3.0, abs=1e-12)
    assert found["score_b"] is None
    assert found["raw_preference"] is None
    assert found["winner"] is None
    assert found["status"] == "ok"


RUBRIC = (Criterion("one", 3.0), Criterion("two", 2.0), Criterion("three", 1.0))


def rubric_reads(missing=()):
    # criterion by criterion, a then b
    yes = [(0.9, 0.1), (0.6, 0.5), (0.2, 1 - 1e-12)]
    reads = []
    for p_a, p_b in yes:
        for p in (p_a, p_b):
            key = len(reads)
            if key in missing:
                reads.append(read(key, status="error", error="no"))
            else:
                reads.append(read(key, [p, 1 - p]))
    return reads


def test_a_weighted_rubric():
    found = verdict(spec_of("rubric", criteria=RUBRIC), rubric_reads())
    score_a = (3 * 0.9 + 2 * 0.6 + 0.2) / 6
    score_b = (3 * 0.1 + 2 * 0.5 + 1) / 6
    assert found["score_a"] == pytest.approx(score_a, abs=1e-9)
    assert found["score_b"] == pytest.approx(score_b, abs=1e-9)
    assert found["hard_score_a"] == pytest.approx(5 / 6)
    assert found["hard_score_b"] == pytest.approx(3 / 6)  # P(yes) = 0.5 is a yes
    assert found["raw_preference"] == pytest.approx(sigmoid(score_a - score_b), abs=1e-9)


def test_a_missing_answer_of_a_rubric_is_a_no_with_its_weight_kept():
    found = verdict(spec_of("rubric", criteria=RUBRIC), rubric_reads(missing={2}))
    assert found["score_a"] == pytest.approx((3 * 0.9 + 0.2) / 6, abs=1e-9)
    assert found["hard_score_a"] == pytest.approx(3 / 6)
    assert "missing_answers" in found["flags"]
    assert found["status"] == "ok"


def test_a_rubric_without_any_answer_about_a_side_is_no_verdict():
    found = verdict(spec_of("rubric", criteria=RUBRIC), rubric_reads(missing={1, 3, 5}))
    assert found["status"] == "error"
    assert found["score_a"] is None
    assert found["winner"] is None


def test_criteria_of_the_rows_themselves():
    spec = spec_of("rubric", row_criteria=True)
    criteria = [{"text": "x", "weight": 1.0}, {"text": "y", "weight": 4.0}]
    reads = [read(0, [0.5, 0.5]), read(1, [1.0, 1e-30]), read(2, [1.0, 1e-30])]
    pairs = [
        pair([0, 1], length_b=None, criteria=criteria),
        pair([2], length_b=None, criteria=criteria[:1], pair=1, row=1),
    ]
    found, answers = verdicts(spec, pairs, reads)
    scores = {row["row"]: row["score_a"] for row in found}
    assert scores == pytest.approx({0: (0.5 + 4) / 5, 1: 1.0})
    assert [(row["criterion"], row["weight"]) for row in answers] == [
        ("x", 1.0), ("y", 4.0), ("x", 1.0),
    ]  # fmt: skip


def scores_reads(pairs, broken=()):
    # sample by sample, ab then ba; a score pair is (first shown, second shown)
    return [
        read(key, numbers=None if key in broken else list(scores),
             status="unparsable" if key in broken else "ok")
        for key, scores in enumerate(pairs)
    ]  # fmt: skip


FAIREVAL = [(8, 7), (6, 8), (9, 7), (7, 8), (7, 7), (5, 9)]  # k = 3: six score pairs


def test_the_2k_score_pairs_of_faireval():
    found = verdict(spec_of("two-scores", samples=3), scores_reads(FAIREVAL))
    # a: 8 9 7 first, 8 8 9 second. b: 7 7 7 second, 6 7 5 first.
    assert found["score_a"] == pytest.approx(49 / 6, abs=1e-12)
    assert found["score_b"] == pytest.approx(39 / 6, abs=1e-12)
    assert found["raw_preference"] == pytest.approx(sigmoid(10 / 6), abs=1e-12)
    assert found["preference_ab"] == pytest.approx(sigmoid(1), abs=1e-12)
    assert found["preference_ba"] == pytest.approx(sigmoid(7 / 3), abs=1e-12)
    assert found["winner"] == "a"


def test_a_sample_that_cannot_be_parsed_is_left_out_and_orders_stay_balanced():
    found = verdict(spec_of("two-scores", samples=3), scores_reads(FAIREVAL, broken={0, 2}))
    # a: 7 in ab, mean of 8 8 9 in ba.
    assert found["score_a"] == pytest.approx((7 + 25 / 3) / 2, abs=1e-12)
    assert "missing_answers" in found["flags"]
    assert found["status"] == "ok"


def test_an_order_without_any_parsed_sample_is_no_verdict():
    found = verdict(spec_of("two-scores", samples=3), scores_reads(FAIREVAL, broken={1, 3, 5}))
    assert found["status"] == "unparsable"
    assert found["raw_preference"] is None


@pytest.mark.parametrize(("scores", "winner"), [((8.1, 8.0), "tie"), ((8.2, 8.0), "a")])
def test_scores_that_differ_by_a_tenth_tie(scores, winner):
    reads = scores_reads([scores, scores[::-1]])
    assert verdict(spec_of("two-scores", samples=1), reads)["winner"] == winner


def test_stated_probabilities_are_averaged_after_the_swap():
    reads = [read(0, numbers=[0.9]), read(1, numbers=[0.3])]  # of the response that stands first
    found = verdict(spec_of("verbalized"), reads)
    assert found["preference_ab"] == pytest.approx(0.9)
    assert found["preference_ba"] == pytest.approx(0.7)
    assert found["raw_preference"] == pytest.approx(0.8)


def test_an_ensemble_is_the_mean_of_its_judges_logits():
    # judge 0: odds 4 and 4. judge 1: odds 1 and 16 -> mean of four logits = ln (4*4*1*16)^(1/4).
    probabilities = [(0.8, 0.2), (0.2, 0.8), (0.5, 0.5), (1 / 17, 16 / 17)]
    reads = [read(key, list(p)) for key, p in enumerate(probabilities)]
    found = verdict(spec_of("pairwise", judges=2), reads)
    odds = 256 ** (1 / 4)
    assert found["raw_preference"] == pytest.approx(odds / (1 + odds), abs=1e-12)
    assert found["judge"] == "judge 0 + judge 1"
    both = verdict(spec_of("pairwise", variants=2), reads)
    assert both["raw_preference"] == found["raw_preference"]


def test_members_say_what_each_judge_says_alone():
    """Odds of judge 0: 4 in both orders; of judge 1: 1 and 16."""
    probabilities = [(0.8, 0.2), (0.2, 0.8), (0.5, 0.5), (1 / 17, 16 / 17)]
    reads = [read(key, list(p)) for key, p in enumerate(probabilities)]
    found = verdict(spec_of("pairwise", judges=2), reads)["members"]
    log = math.log
    assert [row.pop("judge") for row in found] == ["judge 0", "judge 1"]
    assert [row.pop("protocol") for row in found] == ["pairwise 0"] * 2
    assert found == [
        pytest.approx({"logit": log(4), "logit_ab": log(4), "logit_ba": log(4), "share": None}),
        pytest.approx({"logit": log(4), "logit_ab": 0, "logit_ba": log(16), "share": None}),
    ]
    variants = verdict(spec_of("pairwise", variants=2), reads)["members"]
    assert [row["logit_ba"] for row in variants] == pytest.approx([log(4), log(16)])


def test_members_of_other_rules():
    tie = verdict(
        spec_of("pairwise-tie", judges=2),
        [read(key, p) for key, p in enumerate([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2]] * 2)],
    )["members"]
    # P(a) + P(tie) / 2 is 0.7 in both orders
    assert [row["logit_ab"] for row in tie] == pytest.approx([math.log(7 / 3)] * 2)
    assert [row["logit_ba"] for row in tie] == pytest.approx([math.log(7 / 3)] * 2)
    single = verdict(spec_of("pairwise"), [read(0, [0.8, 0.2]), read(1, [0.2, 0.8])])
    assert single["members"] is None


def test_the_share_of_samples_is_a_smoothed_logit():
    """Of six samples a is ahead in five and level in one: with a half for each side, 6 to 1."""
    (member,) = verdict(spec_of("two-scores", samples=3), scores_reads(FAIREVAL))["members"]
    assert member["share"] == pytest.approx(math.log(6), abs=1e-12)
    assert member["logit_ab"] == pytest.approx(1, abs=1e-12)
    assert member["logit_ba"] == pytest.approx(7 / 3, abs=1e-12)
    # without the first two samples of ab: level, and three wins
    broken = scores_reads(FAIREVAL, broken={0, 2})
    (member,) = verdict(spec_of("two-scores", samples=3), broken)["members"]
    assert member["share"] == pytest.approx(math.log(4 / 1), abs=1e-12)


def test_answers_name_judge_variant_sample_and_order():
    spec = spec_of("pairwise", judges=2, variants=2)
    reads = [read(key, [0.5, 0.5]) for key in range(8)]
    _, answers = verdicts(spec, [pair(range(8))], reads)
    assert [(row["judge"], row["protocol"], row["shown"]) for row in answers] == [
        (judge, variant, shown)
        for judge in spec.judges
        for variant in (protocol.name for protocol in spec.judging.protocols)
        for shown in ("ab", "ba")
    ]


def test_a_pair_appears_when_all_its_prompts_are_read():
    reads = [read(0, [0.5, 0.5])]
    found, _ = verdicts(spec_of("pairwise"), [pair([0, 1])], reads)
    assert found == []


def test_one_missing_order_is_no_verdict():
    reads = [read(0, [0.9, 0.1]), read(1, status="error", error="broken")]
    found = verdict(spec_of("pairwise"), reads)
    assert (found["status"], found["error"]) == ("error", "broken")
    assert found["raw_preference"] is None
    assert found["preference_ab"] is None


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_has_a_source_and_one_line(name):
    protocol = get_protocol(name)
    assert protocol.about
    assert protocol.source
    assert protocol.combine in RULES


# -- what a verdict says besides its preference ----------------------------------------------------


def test_the_lowest_label_mass_of_each_order_counts():
    """Two samples, in both orders each: 0.9 and 0.6, 0.8 and 0.45, which is low."""
    masses = (0.9, 0.8, 0.6, 0.45)
    reads = [read(k, [0.75 * mass, 0.25 * mass]) for k, mass in enumerate(masses)]
    found = verdict(spec_of("pairwise", samples=2), reads)
    assert (found["label_mass_ab"], found["label_mass_ba"]) == pytest.approx((0.6, 0.45))
    assert found["flags"] == ["low_label_mass"]
    reads[3] = read(3, [0.375, 0.125])  # 0.5 is not low
    assert verdict(spec_of("pairwise", samples=2), reads)["flags"] == []


def test_one_sample_of_each_order_is_enough():
    reads = [read(k, [0.5, 0.5]) for k in range(3)] + [read(3, status="error", error="x")]
    found = verdict(spec_of("pairwise", samples=2), reads)
    assert (found["status"], found["flags"]) == ("ok", ["missing_answers"])
    reads[1] = read(1, status="error", error="x")  # none is left of the second order
    assert verdict(spec_of("pairwise", samples=2), reads)["status"] == "error"


def test_a_verdict_is_as_late_as_its_last_read():
    reads = [read(k, [0.5, 0.5], read_at=1000 * (2 - k)) for k in range(2)]
    found = verdict(spec_of("pairwise"), reads)
    assert found["read_at"].timestamp() == 2


def test_of_several_failures_the_last_word_of_the_alphabet_is_shown():
    """One of them, always the same: a prompt that is too long before an error of the engine."""
    reads = [read(0, status="overlong", error="x"), read(1, status="error", error="y")]
    found = verdict(spec_of("pairwise"), reads)
    assert (found["status"], found["error"]) == ("overlong", "y")
    assert found["flags"] == []  # an answer is missing where others are there


@pytest.mark.parametrize(("first", "flags"), [(True, ["outside_ab"]), (False, ["outside_ba"])])
def test_the_order_with_an_answer_outside_of_the_labels_is_named(first, flags):
    reads = [read(k, [0.5, 0.5], argmax_outside=(k == 0) == first) for k in range(2)]
    assert verdict(spec_of("pairwise"), reads)["flags"] == flags


@pytest.mark.parametrize(("name", "band"), [("pairwise", 0.125), ("pointwise", 0.0)])
def test_only_a_band_of_preferences_is_one_of_calibrated_preferences(name, band):
    assert spec_of(name, tie_band=0.125).preference_band == band
